"""A ledger in a dict whose nodes keep real evidence and signed answers, under a signed chain: to make proofs of."""

import asyncio
import hashlib
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ledger_grid
from ledger_grid import CHAIN, GENESIS_MS, ZERO, Grid
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "light"))

import light_chain

from freehold.base.presets import MINIMAL, Preset
from freehold.client.proving import AskMailboxes, export_proof
from freehold.client.verifying import Verdict, verify_proof
from freehold.consensus.state_store import StateStore
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger import leases
from freehold.ledger.context import VALUE_NAMES
from freehold.ledger.records import Lease
from freehold.ledger.schedule import epoch_end_ms
from freehold.ledger.transactions import Report
from freehold.light.genesis import TrustedGenesis, genesis_document, parse_genesis
from freehold.light.headers import address_of, header_hash
from freehold.light.ics23 import decode_proof
from freehold.light.proof_file import Statement, parse_proof_file, write_proof_file
from freehold.light.types import Header, LightBlock, Timestamp
from freehold.light.verify import Signers
from freehold.lightclient.client import AskedHeader, Snapshot
from freehold.protocol.evidence import (
    DutyLeaf,
    EvidenceLeaf,
    IdentityQuestion,
    ProbeSeen,
    ProvenDuty,
    ProvenEvidence,
    WorkloadSeen,
    duty_root,
    evidence_root,
    prove_duties,
    prove_evidence,
    sign_identity,
)
from freehold.protocol.messages import Mailbox


@dataclass(frozen=True)
class NodeKey:
    """Signs transactions as cheaply as the grid checks them, and witnesses' questions for real."""

    name: str
    private: PrivateKey = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "private", PrivateKey.from_seed(hashlib.sha256(self.name.encode()).digest()))

    @property
    def public(self) -> bytes:
        return self.private.public

    def sign(self, message: bytes) -> bytes:
        return hashlib.sha512(self.public + message).digest()


class SignedChain(light_chain.Chain):
    """Validators over the grid's chain."""

    def __init__(self, preset: Preset, powers: Sequence[int] = (10,)) -> None:
        keys = [PrivateKey.from_seed(bytes([index + 1]) * 32) for index, _ in enumerate(powers)]
        self.keys = {address_of(key.public): key for key in keys}
        self.document = genesis_document(
            chain_id=CHAIN,
            genesis_time=Timestamp.from_ms(GENESIS_MS),
            validators=[(key.public, power, f"v{n}") for n, (key, power) in enumerate(zip(keys, powers, strict=True))],
            app_state={"preset": preset.name, "values": {name: getattr(preset, name) for name in VALUE_NAMES}},
        )
        self.trusted: TrustedGenesis = parse_genesis(self.document)

    def at(self, height: int, time_ms: int, app_hash: bytes) -> Header:
        return replace(self.header(height, app_hash), time=Timestamp.from_ms(time_ms))


