"""The ledger's unit tests drive the same grid in a dict as its property tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "property"))
