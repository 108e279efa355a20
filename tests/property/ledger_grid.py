"""A whole ledger in a dict, driven by hand: farms, nodes and tenants with cheap keys, honest reports, any clock.

Signatures are hashes of key and message: as binding as the real ones, and fast. Every block's state is checked against
all invariants (unless told otherwise).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from freehold.base.amounts import TOKEN
from freehold.base.codec import encode
from freehold.base.presets import MINIMAL, AttendancePreset, ElectionPreset, Preset
from freehold.ledger import keys, leases, schedule
from freehold.ledger.challenges import challenge_draw
from freehold.ledger.codes import Code
from freehold.ledger.context import Verify
from freehold.ledger.draw import draw
from freehold.ledger.events import Event
from freehold.ledger.execute import BlockInput, BlockResult, TxResult, beacon_tx, check_tx, execute_block
from freehold.ledger.genesis import GenesisFarm, GenesisNode, app_state_document, initial_state
from freehold.ledger.genesis_elections import GenesisBond
from freehold.ledger.invariants import check_state
from freehold.ledger.records import (
    Account,
    BeaconRecord,
    ChallengeRecord,
    Deployment,
    EpochRecord,
    Lease,
    Node,
    NodeSlot,
    ReportRecord,
    TenantIndex,
    Totals,
)
from freehold.ledger.state import R, decode_record
from freehold.ledger.transactions import (
    FREE_BODIES,
    Accept,
    Body,
    Bond,
    Claim,
    Deploy,
    LeaseOrder,
    Offer,
    Probe,
    Report,
    Resources,
    Tx,
    Upgrade,
    beacon_signing_bytes,
    tx_signing_bytes,
    upgrade_bytes,
    validator_possession_bytes,
)
from freehold.ledger.validator_sets import set_at
from freehold.ledger.votes import Misbehavior, Vote

CHAIN = "freehold-test"
GENESIS_MS = 1_700_000_000_000
FEE = MINIMAL.min_fee
SMALL = Resources(1000, 1024, 1024)
OFFER = Offer(TOKEN, TOKEN // 2, TOKEN // 10)
CAPACITY = Resources(8000, 16_384, 100_000)
PROBE = Probe(1, 8080, "")
ZERO = bytes(32)


@dataclass(frozen=True)
class Key:
    """A cheap key pair: whoever knows the public half can sign, which no test here pretends otherwise."""

    name: str
    public: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "public", hashlib.sha256(b"key:" + self.name.encode()).digest())

    def sign(self, message: bytes) -> bytes:
        return hashlib.sha512(self.public + message).digest()


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    return hashlib.sha512(public + message).digest() == signature


class Signer(Protocol):
    """What a grid needs of a key; real ones have it too."""

    public: bytes

    def sign(self, message: bytes) -> bytes: ...


def preset_with(base: Preset = MINIMAL, **changes: int) -> Preset:
    return msgspec.structs.replace(base, **changes)


def sign_tx(key: Signer, body: Body, nonce: int, **fields: Any) -> bytes:
    """Encode a transaction signed by its sender's key (or by `signers`)."""
    signers: Iterable[Signer] = fields.pop("signers", (key,))
    is_free = isinstance(body, FREE_BODIES)
    tx = Tx(
        version=fields.get("version", 1),
        chain_id=fields.get("chain_id", CHAIN),
        sender=fields.get("sender", key.public),
        nonce=nonce,
        fee=fields.get("fee", 0 if is_free else FEE),
        valid_until=fields.get("valid_until", 5_000),
        body=body,
        signatures=[],
    )
    message = tx_signing_bytes(tx)
    signatures = sorted((signer.public, signer.sign(message)) for signer in signers)
    return encode(msgspec.structs.replace(tx, signatures=signatures))


class Engine:
    """The engine's own view of who votes at which height, built from the changes that blocks return."""

    def __init__(self, members: dict[bytes, int]) -> None:
        self.sets = {1: members, 2: members}

    def apply(self, height: int, updates: list[tuple[bytes, int]]) -> None:
        """As CometBFT does: in force two heights later; it refuses to remove a stranger, or everybody."""
        members = dict(self.sets[height + 1])
        for key, power in updates:
            assert power >= 0
            if power:
                members[key] = power
            else:
                del members[key]
        assert members
        self.sets[height + 2] = members

    def proposer(self, height: int) -> bytes:
        members = sorted(self.sets[height])
        return members[height % len(members)]


