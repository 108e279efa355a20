"""Rules that change on a real chain with its block store: replay, an old program, an engine that follows elections."""

import copy
import shutil
import time
from collections.abc import Collection
from pathlib import Path

import msgspec
import pytest
from engine_fixtures import GENESIS_MS, VALIDATOR

from freehold.base.amounts import TOKEN
from freehold.base.errors import FreeholdError, LocalProtocolError
from freehold.base.presets import MAINNET_ELECTIONS, MINIMAL, MINIMAL_ELECTIONS
from freehold.consensus.abci import message_parts as parts
from freehold.consensus.abci import messages as wire
from freehold.consensus.abci.commits import AbciMisbehavior, AbciValidator, CommitInfo, VoteInfo
from freehold.consensus.abci.service import AbciService
from freehold.consensus.application import OfferResult
from freehold.consensus.block_store import BlockStore
from freehold.consensus.chain import Chain
from freehold.consensus.comet.founding import bonds_of, genesis_of
from freehold.consensus.comet.operators import OperatorHome
from freehold.consensus.ledger_application import LedgerApplication
from freehold.consensus.signing import SignerState
from freehold.consensus.state_sync import NO_SNAPSHOTS, SnapshotPlan
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.strkey import encode_account
from freehold.ledger import keys, rules
from freehold.ledger.bonds import validator_address
from freehold.ledger.codes import Code
from freehold.ledger.execute import beacon_tx
from freehold.ledger.genesis import app_state_document, initial_state
from freehold.ledger.genesis_elections import GenesisBond
from freehold.ledger.records import Account, Attendance, Elections, Params, Totals, ValidatorBond
from freehold.ledger.state import read
from freehold.ledger.transactions import (
    Body,
    Bond,
    Transfer,
    Upgrade,
    beacon_signing_bytes,
    sign_tx,
    upgrade_bytes,
    validator_possession_bytes,
)
from freehold.light.genesis import TrustedGenesis, genesis_document, parse_genesis
from freehold.light.types import Timestamp

CHAIN = "upgrade-1"
HEIGHT = 14
FAUCET = PrivateKey.from_seed(b"f" * 32)


def make_genesis(validators: list[PrivateKey], **options: object) -> TrustedGenesis:
    return parse_genesis(
        genesis_document(
            chain_id=CHAIN,
            genesis_time=Timestamp.from_ms(GENESIS_MS),
            validators=[(key.public, 10, "") for key in validators],
            app_state=app_state_document(MINIMAL, [], [], faucet=FAUCET.public, **options),  # type: ignore[arg-type]
        )
    )


class Ledger:
    """A chain of one validator over a folder."""

    def __init__(self, folder: Path) -> None:
        genesis = make_genesis([VALIDATOR])
        self.app = LedgerApplication.open(folder, genesis, VALIDATOR)
        self.blocks = BlockStore(folder / "blocks")
        self.signer_state = SignerState(folder / "last_signed")
        self.chain = Chain(genesis, self.app, self.blocks, VALIDATOR, self.signer_state)
        self.chain.start()

    def close(self) -> None:
        self.app.close()
        self.blocks.close()

    def make(self, *bodies: Body) -> list[int]:
        """A block; gives the codes of its transactions that were not left out."""
        account = read(self.app.state, keys.account_key(FAUCET.public), Account)
        assert account is not None
        height = self.chain.height + 1
        txs = [
            sign_tx(CHAIN, FAUCET, account.nonce + at, MINIMAL.min_fee, height + 10, body)
            for at, body in enumerate(bodies)
        ]
        block = self.chain.make_block(GENESIS_MS + height * 1_000, txs)
        return [result.code for result in block.results[1:]]


def upgrade(version: int, height: int = HEIGHT) -> Upgrade:
    message = upgrade_bytes(CHAIN, height, version, [])
    return Upgrade(height, version, [], [(VALIDATOR.public, VALIDATOR.sign(message))])


