"""The ledger behind the application interface: the same results as its pure rules, signatures verified once."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from ledger_grid import CHAIN, FEE, GENESIS_MS, Grid, Key, preset_with
from ledger_workload import Workload

from freehold.base.codec import decode, encode
from freehold.base.errors import InvalidInputError
from freehold.consensus import application as abci
from freehold.consensus.application import CheckTxRequest, FinalizeBlockRequest, Lane, ProcessProposalRequest
from freehold.consensus.errors import StorageDamagedError
from freehold.consensus.known_txs import KnownTxs, VerifiedSignatures
from freehold.consensus.ledger_application import LedgerApplication, genesis_preset
from freehold.consensus.state_store import StateStore
from freehold.crypto import ed25519
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.events import Event
from freehold.ledger.execute import BlockInput
from freehold.ledger.genesis import app_state_document
from freehold.ledger.records import Account
from freehold.ledger.transactions import Transfer, decode_tx
from freehold.light.genesis import genesis_document, parse_genesis
from freehold.light.ics23 import SMT, CommitmentProof, verify_absence, verify_existence
from freehold.light.types import Timestamp

VALIDATOR = PrivateKey.from_seed(Key("validator").public)


def real_key(name: str) -> PrivateKey:
    return PrivateKey.from_seed(Key(name).public)


def workload(transactions: int) -> tuple[dict[bytes, bytes], Grid]:
    """Genesis state, and the grid after a run with real keys."""
    grid = Grid(preset_with(report_epochs=6), make_key=real_key, check_signature=ed25519.verify, is_checked=False)
    genesis = dict(grid.state)
    Workload(grid, 20_261_125).run(transactions)
    return genesis, grid


def opened(folder: Path, genesis: dict[bytes, bytes]) -> LedgerApplication:
    state = StateStore.open(folder, 8, split=4)
    state.stage(0, dict(genesis))
    state.commit()
    app = LedgerApplication(state, VALIDATOR)
    app._chain_id = CHAIN
    return app


def finalize(app: LedgerApplication, block: BlockInput) -> abci.FinalizeBlockResponse:
    return app.finalize_block(
        FinalizeBlockRequest(height=block.height, time_ms=block.time_ms, proposer=block.proposer, txs=tuple(block.txs))
    )


def app_hash_of(transactions: int) -> str:
    genesis, grid = workload(transactions)
    with TemporaryDirectory() as folder:
        app = opened(Path(folder), genesis)
        for block in grid.blocks:
            finalize(app, block)
            app.commit()
        root = app.state.app_hash.hex()
        app.close()
    return root


def test_blocks_lead_to_the_state_of_the_pure_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genesis, grid = workload(500)
    verified = 0
    verify = ed25519.verify

    def counting(public: bytes, message: bytes, signature: bytes) -> bool:
        nonlocal verified
        verified += 1
        return verify(public, message, signature)

    monkeypatch.setattr(ed25519, "verify", counting)
    app = opened(tmp_path, genesis)
    refused = reports = 0
    kinds: set[str] = set()
    for block in grid.blocks:
        checks = [app.check_tx(CheckTxRequest(tx)) for tx in block.txs[1:]]
        refused += sum(check.code != 0 for check in checks)
        free = [(check.sender, check.replay_key) for check in checks if check.lane is Lane.REPORTS]
        assert all(key for _, key in free)
        reports += len(free)
        request = ProcessProposalRequest(
            height=block.height, time_ms=block.time_ms, proposer=block.proposer, txs=tuple(block.txs)
        )
        assert app.process_proposal(request).accept
        response = finalize(app, block)
        assert len(response.tx_results) == len(block.txs)
        for result in response.tx_results:
            for event in result.events:
                decode(event.data, Event)  # type: ignore[arg-type]
                kinds.add(event.kind)
        app.commit()
        assert app.info() == abci.InfoResponse(block.height, response.app_hash, 1)
    assert dict(app.state.items()) == grid.state
    assert reports > 20
    assert {"transfer", "report", "lease"} <= kinds
    # each block's beacon twice; of all others only those that the mempool would have refused
    assert verified <= 2 * len(grid.blocks) + refused
    root, height = app.state.app_hash, app.state.height
    for key, value in sorted(grid.state.items())[::7]:
        answer = app.query(abci.QueryRequest(key, height, prove=True))
        assert answer.value == value
        verify_existence(SMT, root, key, value, CommitmentProof.decode(answer.proof))
    missing = keys.account_key(bytes(32))
    verify_absence(
        SMT, root, missing, CommitmentProof.decode(app.query(abci.QueryRequest(missing, height, True)).proof)
    )
    app.close()


def test_two_hash_seeds_give_one_app_hash() -> None:
    def run(hash_seed: int) -> str:
        return subprocess.run(
            [sys.executable, "-c", "import test_ledger_application as t; print(t.app_hash_of(150))"],
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        ).stdout.strip()

    assert run(1) == run(2) == app_hash_of(150)


def test_a_block_without_its_beacon_is_refused(tmp_path: Path) -> None:
    genesis, grid = workload(1)
    app = opened(tmp_path, genesis)
    good = grid.blocks[0]

    def judge(txs: tuple[bytes, ...], height: int = 1) -> str:
        return app.process_proposal(
            ProcessProposalRequest(height=height, time_ms=good.time_ms, proposer=good.proposer, txs=txs)
        ).log

    assert judge(tuple(good.txs)) == ""
    assert judge(()) == "misplaced_beacon"
    assert judge(tuple(good.txs[1:])) == "misplaced_beacon"
    assert judge(tuple(good.txs), height=2) == "bad_beacon"
    app.close()


def test_genesis_is_taken_over_once(tmp_path: Path) -> None:
    grid = Grid(make_key=real_key, check_signature=ed25519.verify)
    state = app_state_document(grid.preset, [], [], faucet=grid.faucet.public)
    trusted = parse_genesis(
        genesis_document(
            chain_id=CHAIN,
            genesis_time=Timestamp.from_ms(GENESIS_MS),
            validators=[(VALIDATOR.public, 10, "one")],
            app_state=state,
        )
    )
    assert genesis_preset(trusted) == grid.preset

    def request(app_state: dict[str, object]) -> abci.InitChainRequest:
        return abci.InitChainRequest(
            chain_id=CHAIN,
            time_ms=GENESIS_MS,
            initial_height=1,
            validators=(abci.Validator(VALIDATOR.public, 10),),
            app_state=app_state,
        )

    app = LedgerApplication.open(tmp_path, trusted, VALIDATOR)
    assert app.info() == abci.InfoResponse(0, b"", 1)
    root = app.init_chain(request(state)).app_hash
    assert app.init_chain(request(state)).app_hash == root  # asked again after a crash
    other = app_state_document(grid.preset, [], [], faucet=grid.tenants[0].public)
    with pytest.raises(StorageDamagedError) as error:
        app.init_chain(request(other))
    assert error.value.code == "other_genesis"
    app.close()
    for broken in ({}, {"preset": 1, "values": {}}, {"preset": "minimal", "values": {"epoch_ms": True}}):
        document = genesis_document(
            chain_id=CHAIN, genesis_time=Timestamp.from_ms(1), validators=[(VALIDATOR.public, 1, "")], app_state=broken
        )
        with pytest.raises(InvalidInputError):
            genesis_preset(parse_genesis(document))


def test_remembered_signatures_are_bounded_and_good_ones_only() -> None:
    memory = VerifiedSignatures(capacity=3)
    for n in range(5):
        message = b"m%d" % n
        assert memory.verify_new(VALIDATOR.public, message, VALIDATOR.sign(message))
        assert not memory.verify_new(VALIDATOR.public, message, bytes(64))
        assert not memory.verify_decided(VALIDATOR.public, message, bytes(64))
    assert len(memory) == 3
    assert memory.verify_decided(VALIDATOR.public, b"m0", VALIDATOR.sign(b"m0"))


def test_known_transactions_are_bounded_in_count_and_bytes_and_forgotten_with_their_block() -> None:
    grid = Grid(make_key=real_key, check_signature=ed25519.verify)
    txs = [grid.tx(grid.tenants[0], Transfer(grid.tenants[1].public, 1), nonce=nonce) for nonce in range(6)]
    few = KnownTxs(max_txs=3)
    small = KnownTxs(max_bytes=2 * len(txs[0]) + 1)
    for known, kept in ((few, txs[3:]), (small, txs[4:])):
        for data in (*txs, txs[-1]):
            known.keep(data, decode_tx(data))
        assert [data for data in txs if known.find(data) == decode_tx(data)] == kept
        known.forget([txs[0], kept[0]])
        assert known.find(kept[0]) is None
        known.keep(kept[0], decode_tx(kept[0]))  # its room was given back
        assert len(known) == len(kept)


def test_a_known_transaction_is_judged_by_the_state_all_the_same(tmp_path: Path) -> None:
    grid = Grid(make_key=real_key, check_signature=ed25519.verify)
    app = opened(tmp_path, dict(grid.state))
    tx = grid.tx(grid.tenants[0], Transfer(grid.tenants[1].public, 1), nonce=0)
    assert app.check_tx(CheckTxRequest(tx)).code == 0
    assert app.check_tx(CheckTxRequest(tx, abci.CheckKind.RECHECK)).code == 0
    account = decode(app.state.get(keys.account_key(grid.tenants[0].public)) or b"", Account)
    used = Account(account.version, account.balance, 1, account.reserved, account.threshold, account.signers)
    app.state.stage(1, {keys.account_key(grid.tenants[0].public): encode(used)})
    app.state.commit()
    assert app.check_tx(CheckTxRequest(tx, abci.CheckKind.RECHECK)).code == Code.WRONG_NONCE
    app.close()


def test_a_proposal_holds_what_succeeds_and_leads_to_the_same_state(tmp_path: Path) -> None:
    genesis, grid = workload(300)
    app = opened(tmp_path, genesis)
    left_out = 0
    for block in grid.blocks:
        prepared = app.prepare_proposal(
            abci.PrepareProposalRequest(
                height=block.height,
                time_ms=block.time_ms,
                proposer=block.proposer,
                txs=tuple(block.txs[1:]),
                max_tx_bytes=1 << 20,
            )
        )
        left_out += len(block.txs) - len(prepared.txs)
        proposed = BlockInput(block.height, block.time_ms, block.proposer, list(prepared.txs))
        if block.height % 2:
            app._proposed = None  # as after a restart: executed anew
        assert all(result.code == 0 for result in finalize(app, proposed).tx_results)
        app.commit()
    assert left_out > 10
    assert dict(app.state.items()) == grid.state
    app.close()


def test_one_balance_fills_no_block_for_free(tmp_path: Path) -> None:
    grid = Grid(make_key=real_key, check_signature=ed25519.verify)
    app = opened(tmp_path, dict(grid.state))
    rich, other = grid.tenants
    account = grid.account(rich.public)
    assert account is not None
    spendable = account.balance - account.reserved
    txs = [
        grid.tx(rich, Transfer(other.public, spendable - FEE), nonce=0),
        *(grid.tx(rich, Transfer(other.public, 1), nonce=nonce, fee=spendable) for nonce in range(1, 64)),
    ]
    assert all(app.check_tx(CheckTxRequest(tx)).code == 0 for tx in txs)  # each might succeed, for all it can tell
    request = abci.PrepareProposalRequest(
        height=1,
        time_ms=GENESIS_MS + 1_000,
        proposer=VALIDATOR.public,
        txs=tuple(txs),
        max_tx_bytes=1 << 20,
    )
    assert app.prepare_proposal(request).txs[1:] == (txs[0],)
    app.close()
