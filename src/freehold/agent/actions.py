"""Carrying out a worker's instructions: spec, image, acceptance, container, removal."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from freehold.agent.access import holder_of
from freehold.agent.boxes import BoxStore
from freehold.agent.bundling import container_id, container_spec
from freehold.agent.chain import ChainView
from freehold.agent.core.machine import Action, Instruction, Phase
from freehold.agent.fetching import fetch_blobs
from freehold.agent.identity import NodeHome
from freehold.agent.mailbox import Mailboxes
from freehold.agent.peers import Peers
from freehold.agent.sender import Sender
from freehold.agent.tunnels import Tunnels
from freehold.base.errors import FreeholdError, RefusedError, UnreachableError
from freehold.ledger.records import Lease
from freehold.ledger.transactions import Accept
from freehold.protocol.messages import FetchSpec, LeaseStatus, SealedSpec
from freehold.protocol.spec import PeerSpec, ServiceSpec, image_proof, open_spec, require_fit
from freehold.runtime import health as healthchecks
from freehold.runtime.containers import ContainerRuntime
from freehold.runtime.images.store import BuiltImage, ImageStore
from freehold.runtime.records import Container, Exit, ExitReason, Status
from freehold.runtime.restart import RestartKind, RestartPolicy, decide_restart

log = structlog.get_logger()

PEER_POLL_S = 0.5
Ended = Callable[[int, str, int | None], None]


@dataclass
class Services:
    """What all workers of an agent share. `status_of` asks a node for its word on a lease."""

    home: NodeHome
    chain: ChainView
    peers: Peers
    sender: Sender
    boxes: BoxStore
    images: ImageStore
    runtime: ContainerRuntime
    tunnels: Tunnels
    mailboxes: Mailboxes
    spawn: Callable[[Awaitable[None]], "asyncio.Task[None]"]
    status_of: Callable[[bytes, bytes], Awaitable[LeaseStatus]]


class Actions:
    """What one lease needs done on this node; `ended` is told when its container ends."""

    def __init__(self, services: Services, lease_id: bytes, ended: Ended) -> None:
        self._services = services
        self._lease_id = lease_id
        self._ended = ended
        self.spec: ServiceSpec | None = None
        self.image: BuiltImage | None = None
        self.container: Container | None = None
        self.progress_permill = 0
        self.health = ""
        self._attempts = 0
        self._follower: asyncio.Task[None] | None = None
        self._checker: asyncio.Task[None] | None = None

    async def execute(self, instruction: Instruction) -> None:
        """Do one thing.

        Raises:
            FreeholdError: it failed; the machine decides when to try again.
        """
        match instruction.action:
            case Action.WAIT:
                await asyncio.sleep(instruction.delay_ms / 1000)
            case Action.GET_SPEC:
                await self._get_spec()
            case Action.GET_IMAGE:
                await self._get_image()
            case Action.ACCEPT:
                await self._accept()
            case Action.AWAIT_PEERS:
                await self._await_peers()
            case Action.START:
                await self._start(instruction.term)
            case Action.STOP:
                await self._stop(fenced=instruction.reason.startswith("fenced"))
            case Action.REMOVE:
                await self._remove()

    @property
    def _lease(self) -> Lease:
        return self._services.chain.lease(self._lease_id)

    async def _get_spec(self) -> None:
        lease, me = self._lease, self._services.home.id
        box = self._services.boxes.get(self._lease_id, me)
        if box is not None and self._open(box, lease):
            return
        for member in lease.members:
            if member.node != me and not member.lost:
                try:
                    answer = await self._services.peers.call(
                        member.node, "spec.fetch", FetchSpec(self._lease_id), SealedSpec
                    )
                except FreeholdError:
                    continue
                if self._open(answer.box, lease):
                    self._services.boxes.put(self._lease_id, [(me, answer.box)])
                    return
        raise UnreachableError("the tenant has not handed over the spec yet", code="no_spec")

    def _open(self, box: bytes, lease: Lease) -> bool:
        home = self._services.home
        try:
            spec = open_spec(
                box, home.box_key, home.genesis.chain_id, self._lease_id, home.id, lease.tenant, lease.spec_hash
            )
            require_fit(spec, lease.resources.disk_mib)
        except FreeholdError as error:
            log.warning("bad_spec", lease=self._lease_id.hex()[:16], error=str(error))
            return False
        self.spec = spec
        return True

    async def _get_image(self) -> None:
        digest = f"sha256:{self._lease.image_digest.hex()}"
        image = self._services.images.built(digest)
        if image is None or not self._services.images.blobs.has(digest):
            members = [member.node for member in self._lease.members if member.node != self._services.home.id]
            await fetch_blobs(self._services.images.blobs, self._services.peers, self._lease_id, members, digest)
            image = await self._services.images.build(digest)
        await self._require_possession(digest)
        self.image = image
        self.progress_permill = 1000

    async def _require_possession(self, manifest: str) -> None:
        """Run an image only for a tenant who has it: this node may hold it for another one.

        Raises:
            RefusedError: the spec does not show that.
        """
        if self.spec is None:
            raise UnreachableError("no spec", code="no_spec")
        data = await asyncio.to_thread(self._services.images.blobs.read, manifest)
        if self.spec.image_proof != image_proof(self._lease.tenant, data):
            raise RefusedError("the spec does not show that its tenant has the image", code="bad_image_proof")

    async def _accept(self) -> None:
        if self.image is None:
            raise UnreachableError("no image", code="no_image")
        digest = bytes.fromhex(self.image.erofs_digest.removeprefix("sha256:"))
        try:
            await self._services.sender.send(Accept(self._lease_id, digest))
        except RefusedError as error:
            if error.code != "already_accepted":
                raise

    async def _await_peers(self) -> None:
        if self.spec is None:
            raise UnreachableError("no spec", code="no_spec")
        for peer in self.spec.peers:
            while peer.condition:
                if await self._peer_ready(peer):
                    break
                await asyncio.sleep(PEER_POLL_S)

    async def _peer_ready(self, peer: PeerSpec) -> bool:
        """Whether a service that this one depends on has started, or is healthy, by its node's word."""
        lease = await self._services.chain.any_lease(peer.leases[0])
        if lease is not None and lease.deployment != self._lease.deployment:
            raise RefusedError("the spec waits for a service of another deployment", code="not_allowed")
        held = holder_of(lease, self._services.chain.header_ms) if lease else None
        if held is None:
            return False
        try:
            status = await self._services.status_of(held[0], peer.leases[0])
        except FreeholdError:
            return False
        if peer.condition == "healthy":
            return status.health == "healthy"
        # One that has ended, or is between two runs, has started all the same.
        return status.phase in (Phase.RUNNING.value, Phase.BACKOFF.value, Phase.EXITED.value)

    async def _start(self, term: int) -> None:
        lease, spec, image, runtime = self._lease, self.spec, self.image, self._services.runtime
        if spec is None or image is None:
            raise UnreachableError("spec or image is not here", code="no_spec")
        name = container_id(self._lease_id)
        existing = {container.id: container for container in await runtime.list()}.get(name)
        if existing is not None and (existing.term != term or existing.status is Status.BROKEN):
            await runtime.remove(name)
            existing = None
        if existing is None:
            await self._create(lease, term, spec, image)
        desired = self._services.chain.desired(self._lease_id)
        if desired.fenced:
            runtime.fence.renew(name, self._services.chain.fence().deadline_boottime_ms, term)
        try:
            container = await runtime.start(name)
        except FreeholdError as error:
            if error.code != "needs_create":
                raise
            await runtime.remove(name)
            await self._create(lease, term, spec, image)
            container = await runtime.start(name)
        self.follow(container)

    async def _create(self, lease: Lease, term: int, spec: ServiceSpec, image: BuiltImage) -> None:
        deployment = lease.deployment.hex()
        await asyncio.to_thread(self._services.runtime.networks.add, deployment)
        hosts = await self._services.tunnels.open(self._lease_id, deployment, spec.peers)
        dns = self._services.home.settings.dns
        await self._services.runtime.create(container_spec(self._lease_id, lease, term, spec, image, hosts, dns))

    def follow(self, container: Container) -> None:
        """Watch a running container until it ends; also after the agent's restart."""
        self.container = container
        for task in (self._follower, self._checker):
            if task is not None:
                task.cancel()
        self._follower = self._services.spawn(self._follow(container))
        self._checker = self._services.spawn(self._check_health(container))

    async def resume(self) -> None:
        """After the agent's restart, with the spec at hand: listen again for the services that the container names."""
        if self.spec is not None:
            await self._services.tunnels.open(self._lease_id, self._lease.deployment.hex(), self.spec.peers)
        if self.container is not None:
            self.follow(self.container)

    async def _follow(self, container: Container) -> None:
        ended = await self._services.runtime.wait(container.id)
        if self._checker is not None:
            self._checker.cancel()
        self.health = ""
        self.container = None
        ran_ms = max(0, ended.boottime_ms - container.started_ms)
        decision = decide_restart(self._policy(), ended, attempts=self._attempts, ran_ms=ran_ms)
        self._attempts = decision.attempts
        fenced = ended.reason is ExitReason.FENCED
        # A fenced container starts again when the fence holds once more: the machine asks for that itself.
        restart_ms = (
            decision.delay_ms if decision.restart else (self._services.chain.preset.poll_ms if fenced else None)
        )
        self._ended(container.term, describe_exit(ended), restart_ms)

    def _policy(self) -> RestartPolicy:
        if self.spec is None:
            return RestartPolicy()
        return RestartPolicy(RestartKind(self.spec.restart.policy), self.spec.restart.attempts)

    async def _check_health(self, container: Container) -> None:
        asked = self.spec.health if self.spec else None
        if asked is None or not asked.argv:
            return
        check = healthchecks.HealthCheck(
            test=tuple(asked.argv),
            interval_ms=asked.interval_ms,
            timeout_ms=asked.timeout_ms,
            retries=asked.retries,
            start_period_ms=asked.start_period_ms,
        )
        loop = asyncio.get_running_loop()
        health = healthchecks.begin(check, int(loop.time() * 1000))
        self.health = health.state.value
        while True:
            await asyncio.sleep(max(0.0, health.next_ms / 1000 - loop.time()))
            try:
                result = await self._services.runtime.execute(
                    container.id, list(check.test), timeout=check.timeout_ms / 1000
                )
                passed = result.code == 0
                if not passed:
                    said = result.output[:200].decode(errors="replace")
                    log.info("health_test_failed", lease=self._lease_id.hex()[:16], code=result.code, output=said)
            except FreeholdError as error:
                log.info("health_test_failed", lease=self._lease_id.hex()[:16], error=error.message)
                passed = False
            health = healthchecks.observe(check, health, passed, int(loop.time() * 1000))
            self.health = health.state.value

    async def _stop(self, *, fenced: bool) -> None:
        name = container_id(self._lease_id)
        if name in {container.id for container in await self._services.runtime.list()}:
            grace_s = self.spec.stop_grace_ms / 1000 if self.spec and not fenced else 0.0
            await self._services.runtime.stop(name, grace_s)

    async def _remove(self) -> None:
        services, name = self._services, container_id(self._lease_id)
        for task in (self._follower, self._checker):
            if task is not None:
                task.cancel()
        containers = {container.id: container for container in await services.runtime.list()}
        if name in containers and containers[name].status in (Status.RUNNING, Status.CREATED):
            await services.runtime.stop(name, self.spec.stop_grace_ms / 1000 if self.spec else 10.0)
        await services.runtime.remove(name)
        await services.tunnels.close(self._lease_id)
        deployment = containers[name].deployment if name in containers else ""
        prefix = f"{deployment[:24]}-"
        if deployment and not any(
            other.deployment == deployment for other in await services.runtime.list() if other.id != name
        ):
            await asyncio.to_thread(services.runtime.networks.remove, deployment)
            for volume in services.runtime.volumes.names():
                if volume.startswith(prefix):
                    await asyncio.to_thread(services.runtime.volumes.remove, volume)
        services.runtime.fence.lift(name)
        services.boxes.remove(self._lease_id)

    @property
    def is_complete(self) -> bool:
        """Whether spec and image are here."""
        return self.spec is not None and self.image is not None

    @property
    def pid(self) -> int:
        """The container's first process on this host; 0 when it does not run."""
        return self.container.pid if self.container else 0

    @property
    def started_ms(self) -> int:
        """Boot time of the running container's start."""
        return self.container.started_ms if self.container else 0

    async def usage(self) -> tuple[int, int]:
        """Memory in bytes and CPU time in microseconds that the running container uses."""
        if self.container is None:
            return 0, 0
        try:
            found = await self._services.runtime.stats(self.container.id)
        except (FreeholdError, OSError):
            return 0, 0
        return found.memory_bytes, found.cpu_us


def ended_by_itself(container: Container) -> bool:
    """Whether a container has ended of its own doing, so that its restart policy decides."""
    own = (ExitReason.EXITED, ExitReason.SIGNALED, ExitReason.OOM)
    return container.exit is not None and container.status is Status.EXITED and container.exit.reason in own


def describe_exit(ended: Exit) -> str:
    """An exit in few words: `exit 1`, `oom`, `signal 9`, `fenced`, ..."""
    match ended.reason:
        case ExitReason.EXITED:
            return f"exit {ended.code}"
        case ExitReason.SIGNALED:
            return f"signal {ended.signal}"
        case ExitReason.OOM:
            return "oom: the memory limit was reached"
        case _:
            return f"{ended.reason.value.replace('_', ' ')}{': ' + ended.message if ended.message else ''}"
