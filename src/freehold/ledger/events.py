"""What happened in a block, for the status page and logs: not part of consensus, so it may grow freely."""

from freehold.base.codec import Record


class Transferred(Record, tag="transfer", gc=False):
    """Tokens moved between accounts."""

    sender: bytes
    to: bytes
    amount: int


class FarmRegistered(Record, tag="farm"):
    """A farm was registered."""

    farm: bytes
    name: str


class NodeChanged(Record, tag="node"):
    """A node was `registered`, `updated`, `staked`, `retired` or `released`."""

    node: bytes
    farm: bytes
    change: str


class LeaseChanged(Record, tag="lease"):
    """A lease was `created`, `accepted`, `started`, `prepaid`, `closed`, `refunded` or `ended`."""

    lease: bytes
    deployment: bytes
    tenant: bytes
    change: str
    node: bytes = b""
    reason: str = ""


class Payment(Record, tag="payment"):
    """A lease's epoch paid someone: role `holder`, `standby`, `witness`, `treasury`, or `refund` (to the tenant)."""

    lease: bytes
    epoch: int
    to: bytes  # an account; empty for the treasury
    amount: int
    role: str
    node: bytes = b""


class Reported(Record, tag="report"):
    """A node's report was stored."""

    node: bytes
    epoch: int


class EpochBegan(Record, tag="epoch"):
    """The first block of an epoch; `void_ms` is the total so far."""

    epoch: int
    height: int
    void_ms: int


class ChallengeOpened(Record, tag="challenge"):
    """Someone said that the holder of a term is down."""

    challenge: bytes
    lease: bytes
    term: int
    challenger: bytes


class VerdictGiven(Record, tag="verdict"):
    """A drawn witness said what it saw."""

    challenge: bytes
    lease: bytes
    node: bytes
    down: bool


class TermDecided(Record, tag="term"):
    """A lease moves to another member, in force from `from_ms`."""

    lease: bytes
    term: int
    node: bytes
    from_ms: int


class ChallengeResolved(Record, tag="resolved"):
    """A challenge was settled; `down` says whether its holder was shown down."""

    challenge: bytes
    lease: bytes
    down: bool
    bounty: int


class BondChanged(Record, tag="bond"):
    """A bond was `bonded`, `added`, `withdrawn`, `released`, `ended`, `evicted`, `slashed`, `absent` or `returned`."""

    validator: bytes
    owner: bytes
    change: str
    amount: int


class FeesClaimed(Record, tag="fees"):
    """A validator's share of fees went to its owner."""

    validator: bytes
    owner: bytes
    amount: int


class ValidatorsChanged(Record, tag="validators"):
    """Another set votes from `height` on: (public key, power) of what changes, power 0 leaves."""

    height: int
    era: int
    changes: list[tuple[bytes, int]]


class UpgradeAgreed(Record, tag="upgrade"):
    """Other rules hold from `height` on."""

    height: int
    rules: int


Event = (
    Transferred
    | FarmRegistered
    | NodeChanged
    | LeaseChanged
    | Payment
    | Reported
    | EpochBegan
    | ChallengeOpened
    | VerdictGiven
    | TermDecided
    | ChallengeResolved
    | BondChanged
    | FeesClaimed
    | ValidatorsChanged
    | UpgradeAgreed
)
