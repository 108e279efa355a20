"""Tests of proofs drive the same grid in a dict as the ledger's own tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "property"))