def test_replay_of_stored_blocks_across_the_change_gives_the_live_root(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.make(upgrade(2)) == [Code.OK]
    while ledger.chain.height < HEIGHT + 5:
        assert ledger.make(Transfer(VALIDATOR.public, TOKEN)) == [Code.OK]
    params = read(ledger.app.state, keys.PARAMS, Params)
    assert params is not None
    assert params.rules == [(1, 1), (HEIGHT, 2)]
    live, height = ledger.chain.app_hash, ledger.chain.height
    ledger.close()
    shutil.rmtree(tmp_path / "state")
    again = Ledger(tmp_path)
    assert (again.chain.app_hash, again.app.state.height) == (live, height)
    assert again.make(Transfer(VALIDATOR.public, TOKEN)) == [Code.OK]
    again.close()


def test_an_old_program_halts_before_it_signs_and_a_new_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(rules.RULE_SETS, 2)  # the program as it was
    ledger = Ledger(tmp_path)
    ledger.make(upgrade(2))
    while ledger.chain.height < HEIGHT - 1:
        ledger.make()
    with pytest.raises(LocalProtocolError, match=f"height {HEIGHT} needs rules version 2") as caught:
        ledger.make()
    assert caught.value.code == "unknown_rules"
    assert ledger.blocks.pending() is None
    assert ledger.signer_state.last is not None
    assert ledger.signer_state.last.height == HEIGHT - 1
    root = ledger.chain.app_hash
    ledger.close()
    with pytest.raises(LocalProtocolError, match="needs rules version 2"):
        LedgerApplication.open(tmp_path, make_genesis([VALIDATOR]), VALIDATOR)
    monkeypatch.undo()
    ledger = Ledger(tmp_path)
    assert ledger.chain.app_hash == root
    assert ledger.make(Transfer(VALIDATOR.public, TOKEN)) == [Code.OK]
    assert ledger.chain.height == HEIGHT
    ledger.close()


def test_the_embedded_engine_elects_nobody(tmp_path: Path) -> None:
    """It has one fixed validator: a ledger that elects another one needs CometBFT."""
    genesis = make_genesis(
        [VALIDATOR],
        elections=msgspec.structs.replace(MINIMAL_ELECTIONS, min_owners=1, min_total_bond=0),
        bonds=[GenesisBond(VALIDATOR.public, FAUCET.public, 200 * TOKEN)],
    )
    app = LedgerApplication.open(tmp_path, genesis, VALIDATOR)
    blocks = BlockStore(tmp_path / "blocks")
    chain = Chain(genesis, app, blocks, VALIDATOR, SignerState(tmp_path / "last_signed"))
    chain.start()
    chain.make_block(GENESIS_MS + 1_000, [])
    with pytest.raises(LocalProtocolError) as caught:
        chain.make_block(GENESIS_MS + 61_000, [])
    assert caught.value.code == "validators_fixed"
    assert blocks.pending() is None
    app.close()
    blocks.close()


class Comet:
    """The engine's side of one node: it names validators by address, and follows the changes that blocks return."""

    def __init__(
        self,
        folder: Path,
        genesis: TrustedGenesis,
        validators: list[PrivateKey],
        snapshots: SnapshotPlan = NO_SNAPSHOTS,
    ) -> None:
        self.folder, self.genesis, self.snapshots = folder, genesis, snapshots
        self.key = {validator_address(key.public): key for key in validators}
        members = {validator_address(key.public): 10 for key in validators}
        self.sets = {0: members, 1: members, 2: members}
        self.height = 0
        self.now = GENESIS_MS
        self.open()

    def open(self) -> None:
        self.app = LedgerApplication.open(self.folder, self.genesis, None, snapshots=self.snapshots)
        self.service = AbciService(self.app, self.genesis, self._last_time_ms)
        self.service.handle(wire.RequestInfo("0.38.25"))
        if not self.height:
            members = self.genesis.validators.validators
            updates = tuple(parts.ValidatorUpdate(one.pub_key, one.voting_power) for one in members)
            app_state = msgspec.json.encode(self.genesis.app_state)
            begin = wire.RequestInitChain(Timestamp.from_ms(GENESIS_MS), CHAIN, updates, app_state, 1)
            self.service.handle(begin)

    def _last_time_ms(self) -> int:
        totals = read(self.app.state, keys.TOTALS, Totals)
        assert totals is not None
        return totals.time_ms

    def block(
        self, *bodies: Body, dt: int = 1_000, faults: tuple[AbciMisbehavior, ...] = (), away: Collection[bytes] = ()
    ) -> list[int]:
        """One block; `away` are addresses, absent or for nil in the commit that it holds."""
        self.height, self.now = self.height + 1, self.now + dt
        height, time = self.height, Timestamp.from_ms(self.now)
        members = self.sets[height]
        address = sorted(members)[height % len(members)]
        proposer = self.key[address]
        account = read(self.app.state, keys.account_key(FAUCET.public), Account)
        assert account is not None
        txs = (
            beacon_tx(height, proposer.sign(beacon_signing_bytes(CHAIN, height))),
            *(
                sign_tx(CHAIN, FAUCET, account.nonce + at, MINIMAL.min_fee, height + 10, body)
                for at, body in enumerate(bodies)
            ),
        )
        last = CommitInfo(
            tuple(
                VoteInfo(AbciValidator(*one), 2 if one[0] not in away else 1 if height % 2 else 3)
                for one in self.sets[height - 1].items()
            )
        )
        if height == 1:
            last = CommitInfo()
        proposed = self.service.handle(wire.RequestProcessProposal(txs, height, time, address, last, faults))
        assert proposed == wire.ResponseProcessProposal(wire.Status.ACCEPT)
        final = self.service.handle(wire.RequestFinalizeBlock(txs, b"", height, time, address, last, faults))
        assert isinstance(final, wire.ResponseFinalizeBlock)
        self.service.handle(wire.RequestCommit())
        following = dict(self.sets[height + 1])
        for update in final.validator_updates:
            changed = validator_address(update.pub_key.ed25519)
            if update.power:
                following[changed] = update.power
            else:
                del following[changed]
        self.sets[height + 2] = following
        return [result.code for result in final.tx_results[1:]]


def test_an_engine_that_follows_the_elections_is_understood_also_after_a_restart(tmp_path: Path) -> None:
    validators = [PrivateKey.from_seed(bytes([at]) * 32) for at in range(1, 5)]
    late = PrivateKey.from_seed(b"late" * 8)
    owners = [PrivateKey.from_seed(bytes([at]) * 32).public for at in range(11, 15)]
    bonds = [GenesisBond(key.public, owner, 200 * TOKEN) for key, owner in zip(validators, owners, strict=True)]
    genesis = make_genesis(validators, elections=MINIMAL_ELECTIONS, bonds=bonds)
    comet = Comet(tmp_path, genesis, [*validators, late][:4])
    comet.key[validator_address(late.public)] = late
    possession = late.sign(validator_possession_bytes(CHAIN, late.public, FAUCET.public, b""))
    assert comet.block(Bond(late.public, b"", possession, 200 * TOKEN)) == [Code.OK]
    comet.block(dt=60_000)
    for number in range(8):
        comet.block(dt=100)
        if number == 3:
            comet.app.close()
            comet.open()
    assert comet.sets[comet.height] == {address: 200 for address in comet.key}
    guilty = validator_address(late.public)
    evidence = AbciMisbehavior(1, AbciValidator(guilty, 200), comet.height, Timestamp.from_ms(comet.now), 1_000)
    comet.block(faults=(evidence,))
    comet.block()
    comet.block()
    assert guilty not in comet.sets[comet.height]
    bond = read(comet.app.state, keys.bond_key(late.public), ValidatorBond)
    assert bond is not None
    assert bond.stake == 190 * TOKEN
    stranger = validator_address(bytes(32))
    assert comet.app.find_validator(stranger) is None
    assert comet.app.find_validator(guilty) == late.public
    refused = wire.RequestProcessProposal(
        (), comet.height + 1, Timestamp.from_ms(comet.now), stranger, CommitInfo(), ()
    )
    assert comet.service.handle(refused) == wire.ResponseProcessProposal(wire.Status.REJECT)
    with pytest.raises(FreeholdError, match="no validator of this ledger"):
        comet.service.handle(
            wire.RequestFinalizeBlock(
                (), b"", comet.height + 1, Timestamp.from_ms(comet.now), stranger, CommitInfo(), ()
            )
        )
    elections = read(comet.app.state, keys.ELECTIONS, Elections)
    assert elections is not None
    assert elections.is_elected
    comet.app.close()


def test_who_is_absent_or_votes_for_nil_is_counted_and_loses_its_seat_also_after_a_restart(tmp_path: Path) -> None:
    validators = [PrivateKey.from_seed(bytes([at]) * 32) for at in range(1, 5)]
    owners = [PrivateKey.from_seed(bytes([at]) * 32).public for at in range(11, 15)]
    bonds = [GenesisBond(key.public, owner, 200 * TOKEN) for key, owner in zip(validators, owners, strict=True)]
    comet = Comet(tmp_path, make_genesis(validators, elections=MINIMAL_ELECTIONS, bonds=bonds), validators)
    idle = validator_address(validators[2].public)
    for number in range(30):
        comet.block(dt=100, away={idle})
        if number == 12:
            comet.app.close()
            comet.open()
    attendance = read(comet.app.state, keys.ATTENDANCE, Attendance)
    assert attendance is not None
    assert attendance.missed == [(validators[2].public, 29)]  # the first block holds no commit
    comet.block(dt=60_000)
    comet.block()
    comet.block()
    assert comet.sets[comet.height].keys() == {validator_address(key.public) for key in validators} - {idle}
    comet.app.close()


def restored(comet: Comet, folder: Path) -> Comet:
    """Another node, with the state of the newest height alone, by state sync; its engine knows the sets."""
    for _ in range(400):
        if (offered := comet.app.list_snapshots()) and offered[0].height == comet.height:
            break
        time.sleep(0.05)
    snapshot = offered[0]
    assert snapshot.height == comet.height
    other = copy.copy(comet)
    other.folder, other.sets = folder, dict(comet.sets)
    folder.mkdir()
    application = LedgerApplication.open(folder, comet.genesis, None)
    assert application.offer_snapshot(snapshot, comet.app.state.app_hash) == OfferResult.ACCEPT
    for index in range(snapshot.chunks):
        application.apply_snapshot_chunk(
            index, comet.app.load_snapshot_chunk(snapshot.height, snapshot.format, index), "peer"
        )
    application.close()
    other.open()
    return other


def test_a_node_restored_in_the_middle_of_an_era_judges_alike(tmp_path: Path) -> None:
    validators = [PrivateKey.from_seed(bytes([at]) * 32) for at in range(1, 5)]
    owners = [PrivateKey.from_seed(bytes([at]) * 32).public for at in range(11, 15)]
    bonds = [GenesisBond(key.public, owner, 200 * TOKEN) for key, owner in zip(validators, owners, strict=True)]
    genesis = make_genesis(validators, elections=MINIMAL_ELECTIONS, bonds=bonds)
    (tmp_path / "a").mkdir()
    comet = Comet(tmp_path / "a", genesis, validators, SnapshotPlan(20))
    idle = validator_address(validators[2].public)
    for _ in range(20):
        comet.block(dt=100, away={idle})
    nodes = [comet, restored(comet, tmp_path / "b")]
    for node in nodes:
        for _ in range(12):
            node.block(dt=100, away={idle} if node.height < 25 else set())
        node.block(dt=60_000)
        assert node.sets[node.height + 2].keys() == {validator_address(key.public) for key in validators} - {idle}
    assert nodes[0].app.state.app_hash == nodes[1].app.state.app_hash
    attendance = read(nodes[1].app.state, keys.ATTENDANCE, Attendance)
    assert attendance is not None
    assert [key for key, _ in attendance.absent] == [validators[2].public]  # 24 of 32: most of it before the restore
    for node in nodes:
        node.app.close()


def test_the_engine_takes_evidence_as_long_as_bonds_are_liable(tmp_path: Path) -> None:
    home = OperatorHome(tmp_path / "v0")
    card = home.make_keys("v0", "127.0.0.1:26656", encode_account(FAUCET.public))
    state = app_state_document(
        MINIMAL, [], [], elections=MAINNET_ELECTIONS, bonds=bonds_of([card], MAINNET_ELECTIONS.min_bond)
    )
    genesis = parse_genesis(genesis_of([card], CHAIN, state, time_ms=GENESIS_MS))
    assert genesis.params.evidence_max_age_ns == MAINNET_ELECTIONS.unbonding_ms * 1_000_000
    assert genesis.params.evidence_max_age_blocks == MAINNET_ELECTIONS.unbonding_blocks
    first = initial_state(genesis.app_state, CHAIN, GENESIS_MS, [(card.validator_key, 10)])
    bond = read(first, keys.bond_key(card.validator_key), ValidatorBond)
    assert bond is not None
    assert (bond.owner, bond.vrf_key) == (FAUCET.public, card.vrf_member.vrf_key)
    with pytest.raises(FreeholdError):
        home.make_keys("v0", "127.0.0.1:26656", "no account")
