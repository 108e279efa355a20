"""Transactions: what people and nodes ask of the ledger (docs/spec/transactions.md).

A transaction is the canonical encoding of a `Tx`. What is signed is `signing_bytes(TX_SIGN, chain_id, unsigned)` where
`unsigned` encodes the same record with an empty list of signatures. The id is the tagged hash of the whole encoding.
Tags and field order are consensus: they are only ever appended to.
"""

from enum import IntEnum
from functools import lru_cache

from freehold.base.codec import Record, decode, encode
from freehold.base.errors import CodecError
from freehold.base.limits import MAX_TX_BYTES
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import Purpose, signing_bytes, tagged_hash

TX_VERSION = 1
MAX_VALID_HEIGHTS = 10_000  # how far ahead `valid_until` may lie
VALID_HEIGHTS = 600  # how far ahead we put it ourselves
_LENGTH_BYTES = 4  # of a framed part
_NO_SIGNATURES = encode([])


class Resources(Record):
    """Capacity, offered or asked: thousandths of a vcpu, MiB of memory, MiB of ssd."""

    vcpu_milli: int
    memory_mib: int
    disk_mib: int


class Offer(Record):
    """A node's asking price in 10^-7 token: per vcpu and hour, per GiB of memory and hour, per GiB of ssd and hour."""

    vcpu_hour: int
    memory_gib_hour: int
    disk_gib_hour: int


class Place(Record):
    """Where a farm is, coarsely: ISO 3166 alpha-2 country and a city name (may be empty)."""

    country: str
    city: str


class ProbeKind(IntEnum):
    """What a witness speaks to a container's probe port."""

    NONE = 0
    TCP = 1
    HTTP = 2


class Probe(Record):
    """In clear on the lease: kind, port inside the container, path (at most 128 bytes, HTTP only)."""

    kind: int
    port: int
    path: str


class LeaseOrder(Record):
    """One lease as a tenant asks for it: one service replica on a primary with ordered standbys."""

    service: str
    replica: int
    members: list[bytes]  # node ids: primary, then standbys in order
    resources: Resources
    image_digest: bytes  # SHA-256 of the OCI manifest
    spec_hash: bytes  # tagged_hash(SPEC, salt, spec)
    probe: Probe
    ports: list[int]  # published container ports, reachable by tunnel
    price_per_hour: int  # at least every member's asking price for the resources
    prepaid_ms: int
    failover_empty: bool  # a local volume may start empty on the standby
    local_volume: bool = False  # it keeps data on its node: no failover, unless it may start empty


class Transfer(Record, tag=1, gc=False):
    """Move `amount` to `to`; an unknown `to` becomes an account and keeps a record deposit aside."""

    to: bytes
    amount: int


class SetSigners(Record, tag=2):
    """Replace the sender's signers: sorted (key, weight) pairs, and the weight that a transaction needs."""

    signers: list[tuple[bytes, int]]
    threshold: int


class RegisterFarm(Record, tag=3):
    """Make the sender a farm owner; the farm's id is the sender's account id."""

    name: str
    place: Place


class RegisterNode(Record, tag=4):
    """Add a node to the sender's farm.

    `possession` is the node key's signature over `possession_bytes`. `stake`, `purse` and a deposit leave the farm's
    balance; the purse is the node's own account, for bonds.
    """

    node: bytes
    box_key: bytes
    possession: bytes
    addresses: list[str]  # "ip:port", at most 4, of the farmer's choice: public
    capacity: Resources
    offer: Offer
    stake: int
    purse: int


class UpdateNode(Record, tag=5):
    """Change a node's addresses, capacity (never below what is leased) and offer (running leases keep their price)."""

    node: bytes
    addresses: list[str]
    capacity: Resources
    offer: Offer


class AddStake(Record, tag=6):
    """Move `amount` from the farm to its node's stake."""

    node: bytes
    amount: int


class RetireNode(Record, tag=7):
    """End a node that holds no lease: it is drawn no more, and its stake returns once its last window has closed."""

    node: bytes


class ReleaseNode(Record, tag=8):
    """Remove a retired node's record and give stake and deposit back, after its last report window."""

    node: bytes


class Deploy(Record, tag=10):
    """Create a deployment: all of its leases or none. Escrow, bounty and deposits leave the tenant's balance."""

    name: str
    access_keys: list[bytes]  # endpoint ids by which the tenant's clients are known to members
    leases: list[LeaseOrder]


class Accept(Record, tag=11):
    """A member (the sender, a node) has opened its spec, holds the image and the capacity. Free, no nonce."""

    lease: bytes
    erofs_digest: bytes


class Refund(Record, tag=12):
    """Anyone: end a lease whose primary let the accept deadline pass; everything goes back to the tenant."""

    lease: bytes


