"""Proposals over the socket: what nobody has to take, what anybody may leave out, and room to the byte."""

from pathlib import Path

import pytest
from abci_peer import ADDRESS, Connection, init_chain, time_of
from kv_application import kv_tx
from test_abci_server import make_foreign_block, run, serving

from freehold.consensus.abci import messages as wire
from freehold.consensus.abci.commits import AbciValidator, ExtendedCommitInfo, ExtendedVoteInfo
from freehold.consensus.abci.service import EXTENSION_ROOM_BYTES, OWN_TX_ROOM_BYTES
from freehold.consensus.mempool import TX_OVERHEAD_BYTES
from freehold.light.wire import encode_varint


def test_what_others_leave_out_of_their_blocks_goes_into_the_next_one_of_ones_own(tmp_path: Path) -> None:
    """Nobody has to take a transaction, and any order is accepted: a sender waits for the first honest turn."""

    async def main() -> None:
        async with serving(tmp_path) as (_, path):
            consensus, mempool = await Connection.open(path), await Connection.open(path)
            await consensus.ask(init_chain())
            victim = [kv_tx("victim", nonce, "x", "1", fee=5) for nonce in range(2)]
            for tx in victim:
                assert await mempool.ask(wire.RequestCheckTx(tx)) == wire.ResponseCheckTx()
            for height in range(1, 5):
                other = kv_tx(f"other{height}", 0, "y", "1", fee=1)
                txs = (b"!proposer %d" % height, other)
                proposal = wire.RequestProcessProposal(txs, height, time_of(height), ADDRESS)
                assert await consensus.ask(proposal) == wire.ResponseProcessProposal(wire.Status.ACCEPT)
                await make_foreign_block(consensus, height)
                for tx in victim:
                    again = wire.RequestCheckTx(tx, wire.CheckTxType.RECHECK)
                    assert await mempool.ask(again) == wire.ResponseCheckTx()
            offer = wire.RequestPrepareProposal(1_000_000, (), 5, time_of(5), ADDRESS)
            assert await consensus.ask(offer) == wire.ResponsePrepareProposal((b"!proposer 5", *victim))
            backwards = (b"!proposer 5", *reversed(victim))
            proposal = wire.RequestProcessProposal(backwards, 5, time_of(5), ADDRESS)
            assert await consensus.ask(proposal) == wire.ResponseProcessProposal(wire.Status.ACCEPT)

    run(main)


@pytest.mark.parametrize("votes", [0, 4])
def test_a_proposal_fills_its_room_to_the_byte_and_not_one_more(tmp_path: Path, votes: int) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (_, path):
            consensus, mempool = await Connection.open(path), await Connection.open(path)
            await consensus.ask(init_chain())
            txs = [kv_tx(f"s{n}", 0, "x", "1", fee=9 - n) for n in range(3)]
            for tx in txs:
                assert await mempool.ask(wire.RequestCheckTx(tx)) == wire.ResponseCheckTx()
            voters = tuple(ExtendedVoteInfo(AbciValidator(ADDRESS, 10)) for _ in range(votes))
            own = OWN_TX_ROOM_BYTES + EXTENSION_ROOM_BYTES * votes
            room = own + sum(len(tx) + TX_OVERHEAD_BYTES for tx in txs)
            for given, count in ((room, 3), (room - 1, 2), (own, 0), (own - 1, 0), (0, 0)):
                commit = ExtendedCommitInfo(voters)
                offer = wire.RequestPrepareProposal(given, (), 1, time_of(1), ADDRESS, commit)
                answer = await consensus.ask(offer)
                assert answer == wire.ResponsePrepareProposal((b"!proposer 1", *txs[:count])), given
                assert all(len(encode_varint(len(tx))) + 1 + len(tx) <= len(tx) + TX_OVERHEAD_BYTES for tx in txs)

    run(main)
