"""One node's part of one lease as a state machine: `handle(event, now_ms) -> instructions`.

All transitions are in `TRANSITIONS`; a step outside it breaks an invariant, and the diagram in docs/spec/agent.md is
generated from it (`diagram`). The machine is level-triggered: it keeps no record of its own on disk, since the ledger,
the boxes, the image store and the containers say where it stands; after a restart the same events lead to the same
phase without disturbing what runs.
"""

from dataclasses import dataclass
from enum import StrEnum

from freehold.agent.core.desired import Desired, Want
from freehold.base.errors import check

RETRY_MS = 2_000
RETRY_MAX_MS = 60_000


class Phase(StrEnum):
    """Where this node's part of a lease stands; the words that people read in `ps`."""

    NEW = "new"
    SPEC = "waiting for spec"
    IMAGE = "fetching image"
    ACCEPT = "accepting"
    READY = "ready"
    WAITING = "waiting for a service"
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "restarting"
    EXITED = "exited"
    STOPPING = "stopping"
    REMOVING = "removing"
    GONE = "gone"


@dataclass(frozen=True)
class Event:
    """Something that happened; `stimulus` names it in the log."""

    stimulus: str


@dataclass(frozen=True)
class Wanted(Event):
    """The ledger's newest wish, and whether the fence holds."""

    desired: Desired
    fence_holds: bool


@dataclass(frozen=True)
class Done(Event):
    """An instruction succeeded."""

    action: "Action"


@dataclass(frozen=True)
class Failed(Event):
    """An instruction failed; `detail` is for people."""

    action: "Action"
    detail: str


@dataclass(frozen=True)
class Exited(Event):
    """The container ended; `restart_ms` is the policy's delay before the next start, None for never."""

    term: int
    reason: str
    restart_ms: int | None


@dataclass(frozen=True)
class Found(Event):
    """After a restart of the agent: the container of `term` still runs."""

    term: int


@dataclass(frozen=True)
class TimerFired(Event):
    """The wait asked for is over."""


class Action(StrEnum):
    """What the shell is asked to do."""

    GET_SPEC = "get_spec"
    GET_IMAGE = "get_image"
    ACCEPT = "accept"
    AWAIT_PEERS = "await_peers"
    START = "start"
    STOP = "stop"
    REMOVE = "remove"
    WAIT = "wait"


@dataclass(frozen=True)
class Instruction:
    """One action; `term` for START, `delay_ms` for WAIT, `reason` for STOP and REMOVE."""

    action: Action
    term: int = 0
    delay_ms: int = 0
    reason: str = ""
    keep_volumes: bool = True


# From each phase, the phases that may follow. One table: the diagram in the docs is generated from it.
TRANSITIONS: dict[Phase, tuple[Phase, ...]] = {
    Phase.NEW: (Phase.SPEC, Phase.REMOVING),
    Phase.SPEC: (Phase.IMAGE, Phase.REMOVING),
    Phase.IMAGE: (Phase.ACCEPT, Phase.READY, Phase.STOPPING, Phase.RUNNING, Phase.REMOVING),
    Phase.ACCEPT: (Phase.READY, Phase.REMOVING),
    Phase.READY: (Phase.WAITING, Phase.RUNNING, Phase.STOPPING, Phase.REMOVING),
    Phase.WAITING: (Phase.STARTING, Phase.READY, Phase.REMOVING),
    Phase.STARTING: (Phase.RUNNING, Phase.BACKOFF, Phase.STOPPING, Phase.EXITED),
    Phase.RUNNING: (Phase.BACKOFF, Phase.EXITED, Phase.STOPPING),
    Phase.BACKOFF: (Phase.WAITING, Phase.STOPPING, Phase.READY),
    Phase.EXITED: (Phase.STOPPING,),
    Phase.STOPPING: (Phase.READY, Phase.REMOVING),
    Phase.REMOVING: (Phase.GONE,),
    Phase.GONE: (),
}