class ProofGrid(Grid):
    """See the module. `silent` pairs (witness, target) are duties that the witness did not pass."""

    def __init__(self, preset: Preset = MINIMAL, *, powers: Sequence[int] = (10,), **fields: Any) -> None:
        super().__init__(preset, is_checked=False, make_key=NodeKey, **fields)
        self.chain = SignedChain(preset, powers)
        self._draws: dict[tuple[bytes, int], list[int]] = {}
        self.mail: dict[int, tuple[list[ProvenEvidence], list[ProvenDuty]]] = {}
        self.silent: set[tuple[bytes, bytes]] = set()
        self.unspoken: set[bytes] = set()  # targets whose workloads the witnesses were not led to

    def witnesses(self, node: bytes, epoch: int) -> list[int]:
        """Draws are asked for again and again, and never change."""
        if (node, epoch) not in self._draws:
            self._draws[node, epoch] = super().witnesses(node, epoch)
        return self._draws[node, epoch]

    def private(self, node: bytes) -> PrivateKey:
        return self.key[node].private  # type: ignore[attr-defined]

    def report_body(self, node: bytes, epoch: int, *, duties: Iterable[int] | None = None) -> Report:
        body = super().report_body(node, epoch, duties=duties)
        targets = [number for number in body.duty_targets if (node, self._node_at(number)) not in self.silent]
        evidence = self._evidence(node, epoch)
        seen = [self._duty(node, number, epoch) for number in targets]
        proven_evidence, proven_duties = self.mail.setdefault(epoch, ([], []))
        proven_evidence += prove_evidence(evidence)
        proven_duties += prove_duties(seen)
        return Report(
            epoch=epoch,
            evidence_root=evidence_root(evidence),
            lease_bits=body.lease_bits,
            witnesses=body.witnesses,
            duty_targets=targets,
            duty_root=duty_root(seen),
            duty_count=len(seen),
            duty_failed=[],
        )

    def _node_at(self, number: int) -> bytes:
        row = self.slot(number)
        assert row is not None
        return row.node

    def _evidence(self, node: bytes, epoch: int) -> list[EvidenceLeaf]:
        leaves = []
        for key, value in self.state.items():
            if key[:1] != b"l":
                continue
            lease = ledger_grid.decode_record(value, Lease)
            for member in lease.members:
                if member.node == node and self.served(node, lease):
                    leaf = EvidenceLeaf(
                        1,
                        key[1:],
                        member.slot,
                        len(lease.terms),
                        epoch,
                        lease.image_digest,
                        member.erofs_digest,
                        10_000,
                        0,
                        "ok",
                        "",
                        epoch,
                    )
                    leaves.append(leaf)
        return sorted(leaves, key=lambda leaf: leaf.lease_slot)

    def _duty(self, witness: bytes, number: int, epoch: int) -> DutyLeaf:
        target = self._node_at(number)
        probes = []
        for index in range(self.preset.probes_per_duty):
            nonce = hashlib.sha256(witness + target + bytes([epoch % 256, index])).digest()[:16]
            answer = sign_identity(
                CHAIN, self.private(target), witness, IdentityQuestion(epoch, nonce), self.height, ZERO
            )
            end = epoch_end_ms(self.preset, GENESIS_MS, epoch) - 1
            workloads = [] if target in self.unspoken else self._held(target, end)
            probes.append(ProbeSeen(end - 1000 * index, answer, workloads))
        return DutyLeaf(1, epoch, witness, number, probes)

    def _held(self, node: bytes, time_ms: int) -> list[WorkloadSeen]:
        found = []
        for key, value in self.state.items():
            if key[:1] == b"l":
                lease = ledger_grid.decode_record(value, Lease)
                holder = leases.holder_at(lease, time_ms)
                if holder is not None and lease.members[holder].node == node:
                    found.append(WorkloadSeen(key[1:], leases.term_at(lease, time_ms), True))
        return found[:4]

    @contextmanager
    def stored(self) -> Iterator[StateStore]:
        """The state as it stands, in a real store; in memory, for nothing here has to survive."""
        memory = Path("/dev/shm")
        with (
            tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
            StateStore.open(Path(folder) / "s", 1) as store,
        ):
            store.stage(0, self.state)
            store.commit()
            yield store

    # -- proofs -------------------------------------------------------------------------------------------------

    def export(self, lease: bytes, *, with_mail: bool = True, ask: AskMailboxes | None = None) -> bytes:
        """The proof file of a lease as the ledger stands now."""
        with tempfile.TemporaryDirectory() as folder, StateStore.open(Path(folder) / "s", 1) as store:
            store.stage(0, self.state)
            store.commit()
            reader = Reader(self, store)
            return asyncio.run(
                export_proof(reader, self.chain.trusted, lease, ask or (self.ask if with_mail else None))
            )

    def file_of(self, wanted: Iterable[bytes], entries: Iterable[bytes] = ()) -> bytes:
        """A proof file of just these keys and entries, whatever they are worth."""
        with self.stored() as store:
            found = asyncio.run(Reader(self, store).read(list(wanted)))
        height = found.at.height
        statements = [
            Statement(height, key, found.values[key], decode_proof(found.proofs[key])) for key in found.values
        ]
        return write_proof_file(self.chain.trusted, [found.light_block], statements, sorted(entries))

    def rewritten(self, data: bytes, *, extra: Iterable[bytes] = (), entries: Iterable[bytes] | None = None) -> bytes:
        """A file with the keys of another (and more), as the state stands now; with its entries, or with others."""
        file = parse_proof_file(data)
        kept = file.witness if entries is None else entries
        return self.file_of([*(item.key for item in file.statements), *extra], kept)

    async def ask(self, lease_id: bytes, lease: Lease, first: int, last: int) -> list[Mailbox]:
        """What an honest member keeps."""
        found = []
        for epoch in range(first, last + 1):
            evidence, duties = self.mail.get(epoch, ([], []))
            found.append(
                Mailbox(
                    [proven for proven in evidence if proven.leaf.lease == lease_id],
                    [proven for proven in duties if any(p.workloads for p in proven.leaf.probes)],
                )
            )
        return found

    def verify(self, data: bytes, **fields: Any) -> Verdict:
        return verify_proof(data, self.chain.trusted, **fields)


class Reader:
    """Verified reads, without a network."""

    def __init__(self, grid: ProofGrid, store: StateStore) -> None:
        self._store = store
        header = grid.chain.at(grid.height + 1, grid.now + 500, store.app_hash)
        self._block = grid.chain.sign(header)
        count = len(self._block.validator_set.validators)
        self._at = AskedHeader(header, header_hash(header), Signers(count, count, 10 * count, 10 * count), 0)

    async def hops(self, block: LightBlock) -> list[LightBlock]:
        return []

    async def read(self, keys: Sequence[bytes], height: int | None = None) -> Snapshot:
        assert height in (None, self._at.height)
        found = {key: self._store.prove(key, 0) for key in keys}
        values = {key: value for key, (value, _) in found.items()}
        return Snapshot(self._at, self._block, values, {key: proof for key, (_, proof) in found.items()})