class TopUp(Record, tag=13):
    """Prepay `add_ms` more, at the lease's frozen price."""

    lease: bytes
    add_ms: int


class Close(Record, tag=14):
    """The tenant ends a lease now; what is not yet reported stays locked until its windows have closed."""

    lease: bytes
    reason: str


class Claim(Record, tag=15):
    """Anyone: settle a lease's epochs first..last (at most 24, in order), all of whose report windows have closed.

    The envelope's fee is exactly the least fee. It is taken out of what is claimed (the treasury's share), never from
    the sender, so claiming in many small pieces takes nothing from anyone.
    """

    lease: bytes
    first_epoch: int
    last_epoch: int


class Report(Record, tag=20):
    """A node's one report for an epoch. Free, no nonce: (node, epoch) is the replay key.

    `lease_bits` is 32 bytes: bit i (byte i // 8, bit i % 8, least significant first) says that the lease in slot i was
    served. `witnesses` are the slots drawn for this node, in the order of the draw. `duty_targets` are the sorted
    slots of the nodes whose duty passed; `duty_failed` are sorted (slot, lease slot) pairs of those nodes' leases whose
    service did not answer this witness: it counts for the node and not for them.
    """

    epoch: int
    evidence_root: bytes
    lease_bits: bytes
    witnesses: list[int]
    duty_targets: list[int]
    duty_root: bytes
    duty_count: int
    duty_failed: list[tuple[int, int]]


class Challenge(Record, tag=21):
    """An accepted standby (a node) or the tenant says that the holder of `term` is down; a bond is locked."""

    lease: bytes
    term: int


class Verdict(Record, tag=22):
    """A drawn witness (the sender, a node) says whether it reached the challenged node. Free, no nonce."""

    challenge: bytes
    down: bool


class Resolve(Record, tag=23):
    """Anyone: settle a challenge whose verdict window has closed: fees, bond and bounty move."""

    challenge: bytes


class Bond(Record, tag=30):
    """Offer a validator for election: the sender becomes its owner, `amount` and a deposit leave its balance.

    `possession` is the consensus key's signature over `validator_possession_bytes`. `vrf_key` is empty or 32 bytes.
    """

    validator: bytes
    vrf_key: bytes
    possession: bytes
    amount: int


class AddBond(Record, tag=31):
    """Move `amount` from the owner to its validator's bond."""

    validator: bytes
    amount: int


class WithdrawBond(Record, tag=32):
    """Take `amount` out of a bond; it stays liable until the unbonding time has passed. All of it retires it."""

    validator: bytes
    amount: int


class ReleaseBond(Record, tag=33):
    """Pay out what has been unbonded long enough; an ended bond goes away with its deposit and earnings."""

    validator: bytes


class ClaimFees(Record, tag=34):
    """Pay a validator's share of fees to its owner; anyone may ask."""

    validator: bytes


class Rejoin(Record, tag=35):
    """Let a validator stand again that lost its place because it did not sign."""

    validator: bytes


class Upgrade(Record, tag=40):
    """From `height` on the rules of version `rules` hold, with `settings` that they read.

    `approvals` are (validator, signature over `upgrade_bytes`), ascending by key, of more than 2/3 of the power. Anyone
    may send it. A ledger agrees on versions that a program may not know: such a program halts at that height.
    """

    height: int
    rules: int
    settings: list[int]
    approvals: list[tuple[bytes, bytes]]


Body = (
    Transfer
    | SetSigners
    | RegisterFarm
    | RegisterNode
    | UpdateNode
    | AddStake
    | RetireNode
    | ReleaseNode
    | Deploy
    | Accept
    | Refund
    | TopUp
    | Close
    | Claim
    | Report
    | Challenge
    | Verdict
    | Resolve
    | Bond
    | AddBond
    | WithdrawBond
    | ReleaseBond
    | ClaimFees
    | Rejoin
    | Upgrade
)

# Signed by a node's key, free, without a nonce; in the reports lane.
FREE_BODIES = (Accept, Report, Verdict)

# Who validates, and by which rules; in the governance lane. What only pays its sender out is not among them.
GOVERNANCE_BODIES = (Bond, AddBond, WithdrawBond, Upgrade)


class Tx(Record, gc=False):
    """A signed transaction. `sender` is an account id or, for free bodies and challenges, a node id.

    `nonce` is the sender's next (0 for free bodies); `valid_until` is the last height at which it may be included.
    `signatures` are (public key, signature) pairs sorted by key.
    """

    version: int
    chain_id: str
    sender: bytes
    nonce: int
    fee: int
    valid_until: int
    body: Body
    signatures: list[tuple[bytes, bytes]]


