"""A desk without an engine: a signed chain in memory over the ledger's own genesis state, moved on by hand."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import httpx2
from light_chain import Tree

from freehold.base.amounts import TOKEN
from freehold.base.codec import Record, encode
from freehold.base.errors import RefusedError
from freehold.base.presets import MINIMAL
from freehold.consensus.errors import EngineStoppedError, HeightUnavailableError
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import sha256
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.genesis import GenesisFarm, GenesisNode, app_state_document, initial_state
from freehold.ledger.records import Account, Deployment, Lease, Member, Node, NodeLease, ReportRecord, Term, Totals
from freehold.ledger.state import decode_record
from freehold.ledger.transactions import (
    TX_VERSION,
    Body,
    Offer,
    Probe,
    Resources,
    Transfer,
    Tx,
    decode_tx,
    tx_id,
    tx_signing_bytes,
)
from freehold.light.genesis import TrustedGenesis, genesis_document, parse_genesis
from freehold.light.headers import address_of, data_hash, header_hash, precommit_sign_bytes
from freehold.light.types import (
    BlockID,
    BlockIDFlag,
    Commit,
    CommitSig,
    Header,
    LightBlock,
    PartSetHeader,
    SignedHeader,
    Timestamp,
)
from freehold.rpc.app import make_app
from freehold.rpc.desk import BlockRecord, BlockTx, Halted, Standing, TxOutcome
from freehold.rpc.eventtext import event_text
from freehold.rpc.faucet import Faucet
from freehold.rpc.rates import RateLimiter
from freehold.rpc.service import Service

T = TypeVar("T")

CHAIN_ID = "rpc-test"
GENESIS_MS = 1_767_225_600_000
VALIDATOR = PrivateKey.from_seed(b"v" * 32)
FAUCET = PrivateKey.from_seed(b"f" * 32)
OWNERS = [PrivateKey.from_seed(bytes([10 + n]) * 32) for n in range(2)]
NODES = [PrivateKey.from_seed(bytes([20 + n]) * 32) for n in range(3)]
PLACES = [("ghent", "BE", "Ghent"), ("porto", "PT", "Porto")]
TENANT = PrivateKey.from_seed(b"t" * 32)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def make_genesis(chain_id: str = CHAIN_ID, validator: PrivateKey = VALIDATOR) -> bytes:
    farms = [
        GenesisFarm(owner.public, name, country, city)
        for owner, (name, country, city) in zip(OWNERS, PLACES, strict=True)
    ]
    nodes = [
        GenesisNode(
            node.public,
            bytes([n + 1]) * 32,
            OWNERS[n % 2].public,
            [f"10.0.0.{n + 1}:4700"],
            Resources(4_000, 8_192, 65_536),
            Offer(100_000, 50_000, 1_000),
        )
        for n, node in enumerate(NODES)
    ]
    return genesis_document(
        chain_id=chain_id,
        genesis_time=Timestamp.from_ms(GENESIS_MS),
        validators=[(validator.public, 10, "v0")],
        app_state=app_state_document(
            MINIMAL, farms, nodes, faucet=FAUCET.public, accounts={TENANT.public: 5_000 * TOKEN}
        ),
    )


class FakeDesk:
    """Each `make_block` executes waiting transfers in the plainest way; heights below `pruned_below` are gone."""

    def __init__(self, genesis: bytes | None = None, validator: PrivateKey = VALIDATOR) -> None:
        self.genesis = genesis or make_genesis()
        self.trusted: TrustedGenesis = parse_genesis(self.genesis)
        self.validator = validator
        state = initial_state(self.trusted.app_state, self.trusted.chain_id, GENESIS_MS, [(self.validator.public, 10)])
        self.states: list[Tree] = [Tree(state)]  # by the height after which they stand
        self.blocks: list[LightBlock] = []
        self.waiting: dict[bytes, bytes] = {}
        self.done: dict[bytes, TxOutcome] = {}
        self.receivers: list[Callable[[BlockRecord], None]] = []
        self.changed = asyncio.Event()
        self.pruned_below = 1
        self.halted: Halted | None = None
        self.full = False
        self.makes_blocks = True  # when someone waits for one
        self.submitted = asyncio.Event()
        self.events: list[Record] = []
        self.salt = b""

    @property
    def height(self) -> int:
        return len(self.blocks)

    def make_block(self, changes: dict[bytes, bytes] | None = None) -> int:
        height = self.height + 1
        state = {**self.states[-1].values, **(changes or {})}
        header = self.header(height)
        txs = []
        for id_, data in self.waiting.items():
            self._execute(state, decode_tx(data))
            self.done[id_] = TxOutcome(Code.OK, height, b"")
            txs.append(BlockTx(id_, Code.OK, b"", []))
        self.waiting.clear()
        events = [event_text(str(event.__struct_config__.tag), encode(event)) for event in self.events]
        self.events = []
        totals = decode_record(state[keys.TOTALS], Totals)
        state[keys.TOTALS] = encode(
            Totals(
                totals.version,
                totals.supply,
                totals.treasury,
                totals.fees,
                totals.node_slots,
                (header.time.ms - GENESIS_MS) // MINIMAL.epoch_ms,
                totals.void_ms,
                height,
                header.time.ms,
            )
        )
        self.blocks.append(self.sign(header))
        self.states.append(Tree(state))
        record = BlockRecord(
            height, header.time.ms, header_hash(header), [BlockTx(sha256(b"beacon%d" % height), 0, b"", events), *txs]
        )
        for receive in self.receivers:
            receive(record)
        self.changed.set()
        self.changed = asyncio.Event()
        return height

    def _execute(self, state: dict[bytes, bytes], tx: Tx) -> None:
        body = tx.body
        if not isinstance(body, Transfer):
            return
        for account, amount, nonce in ((tx.sender, -body.amount - tx.fee, 1), (body.to, body.amount, 0)):
            old = state.get(keys.account_key(account))
            record = decode_record(old, Account) if old else Account(1, 0, 0, 0, 0, [])
            state[keys.account_key(account)] = encode(
                Account(1, record.balance + amount, record.nonce + nonce, record.reserved, 0, [])
            )

    def header(self, height: int) -> Header:
        return Header(
            chain_id=self.trusted.chain_id,
            height=height,
            time=Timestamp.from_ms(GENESIS_MS + height * 1000),
            last_block_id=BlockID(sha256(b"last"), PartSetHeader(1, sha256(b"parts"))),
            last_commit_hash=sha256(b"commit" + self.salt),
            data_hash=data_hash([]),
            validators_hash=self.trusted.validators_hash,
            next_validators_hash=self.trusted.validators_hash,
            consensus_hash=self.trusted.params.hash,
            app_hash=self.states[height - 1].root,
            last_results_hash=data_hash([]),
            evidence_hash=data_hash([]),
            proposer_address=address_of(self.validator.public),
        )

    def sign(self, header: Header) -> LightBlock:
        block_id = BlockID(header_hash(header), PartSetHeader(1, sha256(b"block")))
        message = precommit_sign_bytes(header.chain_id, header.height, 0, block_id, header.time)
        address = address_of(self.validator.public)
        entry = CommitSig(BlockIDFlag.COMMIT, address, header.time, self.validator.sign(message))
        commit = Commit(header.height, 0, block_id, (entry,))
        return LightBlock(SignedHeader(header, commit), self.trusted.validators)

    def standing(self) -> Standing:
        return Standing(
            height=self.height,
            time_ms=GENESIS_MS + self.height * 1000,
            app_hash=self.states[-1].root,
            oldest_height=self.pruned_below,
            validators=len(self.trusted.validators.validators),
            engine="fake",
            proposing=self.halted is None,
            halted=self.halted,
            mempool_txs=len(self.waiting),
            mempool_bytes=sum(map(len, self.waiting.values())),
        )

    def _check(self, height: int, newest: int) -> None:
        if height > newest:
            raise HeightUnavailableError("not yet", code="height_unknown", hint="later")
        if height < self.pruned_below - 1:
            raise HeightUnavailableError("gone", code="height_pruned", hint="newer")

    async def light_block(self, height: int) -> bytes:
        self._check(height, self.height)
        if height < self.pruned_below:
            raise HeightUnavailableError("gone", code="height_pruned", hint="newer")
        return self.blocks[height - 1].encode()

    def prove(self, key: bytes, height: int) -> tuple[bytes | None, bytes]:
        self._check(height - 1, self.height)
        tree = self.states[height - 1]
        return tree.values.get(key), tree.prove(key).encode()

    def get(self, key: bytes, height: int) -> bytes | None:
        self._check(height, self.height)
        return self.states[height].values.get(key)

    async def submit(self, tx: bytes) -> TxOutcome:
        if self.halted is not None:
            raise EngineStoppedError(self.halted.message, code=self.halted.code, hint=self.halted.hint)
        if self.full:
            raise RefusedError("full", code="mempool_full", hint="later")
        id_ = tx_id(tx)
        if id_ in self.done:
            return self.done[id_]
        try:
            decode_tx(tx)
        except Exception:
            return TxOutcome(Code.UNDECODABLE)
        self.waiting[id_] = tx
        self.submitted.set()
        return TxOutcome(Code.OK)

    async def wait_committed(self, tx_id: bytes) -> TxOutcome:
        while tx_id not in self.done:
            await self._next_block()
        return self.done[tx_id]

    async def wait_height(self, height: int) -> None:
        while self.height < height:
            await self._next_block()

    async def _next_block(self) -> None:
        if self.makes_blocks:
            self.make_block()
        else:
            await self.changed.wait()

    async def relay(self, request: bytes) -> bytes:
        raise RefusedError("no peers", code="no_engine_rpc")

    def subscribe(self, receive: Callable[[BlockRecord], None]) -> None:
        self.receivers.append(receive)


class Face:
    """The HTTP application over a fake desk, asked without a network."""

    def __init__(
        self, desk: FakeDesk, *, faucet: bool = True, wait_s: float = 5.0, rate: float = 1e6, burst: float = 1e6
    ) -> None:
        self.desk = desk
        self.reports: list[tuple[str, dict[str, Any]]] = []
        self.service = Service(desk, faucet=Faucet(FAUCET, desk) if faucet else None, wait_s=wait_s)
        self.app = make_app(
            self.service, RateLimiter(rate, burst), lambda event, fields: self.reports.append((event, fields))
        )
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=self.app), base_url="http://ledger")

    async def __aenter__(self) -> "Face":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()
        self.service.close()

    async def get(self, path: str) -> httpx2.Response:
        return await self.http.get(path)

    async def post(self, path: str, body: Any) -> httpx2.Response:
        return await self.http.post(path, json=body)


def desk_at(height: int, desk: FakeDesk | None = None) -> FakeDesk:
    desk = desk or FakeDesk()
    while desk.height < height:
        desk.make_block()
    return desk


def signed(body: Body, sender: PrivateKey = TENANT, nonce: int = 0, chain_id: str = CHAIN_ID) -> bytes:
    tx = Tx(TX_VERSION, chain_id, sender.public, nonce, MINIMAL.min_fee, 500, body, [])
    return encode(
        Tx(
            TX_VERSION,
            chain_id,
            sender.public,
            nonce,
            MINIMAL.min_fee,
            500,
            body,
            [(sender.public, sender.sign(tx_signing_bytes(tx)))],
        )
    )


LEASE_ID = sha256(b"lease")
DEPLOYMENT_ID = sha256(b"deployment")


def lease_changes(desk: FakeDesk) -> dict[bytes, bytes]:
    """A running lease of the tenant: primary on node 0, standby on node 1; and a report of node 0."""
    state = desk.states[-1].values
    lease = Lease(
        version=1,
        tenant=TENANT.public,
        deployment=DEPLOYMENT_ID,
        service="web",
        replica=0,
        members=[
            Member(NODES[0].public, 0, GENESIS_MS + 500, sha256(b"erofs"), False),
            Member(NODES[1].public, 0, GENESIS_MS + 600, sha256(b"erofs"), False),
        ],
        terms=[Term(0, GENESIS_MS + 500, GENESIS_MS + 500)],
        resources=Resources(500, 512, 1_024),
        image_digest=sha256(b"image"),
        spec_hash=sha256(b"spec"),
        probe=Probe(1, 80, ""),
        ports=[80],
        price_per_hour=2 * TOKEN,
        reserve_per_hour=TOKEN // 2,
        prepaid_ms=3_600_000,
        failover_empty=False,
        created_ms=GENESIS_MS + 100,
        accept_by_ms=GENESIS_MS + 60_100,
        started_ms=GENESIS_MS + 500,
        void_ms_at_start=0,
        closed_ms=0,
        close_reason="",
        settled_epoch=0,
        escrow=2 * TOKEN,
        bounty=TOKEN,
        deposit=TOKEN // 10,
        bounty_epoch=-1,
        challenge=b"",
        paid=TOKEN // 4,
        refunded=0,
        settlements=[],
        settled_ms=0,
        local_volume=False,
    )
    node = decode_record(state[keys.node_key(NODES[0].public)], Node)
    fields = {name: getattr(node, name) for name in node.__struct_fields__}
    fields |= {"used": Resources(500, 512, 1_024), "lease_slots": b"\x01" + bytes(31), "last_report_epoch": 0}
    report = ReportRecord(1, 0, GENESIS_MS + 900, bytes(32), bytes(32), [1, 2], 2, [], bytes(32), 0, [])
    return {
        keys.lease_key(LEASE_ID): encode(lease),
        keys.deployment_key(DEPLOYMENT_ID): encode(
            Deployment(1, TENANT.public, "guestbook", [], [LEASE_ID], GENESIS_MS + 100, TOKEN // 10)
        ),
        keys.node_key(NODES[0].public): encode(Node(**fields)),
        keys.node_lease_key(NODES[0].public, 0): encode(NodeLease(1, LEASE_ID)),
        keys.report_key(NODES[0].public, 0, MINIMAL.report_epochs): encode(report),
    }
