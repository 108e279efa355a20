"""A validator on the real engine whose application misbehaves: `python hostile_validator.py HOME withhold|forge`.

`withhold` votes without its VRF output; `forge` proposes blocks that begin with a proof it made up.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from freehold.base.codec import decode, encode
from freehold.consensus import application as abci
from freehold.consensus.application import Application
from freehold.consensus.comet.node import CometNode
from freehold.consensus.comet.operators import OperatorHome
from freehold.consensus.ledger_application import LedgerApplication
from freehold.ledger import keys
from freehold.ledger.beacons import VrfBeaconTx
from freehold.ledger.records import Totals
from freehold.ledger.state import read


class Withholding(LedgerApplication):
    """Keeps its output back; all else is as it should be."""

    def extend_vote(self, request: abci.ExtendVoteRequest) -> abci.ExtendVoteResponse:
        return abci.ExtendVoteResponse()


class Forging(LedgerApplication):
    """Changes the first proof that it carries, and says yes to its own block."""

    def prepare_proposal(self, request: abci.PrepareProposalRequest) -> abci.PrepareProposalResponse:
        txs = super().prepare_proposal(request).txs
        proofs = decode(txs[0], VrfBeaconTx, max_bytes=4_096).proofs
        if proofs:
            proofs[0] = (proofs[0][0], proofs[0][1][:-1] + bytes([proofs[0][1][-1] ^ 1]))
        return abci.PrepareProposalResponse((encode(VrfBeaconTx(request.height, proofs)), *txs[1:]))

    def process_proposal(self, request: abci.ProcessProposalRequest) -> abci.ProcessProposalResponse:
        return abci.ProcessProposalResponse(accept=True)


KINDS = {"withhold": Withholding, "forge": Forging}


def opener(kind: type[LedgerApplication]) -> Callable[[OperatorHome], tuple[Application, Callable[[], int]]]:
    def open_it(home: OperatorHome) -> tuple[Application, Callable[[], int]]:
        application = kind.open(home.data, home.genesis(), home.validator_key(), vrf_key=home.vrf_key())

        def last_time_ms() -> int:
            totals = read(application.state, keys.TOTALS, Totals)
            assert totals is not None
            return totals.time_ms

        return application, last_time_ms

    return open_it


async def main(home: Path, kind: str) -> None:
    await CometNode(OperatorHome(home), make_application=opener(KINDS[kind])).run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
