"""What a node answers to tenants, members, siblings and witnesses; each method with its limits (docs/spec/p2p.md)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from freehold.agent.access import holder_of, is_member, is_sibling, is_tenant, require
from freehold.agent.actions import Services
from freehold.agent.core.machine import Phase
from freehold.agent.failover import Failover
from freehold.agent.tunnels import connect_container
from freehold.agent.witness import KEPT_EPOCHS, Witness
from freehold.agent.worker import LeaseWorker
from freehold.base.codec import encode
from freehold.base.errors import RefusedError, UnreachableError
from freehold.base.limits import (
    ID_BYTES,
    KIB,
    MAX_CLAIM_EPOCHS,
    MAX_EVIDENCE_LEAF_BYTES,
    MAX_IMAGE_BYTES,
    MAX_WITNESSES,
)
from freehold.ledger.records import Lease
from freehold.ledger.transactions import ProbeKind
from freehold.protocol import messages
from freehold.protocol.evidence import (
    DutyLeaf,
    IdentityAnswer,
    IdentityQuestion,
    ProvenDuty,
    ProvenEvidence,
    is_signed_identity,
    sign_identity,
)
from freehold.runtime.images.manifest import MAX_DOCUMENT_BYTES, parse_manifest
from freehold.runtime.logs import follow_log, read_log
from freehold.transport.methods import AnyMethod, CallContext, Kind, Method, everybody
from freehold.transport.splice import splice

MAX_TAIL = 10_000
BLOB_CHUNK = 256 * KIB
TIMEOUT_MS = 10_000
PUT_TIMEOUT_MS = 60_000


@dataclass
class NodeServices:
    """The handlers. `worker` finds the worker of a lease."""

    shared: Services
    witness: Witness
    failover: Failover
    worker: Callable[[bytes], LeaseWorker | None]
    _pushed: dict[int, set[tuple[bytes, bytes, int]]] = field(default_factory=dict)

    def methods(self) -> list[AnyMethod]:
        """The table."""
        box_bytes = 72 * KIB  # one box; a lease's boxes come one by one
        push_bytes = MAX_EVIDENCE_LEAF_BYTES * 8

        def method(name: str, kinds: tuple[type, type], handler: object, **limits: object) -> AnyMethod:
            return Method(name, *kinds, handler, everybody, limits.pop("timeout_ms", TIMEOUT_MS), **limits)  # type: ignore[arg-type]

        m = messages
        return [
            method(
                "spec.deliver", (m.DeliverSpec, m.Empty), self.deliver_spec, max_request_bytes=min(box_bytes, 256 * KIB)
            ),
            method("spec.fetch", (m.FetchSpec, m.SealedSpec), self.fetch_spec),
            method("blob.wanted", (m.BlobsWanted, m.BlobOffsets), self.blobs_wanted, max_request_bytes=16 * KIB),
            method(
                "blob.put",
                (m.PutBlob, m.Empty),
                self.put_blob,
                kind=Kind.UPLOAD,
                max_body_bytes=MAX_IMAGE_BYTES,
                timeout_ms=PUT_TIMEOUT_MS,
            ),
            method("blob.get", (m.GetBlob, m.BlobSize), self.get_blob, kind=Kind.DOWNLOAD),
            method("lease.status", (m.LeaseStatusRequest, m.LeaseStatus), self.lease_status),
            method("lease.logs", (m.LogsRequest, m.Empty), self.logs, kind=Kind.DOWNLOAD),
            method("tunnel.open", (m.OpenTunnel, m.TunnelOpen), self.open_tunnel, kind=Kind.SPLICE),
            method("probe.open", (m.OpenProbe, m.TunnelOpen), self.open_probe, kind=Kind.SPLICE),
            method("probe.identity", (IdentityQuestion, IdentityAnswer), self.identity),
            method("witness.invite", (m.InviteWitness, m.Empty), self.invite),
            method("verdict.invite", (m.InviteVerdict, m.Empty), self.invite_verdict),
            method("mailbox.push", (m.EvidencePush, m.Empty), self.push, max_request_bytes=push_bytes),
            method("mailbox.read", (m.MailboxRequest, m.Mailbox), self.read_mailbox),
        ]

    # Deployment

    async def deliver_spec(self, context: CallContext, request: messages.DeliverSpec) -> messages.Empty:
        """Keep the boxes of a lease."""
        lease = self.shared.chain.lease(request.lease)
        require(is_tenant(self.shared.chain, lease, context.remote_id))
        members = {member.node for member in lease.members}
        require(all(node in members for node, _ in request.boxes))
        await asyncio.to_thread(self.shared.boxes.put, request.lease, request.boxes)
        self._poke(request.lease, "spec_delivered")
        return messages.Empty()

    async def fetch_spec(self, context: CallContext, request: messages.FetchSpec) -> messages.SealedSpec:
        """Hand a member its own box."""
        require(is_member(self.shared.chain.lease(request.lease), context.remote_id))
        box = self.shared.boxes.get(request.lease, context.remote_id)
        if box is None:
            raise RefusedError("this member has no box for you", code="no_spec")
        return messages.SealedSpec(box)

    async def blobs_wanted(self, context: CallContext, request: messages.BlobsWanted) -> messages.BlobOffsets:
        """Say which blobs are missing, and from where on."""
        lease = self.shared.chain.lease(request.lease)
        require(is_tenant(self.shared.chain, lease, context.remote_id) or is_member(lease, context.remote_id))
        blobs = self.shared.images.blobs
        names = [_digest(raw) for raw in request.digests]
        await self._require_in_image(lease, names)
        return messages.BlobOffsets([-1 if blobs.has(name) else blobs.offset(name) for name in names])

    async def put_blob(self, context: CallContext, request: messages.PutBlob) -> messages.Empty:
        """Take in a blob of the lease's image, checked while it is written."""
        lease = self.shared.chain.lease(request.lease)
        require(is_tenant(self.shared.chain, lease, context.remote_id))
        sizes = await self._require_in_image(lease, [_digest(request.digest)])
        if not request.size <= sizes[0]:
            raise RefusedError(f"the image names {sizes[0]} bytes for this blob", code="oversized")
        with self.shared.images.blobs.writer(_digest(request.digest), request.size) as writer:
            if writer.offset != request.offset:
                raise RefusedError(f"the blob goes on at byte {writer.offset}", code="wrong_offset")
            async for chunk in context.body():
                await asyncio.to_thread(writer.write, chunk)
            await asyncio.to_thread(writer.finish)
        if not self._lacks(lease):
            self._poke(request.lease, "blob_arrived")
        return messages.Empty()

    async def get_blob(self, context: CallContext, request: messages.GetBlob) -> messages.BlobSize:
        """Hand a blob to another member."""
        lease = self.shared.chain.lease(request.lease)
        require(is_member(lease, context.remote_id))
        name = _digest(request.digest)
        await self._require_in_image(lease, [name])
        size = self.shared.images.blobs.size(name)
        if not 0 <= request.offset <= size:
            raise RefusedError(f"the blob has {size} bytes", code="wrong_offset")
        context.download(self._blob_chunks(name, request.offset))
        return messages.BlobSize(size)

    def _lacks(self, lease: Lease) -> bool:
        """Whether blobs of a lease's image, whose manifest is here, have not arrived yet."""
        blobs, manifest = self.shared.images.blobs, f"sha256:{lease.image_digest.hex()}"
        return any(not blobs.has(blob.digest) for blob in parse_manifest(blobs.read(manifest)).blobs)

    async def _require_in_image(self, lease: Lease, names: list[str]) -> list[int]:
        """Let pass what the lease's image consists of; the store holds other tenants' blobs as well.

        Returns:
            The greatest size that each of the blobs may have.
        """
        manifest = f"sha256:{lease.image_digest.hex()}"
        sizes = {manifest: MAX_DOCUMENT_BYTES}
        if names != [manifest]:
            blobs = self.shared.images.blobs
            if not blobs.has(manifest):
                raise RefusedError("the image's manifest comes first", code="manifest_first")
            parsed = parse_manifest(await asyncio.to_thread(blobs.read, manifest))
            sizes |= {blob.digest: blob.size for blob in parsed.blobs}
        if any(name not in sizes for name in names):
            raise RefusedError("the lease's image has no such blob", code="not_in_image")
        return [sizes[name] for name in names]

    async def _blob_chunks(self, name: str, offset: int) -> AsyncIterator[bytes]:
        with self.shared.images.blobs.open(name) as file:
            file.seek(offset)
            while chunk := await asyncio.to_thread(file.read, BLOB_CHUNK):
                yield chunk

    # Running services

    async def lease_status(self, context: CallContext, request: messages.LeaseStatusRequest) -> messages.LeaseStatus:
        """Say where a lease stands here."""
        lease = self.shared.chain.lease(request.lease)
        require(
            is_tenant(self.shared.chain, lease, context.remote_id)
            or is_member(lease, context.remote_id)
            or await is_sibling(self.shared.chain, lease, context.remote_id)
        )
        return await self._require_worker(request.lease).status()

    async def logs(self, context: CallContext, request: messages.LogsRequest) -> messages.Empty:
        """Send the container's log."""
        lease = self.shared.chain.lease(request.lease)
        require(is_tenant(self.shared.chain, lease, context.remote_id))
        context.download(self._log_chunks(request))
        return messages.Empty()

    async def _log_chunks(self, request: messages.LogsRequest) -> AsyncIterator[bytes]:
        path = self.shared.runtime.places.of(request.lease.hex()).log
        tail = max(0, min(request.tail, MAX_TAIL))
        if not request.follow:
            for line in await asyncio.to_thread(read_log, path, tail=tail):
                yield line.text + b"\n"
            return
        async for line in follow_log(path, tail=tail, ended=asyncio.Event()):
            yield line.text + b"\n"

    async def open_tunnel(self, context: CallContext, request: messages.OpenTunnel) -> messages.TunnelOpen:
        """Splice the stream to a port of the container; only the present term's holder does."""
        lease = self.shared.chain.lease(request.lease)
        tenant = is_tenant(self.shared.chain, lease, context.remote_id)
        require(tenant or await is_sibling(self.shared.chain, lease, context.remote_id))
        if tenant and request.port not in lease.ports:
            raise RefusedError(f"port {request.port} is not published", code="port_not_published")
        return await self._splice(context, lease, request.lease, request.term, request.port)

    async def open_probe(self, context: CallContext, request: messages.OpenProbe) -> messages.TunnelOpen:
        """Splice the stream to the lease's probe port; anyone may look."""
        lease = self.shared.chain.lease(request.lease)
        if lease.probe.kind == ProbeKind.NONE:
            raise RefusedError("the lease has no probe", code="no_probe")
        return await self._splice(context, lease, request.lease, request.term, lease.probe.port)

    async def _splice(
        self, context: CallContext, lease: Lease, lease_id: bytes, term: int, port: int
    ) -> messages.TunnelOpen:
        held = holder_of(lease, self.shared.chain.header_ms)
        worker = self._require_worker(lease_id)
        if held is None or held != (self.shared.home.id, term) or worker.machine.term != term:
            raise RefusedError(f"term {term} is not the one in force here", code="stale_term")
        if worker.machine.phase is not Phase.RUNNING:
            raise UnreachableError(f"the service is not running: {worker.machine.phase.value}", code="not_running")
        reader, writer = await connect_container(self.shared.runtime, lease_id, port)

        async def run(stream: object) -> None:
            await splice(context.stream, reader, writer)

        context.splice(run)
        return messages.TunnelOpen(term)

    # Witnesses

    async def identity(self, context: CallContext, request: IdentityQuestion) -> IdentityAnswer:
        """Sign who we are and what our newest header is, for the witness that asks."""
        if len(request.nonce) > 32:
            raise RefusedError("the nonce is too long", code="oversized")
        header = self.shared.chain.header
        if header is None:
            raise UnreachableError("no header of the ledger has been verified yet", code="no_header")
        chain_id = self.shared.home.genesis.chain_id
        return sign_identity(chain_id, self.shared.home.key, context.remote_id, request, header.height, header.hash)

    async def invite(self, context: CallContext, request: messages.InviteWitness) -> messages.Empty:
        """Take on a duty."""
        if len(request.witnesses) > MAX_WITNESSES:
            raise RefusedError("too many witnesses", code="too_many")
        await self.witness.accept_invitation(context.remote_id, request)
        return messages.Empty()

    async def invite_verdict(self, context: CallContext, request: messages.InviteVerdict) -> messages.Empty:
        """Look at a challenge; the verdict is posted in the background."""
        if len(request.challenge) != ID_BYTES:
            raise RefusedError("a challenge's id has 32 bytes", code="bad_id")
        require(await self.shared.chain.any_node(context.remote_id) is not None)
        self.shared.spawn(self.failover.give_verdict_quietly(context.remote_id, request.challenge))
        return messages.Empty()

    # Mailbox

    async def push(self, context: CallContext, request: messages.EvidencePush) -> messages.Empty:
        """Keep leaves for the tenant: a member's evidence, a drawn witness's duty, one of each an epoch."""
        lease = self.shared.chain.lease(request.lease)
        # Four epochs of leaves fit into an answer to the tenant only if each is small.
        require(all(len(encode(leaf)) <= MAX_EVIDENCE_LEAF_BYTES for leaf in [*request.evidence, *request.duties]))
        for proven in request.evidence:
            require(is_member(lease, context.remote_id) and proven.leaf.lease == request.lease)
            if self._is_first(proven.leaf.epoch, (request.lease, context.remote_id, -1)):
                await self._keep(request.lease, proven.leaf.epoch, [proven], [])
        for duty in request.duties:
            await self._require_drawn(lease, context.remote_id, duty.leaf)
            if self._is_first(duty.leaf.epoch, (request.lease, context.remote_id, duty.leaf.target_slot)):
                await self._keep(request.lease, duty.leaf.epoch, [], [duty])
        return messages.Empty()

    async def _require_drawn(self, lease: Lease, caller: bytes, leaf: DutyLeaf) -> None:
        """Let pass a witness's own leaf about a member that it was drawn for: there is room for few."""
        chain = self.shared.chain
        require(leaf.witness == caller and chain.epoch - KEPT_EPOCHS < leaf.epoch <= chain.epoch)
        require(0 < len(leaf.probes) <= chain.preset.probes_per_duty)
        require(all(is_signed_identity(chain.ledger.chain_id, probe.answer) for probe in leaf.probes))
        witness = await chain.any_node(caller)
        for member in lease.members:
            node = await chain.any_node(member.node)
            if witness is not None and node is not None and node.slot == leaf.target_slot:
                require(witness.slot in await self.witness.draw_for(member.node, leaf.epoch))
                return
        require(False)

    def _is_first(self, epoch: int, push: tuple[bytes, bytes, int]) -> bool:
        """Whether a leaf of a recent epoch is the first that its sender hands over."""
        now = self.shared.chain.epoch
        for old in [known for known in self._pushed if known <= now - KEPT_EPOCHS]:
            del self._pushed[old]
        if not now - KEPT_EPOCHS < epoch <= now or push in self._pushed.setdefault(epoch, set()):
            return False
        self._pushed[epoch].add(push)
        return True

    async def _keep(
        self, lease_id: bytes, epoch: int, evidence: list[ProvenEvidence], duties: list[ProvenDuty]
    ) -> None:
        await asyncio.to_thread(self.shared.mailboxes.add, lease_id, epoch, evidence, duties)

    async def read_mailbox(self, context: CallContext, request: messages.MailboxRequest) -> messages.Mailbox:
        """Hand the tenant, or another member, the leaves of a span of epochs."""
        lease = self.shared.chain.lease(request.lease)
        require(is_tenant(self.shared.chain, lease, context.remote_id) or is_member(lease, context.remote_id))
        if not 0 <= request.last_epoch - request.first_epoch < MAX_CLAIM_EPOCHS:
            raise RefusedError(f"ask for 1 to {MAX_CLAIM_EPOCHS} epochs", code="too_many")
        evidence, duties = await asyncio.to_thread(
            self.shared.mailboxes.read, request.lease, request.first_epoch, request.last_epoch
        )
        return messages.Mailbox(evidence, duties)

    def _poke(self, lease_id: bytes, stimulus: str) -> None:
        worker = self.worker(lease_id)
        if worker is not None:
            worker.poke(stimulus)

    def _require_worker(self, lease_id: bytes) -> LeaseWorker:
        worker = self.worker(lease_id)
        if worker is None:
            raise RefusedError("this node holds no such lease", code="unknown_lease")
        return worker


def _digest(raw: bytes) -> str:
    if len(raw) != 32:
        raise RefusedError("a digest has 32 bytes", code="bad_digest")
    return f"sha256:{raw.hex()}"
