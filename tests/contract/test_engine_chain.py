"""The chain of the embedded engine: its blocks are CometBFT's, and every step of making one may be the last."""

from collections import defaultdict
from pathlib import Path

import pytest
from engine_fixtures import GENESIS_MS, LoggingSigner, Node, make_genesis
from hypothesis import given, settings
from hypothesis import strategies as st
from kv_application import MARK, kv_tx

from freehold.base.errors import InvalidInputError, LocalProtocolError
from freehold.consensus.chain import ClockBehindError
from freehold.consensus.errors import StorageDamagedError
from freehold.crypto.ed25519 import PrivateKey
from freehold.light.blocks import Block
from freehold.light.canonical import CanonicalVote, ExecTxResult
from freehold.light.headers import commit_hash, data_hash, header_hash, results_hash
from freehold.light.skipping import verify_hop
from freehold.light.trust import GENESIS_TRUST, trust_bounds, trust_genesis
from freehold.light.types import EMPTY_COMMIT, Commit
from freehold.light.wire import decode_varint

STEPS = (
    "executed",
    "proposal_saved",
    "vote_recorded",
    "vote_signed",
    "block_final",
    "application_committed",
)


class CrashError(Exception):
    """The process dies here."""


def block_hashes_by_height(signer: LoggingSigner) -> dict[int, set[bytes]]:
    signed: dict[int, set[bytes]] = defaultdict(set)
    for message in signer.messages:
        length, at = decode_varint(message, 0, len(message))
        vote = CanonicalVote.decode(message[at : at + length])
        assert vote.block_id is not None
        signed[vote.height].add(message)
    return signed


def test_blocks_are_cometbfts_and_link_to_each_other(tmp_path: Path) -> None:
    genesis = make_genesis()
    with Node(tmp_path).start() as node:
        first = node.chain.make_block(GENESIS_MS + 5, [kv_tx("a", 0, "x", "1")])
        second = node.chain.make_block(GENESIS_MS + 5, [])
        light = [node.chain.light_block(height) for height in (1, 2)]
        block: Block | None = node.blocks.block(2)
        commit: Commit | None = node.blocks.commit(1)
    assert block is not None
    assert commit is not None
    for height, light_block in enumerate(light, start=1):
        assert light_block is not None
        assert (
            verify_hop(trust_genesis(genesis), light_block, trust_bounds(GENESIS_TRUST, genesis), None).height == height
        )
    header = second.header
    assert header.app_hash == first.app_hash != second.app_hash
    assert header.last_block_id.hash == first.hash == header_hash(first.header)
    assert header.last_commit_hash == commit_hash(commit)
    assert block.last_commit == commit
    assert header.last_results_hash == results_hash([ExecTxResult(), ExecTxResult(data=b"x")])
    assert header.data_hash == data_hash([MARK + b"2"])
    assert first.header.last_commit_hash == commit_hash(EMPTY_COMMIT)
    assert header.time.ms == first.header.time.ms + 1  # the clock stood still
    assert header.proposer_address == genesis.validators.validators[0].address
    assert header.validators_hash == header.next_validators_hash == genesis.validators_hash
    assert header.version.block == 11
    assert first.mempool_txs == 1
    assert second.mempool_txs == 0


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_after_any_step_neither_loses_nor_contradicts(tmp_path: Path, step: str) -> None:
    signer, tx = LoggingSigner(), kv_tx("a", 0, "x", "1")

    def trace(name: str) -> None:
        if name == step and node.chain.height == 1:
            raise CrashError

    with Node(tmp_path, signer=signer, trace=trace).start() as node:
        node.chain.make_block(GENESIS_MS + 1_000, [])
        with pytest.raises(CrashError):
            node.chain.make_block(GENESIS_MS + 2_000, [tx])
    with Node(tmp_path, signer=signer).start() as node:
        if step in ("block_final", "application_committed"):
            assert node.chain.height == 2
            assert not node.chain.newest or node.chain.newest.mempool_txs == 1
        elif step == "executed":
            assert not node.chain.is_block_due  # nothing was durable yet, nothing acknowledged
            assert node.chain.make_block(GENESIS_MS + 9_000, [tx]).height == 2
        else:
            assert node.chain.height == 1
            assert node.chain.is_block_due
            # other transactions wait now, and another time: neither gets into the stored proposal
            again = node.chain.make_block(GENESIS_MS + 9_000, [kv_tx("b", 0, "y", "2")])
            assert again.txs == (MARK + b"2", tx)
            assert again.header.time.ms == GENESIS_MS + 2_000
            assert again.mempool_txs == 1
        assert node.chain.is_block_due  # the proof block
        node.chain.make_block(GENESIS_MS + 10_000, [])
        assert node.app.state.get(b"kv/x") == b"1"
        assert node.app.state.get(b"kv/y") is None
    assert all(len(messages) == 1 for messages in block_hashes_by_height(signer).values())


