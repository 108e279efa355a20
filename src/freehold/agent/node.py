"""The agent put together: one loop that polls the verified ledger and feeds workers, witness, reporter and failover."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from freehold.agent.actions import Services
from freehold.agent.boxes import BoxStore
from freehold.agent.chain import ChainView
from freehold.agent.draws import SlotTable
from freehold.agent.failover import Failover
from freehold.agent.identity import NodeHome
from freehold.agent.mailbox import Mailboxes
from freehold.agent.peers import Peers
from freehold.agent.reporter import Reporter, ServiceState
from freehold.agent.sender import Sender
from freehold.agent.services import NodeServices
from freehold.agent.tunnels import Tunnels
from freehold.agent.witness import Witness
from freehold.agent.worker import LeaseWorker
from freehold.base.errors import FreeholdError, RefusedError
from freehold.crypto import ed25519
from freehold.ledger.genesis import parse_preset
from freehold.lightclient.client import LedgerClient
from freehold.lightclient.trust_store import TrustStore
from freehold.protocol.messages import LeaseStatus, LeaseStatusRequest
from freehold.runtime.containers import ContainerRuntime
from freehold.runtime.images.store import ImageStore
from freehold.runtime.records import Container
from freehold.transport.iroh_endpoint import Endpoint
from freehold.transport.rpc import ALPN, Heartbeat, Pool, PoolLimits, Server

log = structlog.get_logger()

HOUSEKEEPING_S = 60.0
SILENCE_MS = 1_500  # a connection on which nothing answers for so long is made anew; suspicion has its own time
UNUSED_S = 600.0  # an image that no known lease names stays this long

PollWork = Callable[[], Awaitable[None]]


class Agent:
    """A running agent; `run` returns when it is cancelled, leaving all containers as they are."""

    def __init__(self, home: NodeHome) -> None:
        self.home = home
        state = home.genesis.app_state
        self.preset = parse_preset(state["preset"], state["values"])
        self._tasks: set[asyncio.Task[None]] = set()
        self._workers: dict[bytes, LeaseWorker] = {}
        self._found: dict[bytes, Container] = {}

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            FreeholdError: the agent cannot start: address in use, no container runtime, damaged home.
        """
        ed25519.self_test()
        home = self.home
        home.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = TrustStore(home.data / "light", home.genesis, home.trust)
        limit_s = self.preset.fence_ms / 2000
        ledger = LedgerClient(
            home.settings.ledger,
            home.genesis,
            timeout_s=limit_s,
            trust=home.trust,
            store=store,
            doubt=lambda words: log.warning("not_compared", what=words),
        )
        runtime = ContainerRuntime(home.data / "runtime", home.id.hex()[:16])
        for container in await runtime.adopt():
            self._found[bytes.fromhex(container.id)] = container
        endpoint = await Endpoint.create(home.seed, [home.settings.listen], [ALPN])
        pool = Pool(endpoint, PoolLimits(suspect_ms=min(self.preset.suspect_ms, SILENCE_MS)))
        try:
            await self._serve(runtime, endpoint, pool, ledger)
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await pool.close()
            await endpoint.close()
            await ledger.close()

    async def _serve(self, runtime: ContainerRuntime, endpoint: Endpoint, pool: Pool, ledger: LedgerClient) -> None:
        home = self.home
        chain = ChainView(ledger, home.id, self.preset, home.genesis.genesis_time_ms)
        peers = Peers(chain, pool)
        sender = Sender(chain, home.key)
        slots = SlotTable(chain)
        witness = Witness(chain, peers, slots, self.spawn)
        mailboxes = Mailboxes(home.data / "mailbox", self.preset.report_epochs)
        self.shared = Services(
            home=home,
            chain=chain,
            peers=peers,
            sender=sender,
            boxes=BoxStore(home.data / "boxes"),
            images=ImageStore(home.data / "images"),
            runtime=runtime,
            tunnels=Tunnels(chain, peers, runtime),
            mailboxes=mailboxes,
            spawn=self.spawn,
            status_of=self.status_of,
        )
        heartbeat = Heartbeat(pool, self.preset.poll_ms, self.preset.suspect_ms)
        failover = Failover(chain, peers, slots, sender, witness, heartbeat, self.spawn)
        reporter = Reporter(chain, witness, sender, peers, mailboxes, self._states)
        services = NodeServices(self.shared, witness, failover, self._workers.get)
        server = Server(endpoint, services.methods())
        log.info("listening", node=home.id.hex(), address=home.settings.listen, chain_id=home.genesis.chain_id)
        await asyncio.to_thread(self.shared.images.sweep)
        self.spawn(self._keep_watchdog(runtime))
        loops = [
            asyncio.ensure_future(work)
            for work in (
                server.serve(),
                self._keep_house(),
                self._every_poll(self._duties_loop(witness, reporter), "duties"),
                # Apart: each claim waits for its block, and a report must not wait for many of them.
                self._every_poll(reporter.claim_when_due, "claims"),
                self._every_poll(reporter.refund_expired, "refunds"),
                self._every_poll(failover.watch, "failover"),
                self._every_poll(self._poll, "poll"),
            )
        ]
        self._tasks.update(loops)
        try:
            # None of them ends of itself: an agent without one of them would only seem to live.
            await asyncio.gather(*loops)
        finally:
            await server.close()
            await heartbeat.close()
            await self.shared.tunnels.close_all()

    def spawn(self, work: Awaitable[None]) -> "asyncio.Task[None]":
        """Start a task that lives with the agent; a defect in it is logged with its trace and ends only itself."""
        task = asyncio.ensure_future(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def status_of(self, node: bytes, lease_id: bytes) -> LeaseStatus:
        """A node's word on a lease; our own without a call."""
        if node != self.home.id:
            return await self.shared.peers.call(node, "lease.status", LeaseStatusRequest(lease_id), LeaseStatus)
        worker = self._workers.get(lease_id)
        if worker is None:
            raise RefusedError("this node holds no such lease", code="unknown_lease")
        return await worker.status()

    def _states(self) -> list[ServiceState]:
        return [worker.state() for worker in self._workers.values()]

    async def _every_poll(self, work: PollWork, name: str) -> None:
        loop = asyncio.get_running_loop()
        interval_s = self.preset.poll_ms / 1000
        failing = False
        while True:
            began = loop.time()
            try:
                await work()
                if failing:
                    log.info("recovered", what=name)
                failing = False
            except (FreeholdError, OSError) as error:  # a full disk passes, too
                if not failing:
                    log.warning("failing", what=name, **_told(error))
                failing = True
            await asyncio.sleep(max(interval_s / 10, began + interval_s - loop.time()))

    async def _poll(self) -> None:
        """Bring the chain view up to date and tell every worker, also when that failed: the fence may have gone."""
        chain = self.shared.chain
        try:
            await chain.poll()
        finally:
            self._tell_workers()

    def _tell_workers(self) -> None:
        chain = self.shared.chain
        for lease_id in chain.leases:
            if lease_id not in self._workers:
                worker = self._workers[lease_id] = LeaseWorker(self.shared, lease_id)
                container = self._found.pop(lease_id, None)
                if container is not None:
                    worker.adopt(container)
        if chain.header is not None:
            for lease_id in list(self._found):  # containers of leases that the ledger no longer gives to this node
                worker = self._workers[lease_id] = LeaseWorker(self.shared, lease_id)
                worker.adopt(self._found.pop(lease_id))
        for lease_id, worker in list(self._workers.items()):
            worker.refresh("poll")
            if worker.is_gone and lease_id not in chain.leases:
                del self._workers[lease_id]

    def _duties_loop(self, witness: Witness, reporter: Reporter) -> PollWork:
        async def work() -> None:
            chain = self.shared.chain
            if chain.node is None or chain.epoch < 0:
                return
            reporter.sample()
            await witness.begin_epoch(chain.epoch)
            await reporter.report_when_due()

        return work

    async def _keep_house(self) -> None:
        """Now and then: rules follow the farmer's LAN, images and mailboxes of leases that are gone leave the disk."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            chain, images = self.shared.chain, self.shared.images
            try:
                await asyncio.to_thread(self.shared.runtime.networks.apply)
                if chain.header is not None:
                    roots = [f"sha256:{lease.image_digest.hex()}" for lease in chain.leases.values()]
                    await asyncio.to_thread(images.collect, roots, UNUSED_S)
                kept_s = self.preset.report_epochs * self.preset.epoch_ms / 1000
                await asyncio.to_thread(self.shared.mailboxes.sweep, set(chain.leases), kept_s)
            except (FreeholdError, OSError) as error:
                log.warning("housekeeping_failed", error=str(error))

    async def _keep_watchdog(self, runtime: ContainerRuntime) -> None:
        async for pid in runtime.watch():
            log.info("watchdog_started", pid=pid)


def _told(error: FreeholdError | OSError) -> dict[str, str]:
    """An error for the log, with what its operator should do."""
    if isinstance(error, FreeholdError):
        return {"code": error.code, "error": error.message, "next": error.hint}
    return {"code": "system", "error": str(error), "next": ""}


async def _logged(work: Awaitable[None]) -> None:
    try:
        await work
    except FreeholdError as error:
        log.warning("task_failed", code=error.code, error=error.message)