class BeaconTx(Record, tag="beacon"):
    """The proposer's first transaction of each block: its signature over (chain id, height), tag BEACON_SIGN."""

    height: int
    signature: bytes


def decode_tx(data: bytes) -> Tx:
    """Decode a transaction from outside.

    Raises:
        CodecError: too long, malformed, or not canonical.
    """
    tx = decode(data, Tx, max_bytes=MAX_TX_BYTES)
    if tx.version != TX_VERSION:
        raise CodecError(f"transaction version {tx.version} is not known", code="unknown_version")
    return tx


def tx_signing_bytes(tx: Tx) -> bytes:
    """What the signers sign: the transaction without its signatures, tagged, with the chain id."""
    unsigned = Tx(tx.version, tx.chain_id, tx.sender, tx.nonce, tx.fee, tx.valid_until, tx.body, [])
    return signing_bytes(Purpose.TX_SIGN, tx.chain_id, encode(unsigned))


@lru_cache(maxsize=8)
def _signing_prefix(chain_id: str) -> bytes:
    """What all signed bytes of one chain's transactions begin with; the length of the transaction follows."""
    return signing_bytes(Purpose.TX_SIGN, chain_id, b"")[:-_LENGTH_BYTES]


def received_signing_bytes(tx: Tx, data: bytes) -> bytes:
    """As `tx_signing_bytes`, of a transaction that was decoded from `data`: cut out rather than encoded again."""
    unsigned = data[: len(data) - len(encode(tx.signatures))] + _NO_SIGNATURES
    return _signing_prefix(tx.chain_id) + len(unsigned).to_bytes(_LENGTH_BYTES, "big") + unsigned


def sign_tx(chain_id: str, key: PrivateKey, nonce: int, fee: int, valid_until: int, body: Body) -> bytes:
    """Make a transaction of an account or node that signs with its own key alone.

    Args:
        chain_id: of the ledger.
        key: the sender's own key.
        nonce: the sender's next; 0 for free bodies.
        fee: 0 for free bodies.
        valid_until: the last height at which it may be included; `VALID_HEIGHTS` above the newest is a good choice.
        body: what is asked.
    """
    unsigned = Tx(TX_VERSION, chain_id, key.public, nonce, fee, valid_until, body, [])
    signature = key.sign(tx_signing_bytes(unsigned))
    return encode(Tx(TX_VERSION, chain_id, key.public, nonce, fee, valid_until, body, [(key.public, signature)]))


def tx_id(data: bytes) -> bytes:
    """The id by which a transaction is known: the tagged hash of its encoding."""
    return tagged_hash(Purpose.TX_ID, data)


def lease_id(deployment: bytes, service: str, replica: int) -> bytes:
    """The id of one lease of a deployment."""
    return tagged_hash(Purpose.LEASE_ID, deployment, service.encode(), replica.to_bytes(4, "big"))


def possession_bytes(chain_id: str, node: bytes, farm: bytes, box_key: bytes) -> bytes:
    """What a node's key signs to join a farm, so that nobody registers a key that is not theirs."""
    return signing_bytes(Purpose.NODE_POSSESSION, chain_id, node, farm, box_key)


def validator_possession_bytes(chain_id: str, validator: bytes, owner: bytes, vrf_key: bytes) -> bytes:
    """What a consensus key signs to be bonded by an owner, so that nobody offers a key that is not theirs."""
    return signing_bytes(Purpose.VALIDATOR_POSSESSION, chain_id, validator, owner, vrf_key)


def upgrade_bytes(chain_id: str, height: int, rules: int, settings: list[int]) -> bytes:
    """What a validator signs to agree to other rules from a height on."""
    return signing_bytes(
        Purpose.UPGRADE_SIGN, chain_id, height.to_bytes(8, "big"), rules.to_bytes(4, "big"), encode(settings)
    )


def beacon_signing_bytes(chain_id: str, height: int) -> bytes:
    """What the proposer of the block at `height` signs for its beacon."""
    return signing_bytes(Purpose.BEACON_SIGN, chain_id, height.to_bytes(8, "big"))


def deployment_id(chain_id: str, tenant: bytes, nonce: int) -> bytes:
    """The id of the deployment that the tenant's transaction with this nonce creates."""
    return tagged_hash(Purpose.DEPLOYMENT_ID, chain_id.encode(), tenant, nonce.to_bytes(8, "big"))


def challenge_id(lease: bytes, term: int, challenger: bytes, height: int) -> bytes:
    """The id of a challenge posted at a height."""
    return tagged_hash(Purpose.CHALLENGE_ID, lease, term.to_bytes(4, "big"), challenger, height.to_bytes(8, "big"))
