"""What the state holds: one record per key, each with its version first (docs/spec/state.md).

Times are milliseconds of block time since the Unix epoch, durations milliseconds, amounts 10^-7 token.

`gc=False` on what transfers make by the thousand: records hold no cycles, and the collector's full passes over a large
state cost more than executing them.
"""

from freehold.base.codec import Record
from freehold.ledger.transactions import Offer, Place, Probe, Resources

ACCOUNT_VERSION = NODE_VERSION = LEASE_VERSION = 1


class Params(Record):
    """Fixed at genesis: chain id, times and the preset's values by name, in the order of `Preset`'s fields."""

    version: int
    chain_id: str
    genesis_ms: int
    preset: str
    values: list[int]
    validators: list[tuple[bytes, int]]  # public key, power
    faucet: bytes  # empty when there is none
    rules: list[tuple[int, int]]  # (first height, version of the rules), ascending; the first is (1, ..)


class VrfKeys(Record):
    """The VRF keys of genesis' validators, and the sign that votes carry VRF proofs; absent where a proposer signs."""

    version: int
    keys: list[tuple[bytes, bytes]]  # consensus key, VRF key; ascending


class Carried(Record):
    """The chain whose state this one began with; absent where genesis made the state."""

    version: int
    chain_id: str
    height: int  # of that state
    header_hash: bytes  # of the header one above, which holds its root


class Totals(Record):
    """Counters of the whole ledger; with the records' own sums they prove that tokens are conserved."""

    version: int
    supply: int
    treasury: int
    fees: int
    node_slots: int  # M: slots handed out so far
    epoch: int  # of the newest block; -1 before the first
    void_ms: int  # total length of void epochs so far
    height: int
    time_ms: int


class Account(Record, gc=False):
    """`reserved` of the balance is the account's own record deposit and cannot be spent."""

    version: int
    balance: int
    nonce: int
    reserved: int
    threshold: int  # 0: the id's own key alone
    signers: list[tuple[bytes, int]]


class Farm(Record):
    """A farm; its id is its owner's account id. `nodes` counts records that stand."""

    version: int
    name: str
    place: Place
    nodes: int
    deposit: int


class Node(Record):
    """A node: keys, addresses, what it offers and what of it is leased."""

    version: int
    farm: bytes
    slot: int
    box_key: bytes
    addresses: list[str]
    place: Place
    capacity: Resources
    used: Resources
    lease_slots: bytes  # 32 bytes: bit i says that lease slot i is taken
    offer: Offer
    stake: int
    deposit: int
    registered_epoch: int
    retired_epoch: int  # 0: not retired; else the last epoch in which it is drawn and reports (at least 1)
    last_report_epoch: int  # -1: none yet
    history_count: int  # reports so far; leaves of the Merkle mountain range
    history_root: bytes


class NodeHistory(Record):
    """Peaks of a node's Merkle mountain range over all its reports, highest first."""

    version: int
    count: int
    peaks: list[bytes]


class NodeSlot(Record):
    """One row of the append-only table from which witnesses are drawn.

    `stakes` are (epoch from which it counts, stake), oldest first, at most four: a draw asks for epochs as far back as
    the one before the present, and a change counts from the second epoch after it. Active in epochs
    first_epoch..last_epoch; last_epoch -1 means no end. Rows outlive their node: old draws stay checkable.
    """

    version: int
    node: bytes
    owner: bytes
    stakes: list[tuple[int, int]]
    first_epoch: int
    last_epoch: int
    genesis: bool  # counts as fully aged


class EpochRecord(Record):
    """Written by the first block in an epoch; `ticks_covered` grows while it lasts. Lives at (epoch mod R)."""

    version: int
    epoch: int
    first_height: int
    first_ms: int
    node_slots: int  # M for the draws of this epoch
    beacon: bytes
    ticks_covered: int
    last_tick: int
    void_ms_before: int  # total of void time when it began


class BeaconRecord(Record):
    """The beacon of one height; the last 64 stay, at (height mod 64)."""

    version: int
    height: int
    value: bytes


class ReportRecord(Record):
    """A node's report for an epoch, stored at (node, epoch mod R)."""

    version: int
    epoch: int
    received_ms: int
    evidence_root: bytes
    lease_bits: bytes
    witnesses: list[int]
    threshold: int  # t' for the number drawn
    duty_targets: list[int]
    duty_root: bytes
    duty_count: int
    duty_failed: list[tuple[int, int]]  # (slot, lease slot) of services that did not answer this witness


class Deployment(Record):
    """What a tenant asked for; `leases` are those that still stand."""

    version: int
    tenant: bytes
    name: str
    access_keys: list[bytes]
    leases: list[bytes]
    created_ms: int
    deposit: int


class Member(Record):
    """A node in a lease: its lease slot there; accepted_ms 0 until it accepted; lost once its term was ended."""

    node: bytes
    slot: int
    accepted_ms: int
    erofs_digest: bytes
    lost: bool


class Term(Record):
    """Who holds the lease: the member's index, decided at, and in force from the first block at or after from_ms."""

    member: int
    decided_ms: int
    from_ms: int