@settings(deadline=None, max_examples=12)
@given(plan=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3)), max_size=6))
def test_any_series_of_crashes_replays_to_the_live_root(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[str, int]]
) -> None:
    folder, signer, nonce = tmp_path_factory.mktemp("chain"), LoggingSigner(), 0
    wall = GENESIS_MS
    for step, blocks in plan:
        armed = False

        def trace(name: str, step: str = step) -> None:
            if armed and name == step:  # noqa: B023
                raise CrashError

        with Node(folder, signer=signer, trace=trace).start() as node:
            nonce = int(node.app.state.get(b"nonce/a") or 0)
            for _ in range(blocks):
                wall += 7
                block = node.chain.make_block(wall, [kv_tx("a", nonce, f"k{nonce % 3}", str(nonce))])
                nonce = int(node.app.state.get(b"nonce/a") or 0)
                assert block.app_hash == node.app.state.app_hash
            armed = True
            with pytest.raises(CrashError):
                node.chain.make_block(wall, [kv_tx("a", nonce, "crash", str(nonce))])
    with Node(folder, signer=signer).start() as node:
        node.chain.make_block(wall + 1_000, [])
        live, height = node.chain.app_hash, node.chain.height
    assert all(len(messages) == 1 for messages in block_hashes_by_height(signer).values())
    # the state folder is lost: the blocks alone give it back
    (folder / "state").rename(folder / "lost")
    with Node(folder, signer=signer).start() as node:
        assert (node.chain.app_hash, node.chain.height) == (live, height)


def test_a_block_that_cannot_be_executed_is_neither_kept_nor_signed(tmp_path: Path) -> None:
    signer = LoggingSigner()
    with Node(tmp_path, signer=signer).start() as node, pytest.raises(UnicodeDecodeError):
        node.chain.make_block(GENESIS_MS, [b"\xff poison"])
    assert signer.messages == []
    with Node(tmp_path, signer=signer).start() as node:
        assert node.chain.make_block(GENESIS_MS, []).txs == (MARK + b"1",)


def test_an_application_that_computes_otherwise_is_refused(tmp_path: Path) -> None:
    with Node(tmp_path).start() as node:
        node.chain.make_block(GENESIS_MS, [kv_tx("a", 0, "x", "1")])
    (tmp_path / "state").rename(tmp_path / "lost")
    with Node(tmp_path, twist=b"!") as node, pytest.raises(StorageDamagedError, match="app hash") as error:
        node.start()
    assert error.value.code == "app_hash_mismatch"


