"""Deploying a plan: one transaction, then specs and image bytes to every member, until all run and answer.

After `Deploy` is committed everything here can be repeated: boxes and blobs are handed over again where they are
missing, so an interrupted deploy is finished by `resume`. docs/spec/deploying.md.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from freehold.base.codec import encode
from freehold.base.errors import FreeholdError, RefusedError, RemoteProtocolError, UnreachableError
from freehold.client.images import LocalImages
from freehold.client.nodes import NodeClient
from freehold.client.plan import Placement, Plan
from freehold.client.session import Session
from freehold.client.specs import service_spec
from freehold.client.wallet import Wallet
from freehold.crypto.entropy import random_bytes
from freehold.ledger.keys import lease_key
from freehold.ledger.records import Lease
from freehold.ledger.transactions import Deploy, ProbeKind, deployment_id, lease_id
from freehold.protocol.messages import (
    BlobOffsets,
    BlobsWanted,
    DeliverSpec,
    Empty,
    LeaseStatus,
    LeaseStatusRequest,
    OpenProbe,
    PutBlob,
    TunnelOpen,
)
from freehold.protocol.spec import SALT_BYTES, ServiceSpec, image_proof, seal_spec, spec_hash
from freehold.runtime.images.importing import ImportedImage
from freehold.transport.rpc import Peer

CALL_MS = 10_000
UPLOAD_MS = 60_000
CHUNK = 256 * 1024
POLL_S = 0.3
_ARRIVED = ("running", "exited: exit 0")  # a service that has done its work and is not to be restarted has run
RETRY_S = 1.0


@dataclass(frozen=True)
class Progress:
    """What happened: `subject` is a service or node as people know it; `done_bytes` of `total_bytes` when it counts."""

    subject: str
    what: str
    done_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True)
class LeaseJob:
    """One lease on its way: what to hand over to whom."""

    id: bytes
    placement: Placement
    spec: ServiceSpec
    salt: bytes
    image: ImportedImage


@dataclass(frozen=True)
class Deployed:
    """A committed deployment."""

    id: bytes
    height: int
    jobs: list[LeaseJob]


class Deployer:
    """Deploys one plan; `tell` gets every step."""

    def __init__(
        self, session: Session, wallet: Wallet, nodes: NodeClient, images: LocalImages, tell: Callable[[Progress], None]
    ) -> None:
        self._session = session
        self._wallet = wallet
        self._nodes = nodes
        self._images = images
        self._tell = tell

    async def deploy(self, plan: Plan) -> Deployed:
        """Commit the deployment, hand everything over, and wait until it runs and answers.

        Raises:
            RefusedError: the ledger refused, or a member let its deadline pass.
            UnreachableError: a node could not be reached in time.
        """
        deployed = await self._commit(plan)
        await self.hand_over(deployed)
        await self._await_running(deployed)
        return deployed

    async def _commit(self, plan: Plan) -> Deployed:
        nonce = await self._session.next_nonce(self._wallet.id)
        deployment = deployment_id(self._session.ledger.chain_id, self._wallet.id, nonce)
        jobs, orders = [], []
        for placement in plan.placements:
            order = placement.order
            service = plan.model.services[order.service]
            image = self._images.find(service.image)
            proof = image_proof(self._wallet.id, self._images.blobs.read(image.manifest_digest))
            spec = service_spec(plan.model, service, order.replica, deployment, proof)
            salt = random_bytes(SALT_BYTES)
            digest = bytes.fromhex(image.manifest_digest.removeprefix("sha256:"))
            orders.append(placement.complete(digest, spec_hash(salt, encode(spec))))
            job_id = lease_id(deployment, order.service, order.replica)
            jobs.append(LeaseJob(job_id, placement, spec, salt, image))
        body = Deploy(plan.model.name, [self._wallet.endpoint.public], orders)
        outcome = await self._session.submit(self._wallet.account, body, nonce=nonce)
        self._tell(Progress(plan.model.name, f"contract committed at height {outcome.height}"))
        return Deployed(deployment, outcome.height, jobs)

    async def hand_over(self, deployed: Deployed) -> None:
        """Give every member the boxes and the image; members that do not answer are tried again until the deadline."""
        await asyncio.gather(
            *(self._hand_over_one(job, member.node) for job in deployed.jobs for member in job.placement.members)
        )

    async def _hand_over_one(self, job: LeaseJob, node: bytes) -> None:
        deadline = asyncio.get_running_loop().time() + self._session.preset.accept_deadline_ms / 1000
        while True:
            try:
                await self._deliver(job, node)
                return
            except FreeholdError as error:
                # A node learns of its new lease with its next poll; until then it refuses.
                if asyncio.get_running_loop().time() > deadline:
                    raise UnreachableError(
                        f"{job.placement.name}: node {node.hex()[:12]} did not take the lease: {error.message}",
                        code="handover_failed",
                        hint="after the accept deadline anyone may refund the lease",
                    ) from error
                await asyncio.sleep(RETRY_S / 2)

    async def _deliver(self, job: LeaseJob, node: bytes) -> None:
        peer = await self._nodes.peer(node)
        for member in job.placement.members:
            box = seal_spec(
                self._session.ledger.chain_id,
                job.id,
                member.node,
                (await self._nodes.node(member.node)).box_key,
                job.salt,
                job.spec,
                self._wallet.account,
            )
            await peer.call("spec.deliver", DeliverSpec(job.id, [(member.node, box)]), Empty, CALL_MS)
        manifest = job.image.manifest_digest
        blobs = [(blob.digest, blob.size) for blob in job.image.manifest.blobs]
        name = f"{job.placement.name} on {node.hex()[:12]}"
        # The manifest goes first: a node takes only what it names.
        total = await self._send_blobs(peer, job.id, name, [(manifest, self._images.blobs.size(manifest))])
        total += await self._send_blobs(peer, job.id, name, blobs)
        self._tell(Progress(name, "image handed over", total, total))

    async def _send_blobs(self, peer: Peer, lease: bytes, name: str, blobs: list[tuple[str, int]]) -> int:
        """Send what a node lacks of these blobs (digest, size). Returns the size of all."""
        raw = [bytes.fromhex(digest.removeprefix("sha256:")) for digest, _ in blobs]
        wanted = await peer.call("blob.wanted", BlobsWanted(lease, raw), BlobOffsets, CALL_MS)
        if len(wanted.offsets) != len(blobs):
            raise RemoteProtocolError(f"{name}: the node answered for other blobs", code="bad_answer")
        total = sum(size for _, size in blobs)
        done = sum(size if offset < 0 else offset for (_, size), offset in zip(blobs, wanted.offsets, strict=True))
        for (digest, size), raw_digest, offset in zip(blobs, raw, wanted.offsets, strict=True):
            if not 0 <= offset <= size:
                continue
            body = self._chunks(digest, offset, name, done, total)
            await peer.upload("blob.put", PutBlob(lease, raw_digest, size, offset), body, Empty, UPLOAD_MS)
            done += size - offset
        return total

    async def _chunks(self, digest: str, offset: int, name: str, done: int, total: int) -> AsyncIterator[bytes]:
        with self._images.blobs.open(digest) as file:
            file.seek(offset)
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk
                done += len(chunk)
                self._tell(Progress(name, "sending image", done, total))

    async def _await_running(self, deployed: Deployed) -> None:
        """Wait until every member accepted, every holder runs its container, and every probe port answers."""
        pending = {job.id: job for job in deployed.jobs}
        said: dict[bytes, str] = {}
        deadline = asyncio.get_running_loop().time() + self._session.preset.accept_deadline_ms / 1000
        while pending:
            snapshot = await self._session.ledger.read([lease_key(id_) for id_ in pending])
            asked = list(pending.values())
            states = await asyncio.gather(
                *(self._state_of(job, snapshot.get(lease_key(job.id), Lease)) for job in asked)
            )
            for job, state in zip(asked, states, strict=True):
                if said.get(job.id) != state:
                    said[job.id] = state
                    self._tell(Progress(job.placement.name, state))
                if state in _ARRIVED:
                    del pending[job.id]
                elif state.startswith("exited"):
                    raise FreeholdError(
                        f"{job.placement.name} has {state}",
                        code="service_exited",
                        hint="`freehold logs SERVICE` tells why; the contract stands until `freehold down` ends it",
                    )
            if pending and asyncio.get_running_loop().time() > deadline:
                names = ", ".join(f"{job.placement.name} ({said[id_]})" for id_, job in pending.items())
                raise UnreachableError(
                    f"not running within the accept deadline: {names}",
                    code="not_running",
                    hint="`freehold ps` and `freehold logs SERVICE` tell more; `freehold down` ends it",
                )
            await asyncio.sleep(POLL_S)

    async def _state_of(self, job: LeaseJob, lease: Lease | None) -> str:
        if lease is None:
            raise RefusedError(f"{job.placement.name}: the ledger no longer holds the lease", code="lease_gone")
        missing = [member for member in lease.members if not member.accepted_ms]
        if missing:
            return f"{len(lease.members) - len(missing)} of {len(lease.members)} nodes accepted"
        try:
            holder = lease.members[lease.terms[-1].member].node
            peer = await self._nodes.peer(holder)
            status = await peer.call("lease.status", LeaseStatusRequest(job.id), LeaseStatus, CALL_MS)
            if status.phase != "running":
                return f"{status.phase}{': ' + status.detail if status.detail else ''}"
            if lease.probe.kind != ProbeKind.NONE:
                request = OpenProbe(job.id, len(lease.terms))
                _, stream = await peer.splice("probe.open", request, TunnelOpen, CALL_MS)
                await stream.reset(0)
        except FreeholdError as error:
            return f"started, its port does not answer yet ({error.code})"
        return "running"