class Grid:
    """A ledger with its nodes. `blocks` keeps every block, so that a run can be replayed."""

    def __init__(
        self,
        preset: Preset = MINIMAL,
        *,
        farms: int = 5,
        nodes_per_farm: int = 2,
        offer: Offer = OFFER,
        capacity: Resources = CAPACITY,
        is_checked: bool = True,
        tenants: int = 2,
        make_key: Callable[[str], Signer] = Key,
        check_signature: Verify = verify,
        validators: int = 1,
        elections: ElectionPreset | None = None,
        attendance: AttendancePreset | None = None,
        bond: int = 200 * TOKEN,
        operator_tokens: int = 5_000 * TOKEN,
    ) -> None:
        self.preset = preset
        self.is_checked = is_checked
        self.check_signature = check_signature
        self.make_key = make_key
        self.validator = make_key("validator")
        self.validators = [self.validator, *(make_key(f"validator-{number}") for number in range(1, validators))]
        self.operators = [make_key(f"operator-{number}") for number in range(len(self.validators))] if elections else []
        self.faucet = make_key("faucet")
        self.farms = [make_key(f"farm-{number}") for number in range(farms)]
        self.nodes = [make_key(f"node-{number}") for number in range(farms * nodes_per_farm)]
        self.tenants = [make_key(f"tenant-{number}") for number in range(tenants)]
        self.owner = {node.public: self.farms[at // nodes_per_farm].public for at, node in enumerate(self.nodes)}
        people = [*self.nodes, *self.farms, *self.tenants, self.faucet, *self.operators, *self.validators]
        self.key = {key.public: key for key in people}
        document = app_state_document(
            preset,
            [GenesisFarm(farm.public, f"farm-{at}", "DE", "Berlin") for at, farm in enumerate(self.farms)],
            [
                GenesisNode(node.public, ZERO, self.owner[node.public], ["192.0.2.1:7000"], capacity, offer)
                for node in self.nodes
            ],
            faucet=self.faucet.public,
            accounts={tenant.public: 1_000 * TOKEN for tenant in self.tenants}
            | {operator.public: operator_tokens for operator in self.operators},
            elections=elections,
            attendance=attendance,
            bonds=[
                GenesisBond(validator.public, operator.public, bond)
                for validator, operator in zip(self.validators, self.operators, strict=False)
                if bond
            ],
        )
        members = [(validator.public, 10) for validator in self.validators]
        self.document = document
        self.state = initial_state(document, CHAIN, GENESIS_MS, members)
        self.engine = Engine(dict(members))
        self.height = 0
        self.now = GENESIS_MS
        self.blocks: list[BlockInput] = []
        self.events: list[Event] = []
        self.down: set[bytes] = set()  # nodes that neither report nor answer
        self.away: set[bytes] = set()  # validators whose votes are missing in the commits that blocks hold
        self.extra: Callable[[], list[bytes]] = list  # transactions added to every block
        self.served: Callable[[bytes, Lease], bool] = lambda node, lease: True
        if is_checked:
            check_state(self.state)

    # -- blocks -------------------------------------------------------------------------------------------------

    def block(self, *txs: bytes, dt: int | None = None, faults: Sequence[Misbehavior] = ()) -> list[TxResult]:
        """Make one block `dt` ms after the last; gives the results of its transactions without the beacon's."""
        self.now += self.preset.tick_ms if dt is None else dt
        self.height += 1
        proposer = self.key[self.engine.proposer(self.height)]
        beacon = beacon_tx(self.height, proposer.sign(beacon_signing_bytes(CHAIN, self.height)))
        block = BlockInput(
            self.height, self.now, proposer.public, [beacon, *txs, *self.extra()], self.last_votes(), list(faults)
        )
        result = execute_block(self.state, block, self.check_signature)
        apply_changes(self.state, result)
        self.engine.apply(self.height, result.validator_updates)
        for height in range(max(1, self.height - 1), self.height + 3):
            assert dict(set_at(self.state, height)) == self.engine.sets[height]
        self.blocks.append(block)
        if self.is_checked:
            check_state(self.state)
        for outcome in result.results:
            self.events.extend(outcome.events)
        return result.results[1 : 1 + len(txs)]

    def last_votes(self) -> list[Vote]:
        """The commit of the block before, as the next one holds it; the first block holds none."""
        members = self.engine.sets[self.height - 1] if self.height > 1 else {}
        return [Vote(key, power, key not in self.away) for key, power in sorted(members.items())]

    def run(self, key: Signer, body: Body, *, dt: int = 100, **fields: Any) -> Code:
        """Put one transaction in a block of its own."""
        return self.block(self.tx(key, body, **fields), dt=dt)[0].code

    def ok(self, key: Signer, body: Body, *, dt: int = 100, **fields: Any) -> bytes:
        """As `run`, and it must succeed; gives its data."""
        result = self.block(self.tx(key, body, **fields), dt=dt)[0]
        assert result.code == Code.OK, result.code.name
        return result.data

    def tx(self, key: Signer, body: Body, *, nonce: int | None = None, **fields: Any) -> bytes:
        if nonce is None:
            nonce = 0 if isinstance(body, FREE_BODIES) else self.nonce(fields.get("sender", key.public))
        fields.setdefault("valid_until", self.height + 100)
        return sign_tx(key, body, nonce, **fields)

    def check(self, data: bytes) -> Code:
        return check_tx(self.state, data, self.height + 1, self.check_signature).code

    # -- validators ---------------------------------------------------------------------------------------------

    def bond_body(self, owner: Signer, validator: Signer, amount: int, vrf_key: bytes = b"") -> Bond:
        """The sender `owner` offers a validator, whose key agrees; it may propose once it is elected."""
        self.key[validator.public] = validator
        message = validator_possession_bytes(CHAIN, validator.public, owner.public, vrf_key)
        return Bond(validator.public, vrf_key, validator.sign(message), amount)

    def upgrade_body(self, height: int, rules: int, settings: list[int], signers: Iterable[Signer]) -> Upgrade:
        """Agreed by `signers`."""
        message = upgrade_bytes(CHAIN, height, rules, settings)
        return Upgrade(height, rules, settings, sorted((key.public, key.sign(message)) for key in signers))

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, key: bytes, kind: type[R]) -> R | None:
        data = self.state.get(key)
        return None if data is None else decode_record(data, kind)

    def need(self, key: bytes, kind: type[R]) -> R:
        return decode_record(self.state[key], kind)

    @property
    def totals(self) -> Totals:
        return self.need(keys.TOTALS, Totals)

    @property
    def epoch(self) -> int:
        return self.totals.epoch

    def account(self, account: bytes) -> Account | None:
        return self.read(keys.account_key(account), Account)

    def balance(self, account: bytes) -> int:
        found = self.account(account)
        return 0 if found is None else found.balance

    def nonce(self, account: bytes) -> int:
        found = self.account(account)
        return 0 if found is None else found.nonce

    def node(self, node: bytes) -> Node:
        return self.need(keys.node_key(node), Node)

    def lease(self, lease: bytes) -> Lease:
        return self.need(keys.lease_key(lease), Lease)

    def leases_of(self, deployment: bytes) -> list[bytes]:
        return self.need(keys.deployment_key(deployment), Deployment).leases

    def deployments_of(self, tenant: bytes) -> list[bytes]:
        found = self.read(keys.tenant_key(tenant), TenantIndex)
        return [] if found is None else found.deployments

    def slot(self, number: int) -> NodeSlot | None:
        return self.read(keys.node_slot_key(number), NodeSlot)

    def epoch_record(self, epoch: int) -> EpochRecord | None:
        record = self.read(keys.epoch_key(epoch, self.preset.report_epochs), EpochRecord)
        return record if record is not None and record.epoch == epoch else None

    def report(self, node: bytes, epoch: int) -> ReportRecord | None:
        record = self.read(keys.report_key(node, epoch, self.preset.report_epochs), ReportRecord)
        return record if record is not None and record.epoch == epoch else None

    # -- what nodes do ------------------------------------------------------------------------------------------

    def witnesses(self, node: bytes, epoch: int) -> list[int]:
        record = self.epoch_record(epoch)
        assert record is not None
        return draw(
            self.preset,
            beacon=record.beacon,
            target=node,
            epoch=epoch,
            slots=record.node_slots,
            lookup=self.slot,
            excluded={self.node(node).farm},
        )

    def report_body(self, node: bytes, epoch: int, *, duties: Iterable[int] | None = None) -> Report:
        """An honest report: its own draw, every duty towards a node that is up, a bit for each lease it has."""
        me = self.node(node).slot
        if duties is None:
            duties = [
                self.node(other.public).slot
                for other in self.nodes
                if other.public not in self.down and me in self.witnesses(other.public, epoch)
            ]
        bits = 0
        for value in self._leases():
            for member in value.members:
                if member.node == node and self.served(node, value):
                    bits |= 1 << member.slot
        targets = sorted(duties)
        return Report(
            epoch, ZERO, bits.to_bytes(32, "little"), self.witnesses(node, epoch), targets, ZERO, len(targets), []
        )

    def _leases(self) -> list[Lease]:
        return [decode_record(value, Lease) for key, value in self.state.items() if key[:1] == b"l"]

    def reports(self, epoch: int) -> list[bytes]:
        return [
            self.tx(node, self.report_body(node.public, epoch)) for node in self.nodes if node.public not in self.down
        ]

    def next_epoch(self, *, reports: bool = True, ticks: int | None = None) -> int:
        """Go on to the next epoch, a block each tick, and let all nodes that are up report the one before.

        Args:
            reports: whether they do.
            ticks: how many ticks of the present epoch still get a block (None: all).
        """
        start = schedule.epoch_start_ms(self.preset, GENESIS_MS, schedule.epoch_at(self.preset, GENESIS_MS, self.now))
        end = start + self.preset.epoch_ms
        made = 0
        while self.now + self.preset.tick_ms < end and (ticks is None or made < ticks):
            self.block()
            made += 1
        self.block(dt=end + 1 - self.now)
        finished = self.epoch - 1
        record = self.epoch_record(finished)
        if reports and record is not None and schedule.is_covered(self.preset, record):
            for result in self.block(*self.reports(finished), dt=100):
                assert result.code == Code.OK, result.code.name
        return self.epoch

    def deploy(
        self,
        tenant: Signer,
        members: list[list[int]],
        *,
        accept: bool = True,
        hours: int = 1,
        price: int = 10 * TOKEN,
        **fields: Any,
    ) -> list[bytes]:
        """Deploy one lease for each list of node numbers; every member accepts."""
        orders = [
            self.order(numbers, f"web-{at}", hours=hours, price=price, **fields) for at, numbers in enumerate(members)
        ]
        deployment = self.ok(tenant, Deploy("shop", [], orders))
        ids = self.leases_of(deployment)
        if accept:
            for new_id, numbers in zip(ids, members, strict=True):
                for number in numbers:
                    self.ok(self.nodes[number], Accept(new_id, ZERO))
        return ids

    def order(
        self, members: list[int], service: str = "web", *, hours: int = 1, price: int = 10 * TOKEN, **fields: Any
    ) -> LeaseOrder:
        values: dict[str, Any] = {
            "service": service,
            "replica": 0,
            "members": [self.nodes[number].public for number in members],
            "resources": SMALL,
            "image_digest": ZERO,
            "spec_hash": ZERO,
            "probe": PROBE,
            "ports": [8080],
            "price_per_hour": price,
            "prepaid_ms": hours * 3_600_000,
            "failover_empty": False,
        }
        return LeaseOrder(**(values | fields))

    def claim(self, lease: bytes, first: int, last: int, *, by: Signer | None = None) -> Code:
        return self.run(by or self.faucet, Claim(lease, first, last))

    def claim_all(self, lease: bytes) -> None:
        """Claim whatever has closed, until nothing is left or the lease is gone."""
        while keys.lease_key(lease) in self.state:
            first = max(self.lease(lease).settled_epoch, schedule.oldest_claimable(self.preset, self.epoch))
            closed = schedule.epoch_at(self.preset, GENESIS_MS, self.now - self.preset.report_window_ms) - 1
            last = min(first + 23, closed)
            if last < first:
                return
            code = self.claim(lease, first, last)
            assert code == Code.OK, code.name

    def challenge_witnesses(self, challenge: bytes) -> list[int]:
        record = self.need(keys.challenge_key(challenge), ChallengeRecord)
        beacon = self.need(keys.beacon_key(record.posted_height + 1), BeaconRecord)
        epoch = self.epoch_record(record.epoch)
        assert epoch is not None
        return challenge_draw(
            self.preset,
            record,
            challenge=challenge,
            beacon=beacon.value,
            slots=epoch.node_slots,
            lookup=self.slot,
            lease=self.lease(record.lease),
            owner_of=lambda node: self.node(node).farm,
        )

    def node_of_slot(self, slot: int) -> Signer:
        row = self.slot(slot)
        assert row is not None
        return self.key[row.node]

    def end_ms(self, lease: bytes) -> int:
        return leases.end_ms(self.lease(lease), self.totals.void_ms)


def apply_changes(state: dict[bytes, bytes], result: BlockResult) -> None:
    for key, value in result.changes.items():
        if value is None:
            del state[key]
        else:
            state[key] = value


def state_digest(state: dict[bytes, bytes]) -> str:
    """A digest of a whole state that does not depend on the order of its keys."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(len(key).to_bytes(4, "big") + key + len(state[key]).to_bytes(4, "big") + state[key])
    return digest.hexdigest()
