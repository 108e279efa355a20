"""What the deeper targets stand on: a ledger with work in flight, cheap signatures, and a small signed chain."""

import sys
from functools import cache
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
sys.path += [str(TESTS / "property"), str(TESTS / "unit/light")]
from ledger_grid import CAPACITY, CHAIN, OFFER, ZERO, Grid, Key  # noqa: E402
from light_chain import Chain, Tree  # noqa: E402

from freehold.base.presets import MINIMAL_ELECTIONS  # noqa: E402
from freehold.ledger.transactions import Challenge  # noqa: E402
from freehold.light.headers import header_hash  # noqa: E402
from freehold.light.types import LightBlock  # noqa: E402

__all__ = ["CAPACITY", "CHAIN", "OFFER", "ZERO", "Key", "Tree", "chain", "ledger", "signed_blocks", "signed_headers"]
HEIGHTS: Final = (1, 2, 3, 9)


@cache
def ledger() -> Grid:
    """Four validators with bonds, two running leases, a closed epoch, an open challenge."""
    grid = Grid(farms=4, validators=4, elections=MINIMAL_ELECTIONS)
    grid.block()
    leases = grid.deploy(grid.tenants[0], [[0, 2], [4]])
    grid.next_epoch()
    grid.next_epoch()
    grid.ok(grid.nodes[2], Challenge(leases[0], 1))
    grid.block(dt=100)
    return grid


@cache
def chain() -> Chain:
    """Four validators of unequal power."""
    return Chain((10, 10, 10, 5))


@cache
def signed_blocks() -> tuple[LightBlock, ...]:
    """Light blocks that all, or just enough, have signed."""
    whole = [chain().light_block(height) for height in HEIGHTS]
    return (*whole, chain().sign(chain().header(2), (0, 1, 2)))


@cache
def signed_headers() -> frozenset[bytes]:
    """What the validators' keys have ever signed."""
    return frozenset(header_hash(block.header) for block in signed_blocks())