class Settlement(Record):
    """What a claim found for one epoch of a lease: `seen` of `drawn` witnesses saw the holder serve it.

    `member` held the term at the epoch's end; `paid` went out, `refunded` back to the tenant.
    """

    epoch: int
    member: int
    term: int
    seen: int
    drawn: int
    paid: int
    refunded: int


class Lease(Record):
    """A contract between a tenant and a primary with ordered standbys. Term n is terms[n - 1].

    It runs from `started_ms` (the primary's acceptance; 0 before) for `prepaid_ms` plus the void time since, or to
    `closed_ms` (0 while open). `settled_epoch` is the next epoch to claim. `escrow` pays the rest. Arithmetic over it:
    `ledger.leases`.
    """

    version: int
    tenant: bytes
    deployment: bytes
    service: str
    replica: int
    members: list[Member]
    terms: list[Term]
    resources: Resources
    image_digest: bytes
    spec_hash: bytes
    probe: Probe
    ports: list[int]
    price_per_hour: int
    reserve_per_hour: int
    prepaid_ms: int
    failover_empty: bool
    created_ms: int
    accept_by_ms: int
    started_ms: int
    void_ms_at_start: int
    closed_ms: int
    close_reason: str
    settled_epoch: int
    escrow: int
    bounty: int
    deposit: int
    bounty_epoch: int  # last epoch in which a bounty was paid; -1: never
    challenge: bytes  # id of the open challenge; empty: none
    paid: int  # so far, to members, witnesses and treasury
    refunded: int  # so far, to the tenant
    settlements: list[Settlement]  # of the last 24 epochs claimed: one state proof shows a day of service
    settled_ms: int  # time of service, void epochs apart, that was paid or refunded so far: 0..prepaid_ms
    local_volume: bool  # a volume dies with its node: no failover, unless it may start empty


class ChallengeRecord(Record):
    """An open challenge. `witnesses` are slots, drawn from the next block's beacon when the first verdict arrives."""

    version: int
    lease: bytes
    term: int
    challenger: bytes
    posted_height: int
    posted_ms: int
    bond: int
    bounty: int
    witnesses: list[int]
    threshold: int
    verdicts: list[tuple[int, bool]]  # (slot, down), in order of arrival
    decided_ms: int  # 0 until t witnesses said down
    epoch: int  # in which it was posted: its weights and its number of slots count in the draw


class NodeLease(Record):
    """The lease in one of a node's lease slots."""

    version: int
    lease: bytes


class TenantIndex(Record):
    """The ids of a tenant's standing deployments, oldest first; at most 256."""

    version: int
    deployments: list[bytes]


class ValidatorSets(Record):
    """The validators by the height from which they vote, ascending; the first entry covers the height before.

    Each is sorted by key and holds (public key, power). Only in the state since the first change; until then the
    validators of genesis stand in `Params`.
    """

    version: int
    sets: list[tuple[int, list[tuple[bytes, int]]]]


class Elections(Record):
    """The rules of elections and what validators earn. `values` are an `ElectionPreset`'s, in the order of its fields.

    `fee_index` (16 bytes, fixed point with 32 bits of fraction) is what one unit of power has earned since elections
    began; `pool` holds what was not yet claimed of it.
    """

    version: int
    values: list[int]
    era: int  # of the newest election
    pool: int
    fee_index: bytes
    power: int  # of the newest set's members that have a bond
    is_elected: bool  # the newest set came out of an election; else of genesis, or of what was left of a set


class Candidates(Record):
    """The table of candidates: (stake, validator, owner), highest stake first, then by key. Bounded."""

    version: int
    entries: list[tuple[int, bytes, bytes]]


class Unbonding(Record):
    """A part of a bond on its way back: due when both time and height are reached."""

    amount: int
    due_ms: int
    due_height: int


class ValidatorBond(Record):
    """A candidate's bond. `power` is that of the newest set; `fee_mark` is the index up to which `earned` counts.

    `is_listed` says that the table of candidates holds it; `is_removed`, that it misbehaved and never returns.
    """

    version: int
    owner: bytes
    vrf_key: bytes  # empty, or 32 bytes
    stake: int
    deposit: int
    since_height: int
    power: int
    is_listed: bool
    is_removed: bool
    unbonding: list[Unbonding]
    fee_mark: bytes
    earned: int
    slashed: list[tuple[int, int]]  # (height, time in ms) of what it was cut for, oldest first


class ValidatorAddress(Record):
    """The key of a bonded validator."""

    version: int
    validator: bytes


class Attendance(Record):
    """Who signed in this era. `values` are an `AttendancePreset`'s, in the order of its fields."""

    version: int
    values: list[int]
    since_height: int  # commits of the blocks above it were counted
    missed: list[tuple[bytes, int]]  # (validator, blocks without its vote) of the newest set, ascending by key
    absent: list[tuple[bytes, int]]  # (validator, era in which it was put out), oldest first


class UpgradeRecord(Record):
    """The newest agreed change of the rules; `settings` are read by the new rules when they begin."""

    version: int
    height: int
    rules: int
    settings: list[int]
