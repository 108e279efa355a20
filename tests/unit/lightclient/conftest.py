"""Lets these tests use the small chain of the light client's tests."""

import sys
from pathlib import Path

for _folder in ("light", "rpc"):
    sys.path.insert(0, str(Path(__file__).parent.parent / _folder))
