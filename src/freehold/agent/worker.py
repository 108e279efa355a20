"""One worker per lease: feeds the pure machine with events and runs its instructions, one at a time.

An instruction that supersedes another cancels it and waits until it has ended, so that a stop never races a start;
the outcome of a superseded one is dropped. Nothing here is remembered on disk: after a restart the ledger, the boxes,
the image store and the containers say where the lease stands.
"""

import asyncio

import structlog

from freehold.agent.actions import Actions, Services, ended_by_itself
from freehold.agent.core.desired import Want
from freehold.agent.core.machine import (
    Action,
    Done,
    Event,
    Exited,
    Failed,
    Found,
    Instruction,
    LeaseMachine,
    Phase,
    TimerFired,
    Wanted,
)
from freehold.agent.reporter import ServiceState
from freehold.base.errors import FreeholdError
from freehold.lightclient.client import boottime_ms
from freehold.protocol.messages import LeaseStatus
from freehold.runtime.records import Container, Status

log = structlog.get_logger()


class LeaseWorker:
    """See the module."""

    def __init__(self, services: Services, lease_id: bytes) -> None:
        self.lease_id = lease_id
        self.machine = LeaseMachine()
        self._services = services
        self._actions = Actions(services, lease_id, self._ended)
        self._action: asyncio.Task[None] | None = None
        self._doing = Action.WAIT
        self._sequence = 0

    @property
    def is_gone(self) -> bool:
        """Whether nothing of the lease is left on this node."""
        return self.machine.phase is Phase.GONE

    def adopt(self, container: Container) -> None:
        """After the agent's start: a container of this lease is there, running, or ended by itself meanwhile.

        One that ended counts as found too: its exit then goes to its restart policy like any other. What the agent,
        the watchdog or a reboot stopped is started afresh when the ledger wants it.
        """
        if container.status is Status.RUNNING or ended_by_itself(container):
            self._actions.container = container
            self.notify(Found("adopt", container.term))

    def refresh(self, stimulus: str) -> None:
        """Pass on what the ledger wants now, and whether the fence holds; renew the watchdog's deadline."""
        desired = self._services.chain.desired(self.lease_id)
        fence = self._services.chain.fence()
        holds = fence.holds(boottime_ms())
        container = self.lease_id.hex()
        if desired.want is Want.RUN and desired.fenced and holds:
            self._services.runtime.fence.renew(container, fence.deadline_boottime_ms, desired.term)
        elif desired.want is Want.RUN and not desired.fenced:
            self._services.runtime.fence.lift(container)
        self.notify(Wanted(stimulus, desired, holds))

    def poke(self, stimulus: str) -> None:
        """Something that was waited for may have arrived: try at once."""
        waiting = self._action is not None and self._doing is Action.WAIT
        if waiting and self.machine.phase in (Phase.SPEC, Phase.IMAGE):
            self.notify(TimerFired(stimulus))

    def notify(self, event: Event) -> None:
        """Hand the machine an event and do what it says."""
        before = self.machine.phase
        instructions = self.machine.handle(event, boottime_ms())
        if self.machine.phase is not before:
            log.info(
                "phase",
                lease=self.lease_id.hex()[:16],
                source=before.value,
                target=self.machine.phase.value,
                detail=self.machine.detail,
                stimulus=event.stimulus,
            )
            if (before, self.machine.phase) == (Phase.IMAGE, Phase.RUNNING):
                self._services.spawn(self._actions.resume())
        for instruction in instructions:
            self._sequence += 1
            self._doing = instruction.action
            self._action = self._services.spawn(self._perform(instruction, self._sequence, self._action))

    async def _perform(self, instruction: Instruction, sequence: int, previous: "asyncio.Task[None] | None") -> None:
        if previous is not None and not previous.done() and previous is not asyncio.current_task():
            previous.cancel()
            await asyncio.wait((previous,))
        stimulus = f"{instruction.action}#{sequence}"
        event: Event
        try:
            await self._actions.execute(instruction)
            event = TimerFired(stimulus) if instruction.action is Action.WAIT else Done(stimulus, instruction.action)
        except (FreeholdError, OSError) as error:
            log.info("failed", lease=self.lease_id.hex()[:16], action=instruction.action.value, error=str(error))
            event = Failed(stimulus, instruction.action, str(error))
        if sequence == self._sequence:
            self.notify(event)

    def _ended(self, term: int, reason: str, restart_ms: int | None) -> None:
        self.notify(Exited("exit", term, reason, restart_ms))

    def state(self) -> ServiceState:
        """For the report: whether this node serves the lease now."""
        phase = self.machine.phase
        image = self._actions.image
        return ServiceState(
            lease_id=self.lease_id,
            serving=phase in (Phase.RUNNING, Phase.READY) and self._actions.is_complete,
            restarts=self.machine.restarts,
            health=self._actions.health,
            exit_reason=self.machine.exit_reason,
            erofs_digest=bytes.fromhex(image.erofs_digest.removeprefix("sha256:")) if image else b"",
        )

    async def status(self) -> LeaseStatus:
        """For the tenant: where the lease stands here; `claimed`."""
        usage = await self._actions.usage()
        return LeaseStatus(
            lease=self.lease_id,
            member=self._services.home.id,
            term=self.machine.term,
            phase=self.machine.phase.value,
            detail=self.machine.detail,
            health=self._actions.health,
            restarts=self.machine.restarts,
            exit_reason=self.machine.exit_reason,
            pid=self._actions.pid,
            started_ms=self._actions.started_ms,
            progress_permill=self._actions.progress_permill,
            memory_bytes=usage[0],
            cpu_usec=usage[1],
        )
