"""The JSON of the HTTP API: what comes in, strictly; what goes out. OpenAPI's schemas are made from these structs.

Bytes are lower-case hex, except transactions, light blocks and proofs, which are base64; amounts are whole numbers of
10^-7 token; times are milliseconds since the Unix epoch; accounts are `G...`. Spec: docs/spec/rpc.md.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from freehold.base.limits import MAX_TX_BYTES

MAX_KEYS: Final = 256
MAX_KEY_BYTES: Final = 128
MAX_LIST: Final = 1_000
MAX_HEIGHT: Final = (1 << 63) - 1

Height = Annotated[int, Meta(ge=1, le=MAX_HEIGHT)]
HexKey = Annotated[str, Meta(min_length=2, max_length=2 * MAX_KEY_BYTES, pattern="^(?:[0-9a-f]{2})+$")]
EngineNumber = Annotated[str, Meta(max_length=19, pattern="^[0-9]+$")]
Limit = Annotated[int, Meta(ge=1, le=MAX_LIST)]
Base64Tx = Annotated[str, Meta(min_length=4, max_length=-(-MAX_TX_BYTES // 3) * 4, pattern="^[A-Za-z0-9+/]+={0,2}$")]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what comes in: an unknown field is an error, so that a typo is told."""


class LightBlockQuery(Request, frozen=True):
    """Which light block: the newest when `height` is left out."""

    height: Height | None = None


class ListQuery(Request, frozen=True):
    """How many rows at most."""

    limit: Limit = 100


class EventsQuery(Request, frozen=True):
    """Events after a height, oldest first."""

    after_height: Annotated[int, Meta(ge=0, le=MAX_HEIGHT)] = 0
    limit: Limit = 100


class StateRequest(Request, frozen=True):
    """Keys of the state, and the height of the header that proves them: the newest when null."""

    keys: Annotated[list[HexKey], Meta(max_length=MAX_KEYS)]
    height: Height | None = None


class EngineParams(Request, frozen=True, omit_defaults=True):
    """What the engine's calls take, as it writes numbers."""

    height: EngineNumber | None = None
    page: EngineNumber | None = None
    per_page: EngineNumber | None = None


class EngineRequest(Request, frozen=True):
    """A call of the engine's own JSON-RPC, of those that another engine needs while it restores a snapshot."""

    jsonrpc: Literal["2.0"]
    id: Annotated[int, Meta(ge=0, le=MAX_HEIGHT)]
    method: Literal["commit", "validators", "consensus_params"]
    params: EngineParams


class TxRequest(Request, frozen=True):
    """A transaction, and when to answer.

    `checked`: it waits in the mempool; `committed`: it is in a durable block; `proven`: the block after that is durable
    too, so that the newest header proves what the transaction did.
    """

    tx: Base64Tx
    wait: Literal["checked", "committed", "proven"] = "committed"


class FaucetRequest(Request, frozen=True):
    """Who asks the faucet."""

    account: Annotated[str, Meta(min_length=56, max_length=56)]


class HaltedAnswer(msgspec.Struct):
    """Why the ledger makes no blocks, or what is wrong though it does; and what its operator does."""

    code: str
    message: str
    hint: str


class MempoolAnswer(msgspec.Struct):
    """What waits to be included."""

    txs: int
    bytes: int


class StatusAnswer(msgspec.Struct):
    """Where the ledger stands, on the server's word."""

    chain_id: str
    height: int
    time_ms: int
    app_hash: str
    oldest_height: int
    engine: str
    validators: int
    proposing: bool
    halted: HaltedAnswer | None
    mempool: MempoolAnswer
    notice: HaltedAnswer | None = None


class LightBlockAnswer(msgspec.Struct):
    """A light block: base64 of CometBFT's LightBlock."""

    height: int
    light_block: str


class StateValue(msgspec.Struct):
    """One key with its value (null: the state has none) and base64 of ICS-23's CommitmentProof."""

    key: str
    value: str | None
    proof: str


class StateAnswer(msgspec.Struct):
    """Values in the order asked, all under the app hash of this light block: the state after `height - 1`."""

    height: int
    light_block: str
    values: list[StateValue]


class TxAnswer(msgspec.Struct, omit_defaults=True):
    """What became of a transaction. `height` is 0 while it is in no block; then `hint` says what to do."""

    tx_id: str
    code: int
    code_name: str
    height: int
    data: str
    hint: str = ""


class BlockRow(msgspec.Struct):
    """A block; `failed` of its transactions were refused."""

    height: int
    time_ms: int
    hash: str
    txs: int
    failed: int


class BlocksAnswer(msgspec.Struct):
    """Blocks, newest first."""

    blocks: list[BlockRow]


class EventRow(msgspec.Struct):
    """Something that happened in a block, by the transaction `tx_id`."""

    height: int
    time_ms: int
    tx_id: str
    kind: str
    attributes: dict[str, str]


class EventsAnswer(msgspec.Struct):
    """Events, oldest first, whole blocks at a time; `next_after_height` continues, `oldest_height` is remembered."""

    events: list[EventRow]
    next_after_height: int
    oldest_height: int


class PaymentRow(msgspec.Struct):
    """A payment for an epoch of a lease: to an account, empty for the treasury; `node` when one earned it."""

    height: int
    time_ms: int
    lease: str
    epoch: int
    to: str
    amount: int
    role: str
    node: str


class PaymentsAnswer(msgspec.Struct):
    """Payments, newest first, of the blocks from `oldest_height` on."""

    payments: list[PaymentRow]
    oldest_height: int


class ResourcesRow(msgspec.Struct):
    """Thousandths of a vcpu, MiB of memory, MiB of ssd."""

    vcpu_milli: int
    memory_mib: int
    disk_mib: int


class FarmRow(msgspec.Struct):
    """A farm; its id is its owner's account."""

    id: str
    name: str
    country: str
    city: str
    nodes: int
    balance: int


class NodeRow(msgspec.Struct):
    """A node: what it offers, what is leased, when its last report reached the ledger (0: none that is kept)."""

    id: str
    slot: int
    farm: str
    country: str
    city: str
    capacity: ResourcesRow
    used: ResourcesRow
    leases: int
    stake: int
    retired: bool
    last_report_epoch: int
    last_report_ms: int


class MemberRow(msgspec.Struct):
    """A node in a lease: primary first, then the standbys in order."""

    node: str
    accepted: bool
    lost: bool


class LeaseRow(msgspec.Struct):
    """A lease: who holds it, until when it is paid (`runs_out_ms`: 0 before it started)."""

    id: str
    deployment: str
    service: str
    replica: int
    tenant: str
    status: str
    members: list[MemberRow]
    holder: str
    term: int
    started_ms: int
    runs_out_ms: int
    price_per_hour: int
    paid: int
    refunded: int
    escrow: int


class GridAnswer(msgspec.Struct):
    """The grid after the block of `height`, on the server's word.

    `complete` is false when there is more of it than one page may hold.
    """

    height: int
    time_ms: int
    genesis_ms: int
    epoch: int
    epoch_ms: int
    complete: bool
    farms: list[FarmRow]
    nodes: list[NodeRow]
    leases: list[LeaseRow]


class EngineAnswer(msgspec.Struct, frozen=True):
    """The engine's own answer to a call, passed on as it is: it is verified by whoever asked."""

    jsonrpc: str
    id: int
    result: Any = None
    error: Any = None