class LeaseMachine:
    """The state of one lease on one node; see the module."""

    def __init__(self) -> None:
        self.phase = Phase.NEW
        self.detail = ""
        self.exit_reason = ""
        self.restarts = 0
        self.term = 0  # of the container that runs or ran last
        self._desired = Desired(Want.PREPARE, 0, False, "")
        self._fence_holds = False
        self._failures = 0
        self._found_term = 0
        self._pending = False  # an instruction is under way

    def handle(self, event: Event, now_ms: int) -> list[Instruction]:
        """Take in an event and say what to do next.

        Args:
            event: what happened.
            now_ms: any clock that does not go back; kept for the log.
        """
        match event:
            case Wanted():
                self._desired = event.desired
                self._fence_holds = event.fence_holds
            case Found():
                self._found_term = event.term
                self.term = event.term
            case Done(action=Action.ACCEPT) if self.phase is Phase.ACCEPT:
                self._failures = 0
                if self._desired.want is Want.PREPARE:  # committed, but the state that we know is older
                    return self._ask(Instruction(Action.WAIT, delay_ms=RETRY_MS))
            case Done():
                self._done(event.action)
            case Failed():
                return self._failed(event)
            case Exited():
                return self._exited(event)
            case TimerFired():
                self._pending = False
                if self.phase is Phase.BACKOFF and self._may_run():
                    return self._begin_start()
        return self._next()

    def _may_run(self) -> bool:
        wanted = self._desired
        return wanted.want is Want.RUN and (self._fence_holds or not wanted.fenced)

    def _go(self, phase: Phase, detail: str = "") -> None:
        check(phase in TRANSITIONS[self.phase], "agent_transition", source=self.phase, target=phase)
        self.phase = phase
        self.detail = detail

    def _ask(self, instruction: Instruction) -> list[Instruction]:
        self._pending = True
        return [instruction]

    def _done(self, action: Action) -> None:
        self._pending = False
        self._failures = 0
        match (self.phase, action):
            case (Phase.SPEC, Action.GET_SPEC):
                self._go(Phase.IMAGE)
            case (Phase.IMAGE, Action.GET_IMAGE):
                self._settle_image()
            case (Phase.WAITING, Action.AWAIT_PEERS):
                if self._may_run():
                    self._go(Phase.STARTING)
                else:
                    self._go(Phase.READY)
            case (Phase.STARTING, Action.START):
                self.term = self._desired.term
                self._go(Phase.RUNNING)
            case (Phase.STOPPING, Action.STOP):
                self._found_term = 0
                if self._desired.want is Want.GONE:
                    self._go(Phase.REMOVING, self._desired.reason)
                else:
                    self._go(Phase.READY, self._desired.reason)
            case (Phase.REMOVING, Action.REMOVE):
                self._go(Phase.GONE)

    def _settle_image(self) -> None:
        if self._found_term and self._found_term == self._desired.term and self._may_run():
            self._go(Phase.RUNNING)
        elif self._desired.want is Want.PREPARE:
            self._go(Phase.ACCEPT)
        elif self._found_term:
            self._go(Phase.STOPPING)
        else:
            self._go(Phase.READY)

    def _failed(self, event: Failed) -> list[Instruction]:
        self._failures += 1
        self.detail = event.detail
        delay = min(RETRY_MS << min(self._failures - 1, 10), RETRY_MAX_MS)
        if self.phase is Phase.STARTING and event.action is Action.START:
            self.restarts += 1
            self.exit_reason = f"start failed: {event.detail}"
            self._go(Phase.BACKOFF, event.detail)
        return self._ask(Instruction(Action.WAIT, delay_ms=delay))

    def _exited(self, event: Exited) -> list[Instruction]:
        if self.phase not in (Phase.RUNNING, Phase.STARTING) or event.term != self._desired.term:
            return []
        self.exit_reason = event.reason
        self._pending = False
        if not self._may_run():
            return self._next()
        if event.restart_ms is None:
            self._go(Phase.EXITED, event.reason)
            return []
        self.restarts += 1
        self._go(Phase.BACKOFF, event.reason)
        return self._ask(Instruction(Action.WAIT, delay_ms=event.restart_ms))

    def _begin_start(self) -> list[Instruction]:
        self._go(Phase.WAITING)
        return self._ask(Instruction(Action.AWAIT_PEERS, term=self._desired.term))

    def _next(self) -> list[Instruction]:
        """What the phase and the wish ask for now; also called with nothing new, and then says nothing."""
        wanted = self._desired
        if self.phase in (Phase.STARTING, Phase.RUNNING, Phase.BACKOFF, Phase.EXITED) and self._must_stop():
            self._go(Phase.STOPPING, self._stop_reason())
            return self._ask(self._stop())
        if wanted.want is Want.GONE and Phase.REMOVING in TRANSITIONS[self.phase] and self.phase is not Phase.STOPPING:
            if self._found_term:
                self._found_term = 0
            self._go(Phase.REMOVING, wanted.reason)
            return self._ask(Instruction(Action.REMOVE, reason=wanted.reason, keep_volumes=False))
        if self.phase is Phase.ACCEPT and wanted.want is not Want.PREPARE:
            self._pending = False  # the ledger has our acceptance: no more waiting for it
        if self._pending:
            return []
        return self._advance()

    def _advance(self) -> list[Instruction]:
        match self.phase:
            case Phase.NEW:
                self._go(Phase.SPEC)
                return self._ask(Instruction(Action.GET_SPEC))
            case Phase.SPEC:
                return self._ask(Instruction(Action.GET_SPEC))
            case Phase.IMAGE:
                return self._ask(Instruction(Action.GET_IMAGE))
            case Phase.ACCEPT if self._desired.want is not Want.PREPARE:
                self._go(Phase.READY)
                return self._advance()
            case Phase.ACCEPT:
                return self._ask(Instruction(Action.ACCEPT))
            case Phase.READY if self._may_run():
                return self._begin_start()
            case Phase.STARTING:
                return self._ask(Instruction(Action.START, term=self._desired.term))
            case Phase.STOPPING:
                return self._ask(self._stop())
            case Phase.REMOVING:
                return self._ask(Instruction(Action.REMOVE, reason=self._desired.reason, keep_volumes=False))
        return []

    def _must_stop(self) -> bool:
        return not self._may_run() or (self.phase is Phase.RUNNING and self.term != self._desired.term)

    def _stop_reason(self) -> str:
        if self._desired.want is Want.RUN and self._desired.fenced and not self._fence_holds:
            return "fenced: no fresh header of the ledger"
        return self._desired.reason

    def _stop(self) -> Instruction:
        return Instruction(Action.STOP, reason=self._stop_reason())


def diagram() -> str:
    """The transition table as a Mermaid state diagram, for docs/spec/agent.md."""
    lines = ["stateDiagram-v2"]
    names = {phase: phase.name.lower() for phase in Phase}
    lines += [f"    {names[phase]} : {phase.value}" for phase in Phase]
    lines += [f"    {names[source]} --> {names[target]}" for source in Phase for target in TRANSITIONS[source]]
    return "\n".join(lines) + "\n"
