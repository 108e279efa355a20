"""A service proven on a chain whose validators changed: exported with the hops that lead there, read from genesis."""

import asyncio
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from msgspec.structs import replace
from proof_grid import CHAIN, GENESIS_MS, ProofGrid, Reader

sys.path.insert(0, str(Path(__file__).parents[1] / "light"))

from light_history import History, key

from freehold.base.limits import MAX_PROOF_FILE_BYTES
from freehold.client.proving import export_proof
from freehold.client.verifying import verify_proof
from freehold.consensus.state_store import StateStore
from freehold.light.bisection import Bisection
from freehold.light.genesis import TrustedGenesis, genesis_document, parse_genesis
from freehold.light.headers import header_hash
from freehold.light.proof_file import parse_proof_file
from freehold.light.trust import GENESIS_TRUST, PinnedTrust, trust_bounds, trust_genesis
from freehold.light.types import LightBlock, Timestamp
from freehold.light.verify import Signers
from freehold.lightclient.client import AskedHeader

# One leaves and one joins at each height: six heights on, nobody is left.
MOVING = History([{n + k: 10 for k in range(6)} for n in range(400)], chain_id=CHAIN)


def genesis_of(grid: ProofGrid) -> TrustedGenesis:
    document = genesis_document(
        chain_id=CHAIN,
        genesis_time=Timestamp.from_ms(GENESIS_MS),
        validators=[(key(n).public, power, f"v{n}") for n, power in MOVING.powers(1).items()],
        app_state=grid.chain.trusted.app_state,
    )
    return parse_genesis(document)


class MovingReader(Reader):
    """Reads a grid's state under a header of the moving chain."""

    def __init__(self, grid: ProofGrid, store: StateStore, trusted: TrustedGenesis) -> None:
        super().__init__(grid, store)
        self._trusted = trusted
        self._top = grid.height + 1
        time = Timestamp.from_ms(grid.now + 500)
        self._block = MOVING.block(self._top, app_hash=store.app_hash, time=time)
        self._at = AskedHeader(self._block.header, header_hash(self._block.header), Signers(6, 6, 60, 60), 0)

    async def hops(self, block: LightBlock) -> list[LightBlock]:
        bounds = trust_bounds(GENESIS_TRUST, self._trusted)
        bisection = Bisection(trust_genesis(self._trusted), self._top, bounds, None)
        while (height := bisection.wanted) is not None:
            bisection.feed(block if height == self._top else passing(height))
        return [state.light_block for state in bisection.trace[1:-1] if state.light_block is not None]


@cache
def passing(height: int) -> LightBlock:
    return MOVING.block(height, time=Timestamp.from_ms(GENESIS_MS + height))


def exported() -> tuple[bytes, TrustedGenesis, Sequence[LightBlock]]:
    grid = ProofGrid()
    grid.next_epoch()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 3]])
    for _ in range(3):
        grid.next_epoch()
    trusted = genesis_of(grid)
    with grid.stored() as store:
        reader = MovingReader(grid, store, trusted)
        data = asyncio.run(export_proof(reader, trusted, lease, grid.ask))
    return data, trusted, parse_proof_file(data).light_blocks


def test_a_service_is_proven_across_changing_validators() -> None:
    data, trusted, blocks = exported()
    verdict = verify_proof(data, trusted)
    assert verdict.problem is None and verdict.statements[0].word.startswith("observed")
    assert len(blocks) > 3 and len(data) < MAX_PROOF_FILE_BYTES + len(blocks) * 4_096
    assert (verdict.validators, verdict.signers) == (6, Signers(6, 6, 60, 60))
    assert "validators: 6; 5 of them together could have forged it" in verdict.assumes
    assert verdict.document()["forgers"]["count"] == 5
    # The answers of witnesses are in it: a leaf is tried against the header alone, not against genesis.
    assert parse_proof_file(data).witness

    now_ms = blocks[-1].header.time.ms
    for middle, count in ((blocks[-3].header, 3), (blocks[-2].header, 5)):
        pin = PinnedTrust(middle.height, header_hash(middle))
        verdict = verify_proof(data, trusted, trust=pin, now_ms=now_ms)
        assert verdict.problem is None and verdict.forgers is not None
        # More than a third vouch for a set of their own, but not for the very next height: the pinned header names it.
        assert verdict.forgers.count == count and (middle.height + 1 == blocks[-1].header.height) == (count == 5)

    other = replace(trusted, validators=trusted.validators, chain_id="another")
    refused = verify_proof(data, other).problem
    assert refused is not None and refused.code == "wrong_chain"