def test_a_block_store_older_than_the_signers_record_is_refused(tmp_path: Path) -> None:
    with Node(tmp_path).start() as node:
        node.chain.make_block(GENESIS_MS, [])
        record = (tmp_path / "last_signed").read_bytes()
        node.chain.make_block(GENESIS_MS, [])
    newest = (tmp_path / "last_signed").read_bytes()
    (tmp_path / "last_signed").write_bytes(record)
    with Node(tmp_path) as node, pytest.raises(StorageDamagedError) as error:
        node.start()
    assert error.value.code == "signer_record_missing"
    (tmp_path / "last_signed").write_bytes(newest)
    (tmp_path / "blocks").rename(tmp_path / "old-blocks")
    (tmp_path / "state").rename(tmp_path / "old-state")
    with Node(tmp_path) as node, pytest.raises(StorageDamagedError) as error:
        node.start()
    assert error.value.code == "blocks_missing"


def test_another_block_at_a_signed_height_is_refused_by_the_signer(tmp_path: Path) -> None:
    signer = LoggingSigner()

    def trace(name: str) -> None:
        if name == "vote_recorded":
            raise CrashError

    with Node(tmp_path / "a", signer=signer, trace=trace).start() as node, pytest.raises(CrashError):
        node.chain.make_block(GENESIS_MS, [])
    # the record of one folder beside the pending block of another
    with Node(tmp_path / "b", signer=signer).start() as node:
        node.blocks.save_proposal(node.chain._compose(GENESIS_MS + 99, []), 0)
    (tmp_path / "b" / "last_signed").write_bytes((tmp_path / "a" / "last_signed").read_bytes())
    with Node(tmp_path / "b", signer=signer).start() as node, pytest.raises(LocalProtocolError) as error:
        node.chain.make_block(GENESIS_MS, [])
    assert error.value.code == "would_equivocate"
    assert signer.messages == []


def test_time_never_goes_back_and_a_clock_far_behind_stops_proposing(tmp_path: Path) -> None:
    with Node(tmp_path).start() as node:
        assert node.chain.make_block(GENESIS_MS + 60_000, []).header.time.ms == GENESIS_MS + 60_000
        assert node.chain.make_block(GENESIS_MS + 50_000, []).header.time.ms == GENESIS_MS + 60_001
        with pytest.raises(ClockBehindError, match="10002 ms behind"):
            node.chain.make_block(GENESIS_MS + 50_000 - 1, [])
        assert node.chain.height == 2
        assert node.blocks.pending() is None
        node.chain.make_block(GENESIS_MS + 70_000, [])


def test_genesis_must_name_this_key_alone_and_keep_its_promise(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as error:
        Node(tmp_path / "a", genesis=make_genesis(key=PrivateKey.from_seed(b"o" * 32)))
    assert error.value.code == "not_sole_validator"
    with Node(tmp_path / "b", genesis=make_genesis(app_hash=b"\x01" * 32)) as node:
        with pytest.raises(InvalidInputError) as error:
            node.start()
        assert error.value.code == "app_hash_mismatch"
    with Node(tmp_path / "c").start() as node:
        root = node.chain.app_hash
    with Node(tmp_path / "d", genesis=make_genesis(app_hash=root)).start() as node:
        assert node.chain.app_hash == root
    with Node(tmp_path / "c", genesis=make_genesis("kv-2")) as node, pytest.raises(StorageDamagedError) as damaged:
        node.start()
    assert damaged.value.code == "other_genesis"


def test_old_blocks_are_pruned_below_what_the_application_retains(tmp_path: Path) -> None:
    with Node(tmp_path, keep_blocks=4).start() as node:
        for _ in range(12):
            node.chain.make_block(GENESIS_MS, [])
        assert node.chain.lowest_height == 8
        assert node.chain.light_block(7) is None
        assert node.chain.light_block(8) is not None
        assert node.blocks.record(7) is None
    with Node(tmp_path, keep_blocks=4).start() as node:
        assert (node.chain.height, node.chain.lowest_height) == (12, 8)
    (tmp_path / "state").rename(tmp_path / "lost")
    with Node(tmp_path, keep_blocks=4) as node, pytest.raises(StorageDamagedError) as error:
        node.start()
    assert error.value.code == "blocks_missing"
