"""The lease machine: a playbook of expected instructions, and what no sequence of events may do."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.agent.core.desired import Desired, Want
from freehold.agent.core.machine import (
    TRANSITIONS,
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
    diagram,
)

RUN = Desired(Want.RUN, 1, True, "")
PREPARE = Desired(Want.PREPARE, 0, False, "")
HOLD = Desired(Want.HOLD, 1, False, "standby")
GONE = Desired(Want.GONE, 1, False, "closed")


def told(machine: LeaseMachine, desired: Desired, fence: bool = True) -> list[Instruction]:
    return machine.handle(Wanted("test", desired, fence), 0)


def done(machine: LeaseMachine, action: Action) -> list[Instruction]:
    return machine.handle(Done("test", action), 0)


def actions(instructions: list[Instruction]) -> list[Action]:
    return [instruction.action for instruction in instructions]


def ready(desired: Desired = RUN) -> LeaseMachine:
    machine = LeaseMachine()
    assert actions(told(machine, PREPARE)) == [Action.GET_SPEC]
    assert actions(done(machine, Action.GET_SPEC)) == [Action.GET_IMAGE]
    assert actions(done(machine, Action.GET_IMAGE)) == [Action.ACCEPT]
    assert done(machine, Action.ACCEPT) == [Instruction(Action.WAIT, delay_ms=2_000)]
    told(machine, desired)
    return machine


def running() -> LeaseMachine:
    machine = ready()
    assert machine.phase is Phase.WAITING
    assert actions(done(machine, Action.AWAIT_PEERS)) == [Action.START]
    assert done(machine, Action.START) == []
    assert machine.phase is Phase.RUNNING
    return machine


def test_from_offer_to_running() -> None:
    machine = running()
    assert machine.term == 1
    assert told(machine, RUN) == []


def test_a_standby_waits_and_then_starts_the_new_term() -> None:
    machine = ready(HOLD)
    assert machine.phase is Phase.READY
    assert actions(told(machine, Desired(Want.RUN, 2, True, ""))) == [Action.AWAIT_PEERS]


def test_nothing_starts_without_the_fence() -> None:
    machine = ready(HOLD)
    assert told(machine, RUN, fence=False) == []
    assert machine.phase is Phase.READY


def test_a_lost_fence_stops_and_a_regained_one_starts_again() -> None:
    machine = running()
    stop = told(machine, RUN, fence=False)
    assert actions(stop) == [Action.STOP]
    assert stop[0].reason.startswith("fenced")
    assert done(machine, Action.STOP) == []
    assert machine.phase is Phase.READY
    assert actions(told(machine, RUN)) == [Action.AWAIT_PEERS]


def test_a_lease_without_standbys_runs_on_without_the_fence() -> None:
    machine = running()
    assert told(machine, Desired(Want.RUN, 1, False, ""), fence=False) == []
    assert machine.phase is Phase.RUNNING


def test_an_exit_follows_the_policy() -> None:
    machine = running()
    wait = machine.handle(Exited("test", 1, "exit 1", 500), 0)
    assert wait == [Instruction(Action.WAIT, delay_ms=500)]
    assert actions(machine.handle(TimerFired("test"), 0)) == [Action.AWAIT_PEERS]
    assert machine.restarts == 1
    machine = running()
    assert machine.handle(Exited("test", 1, "exit 0", None), 0) == []
    assert machine.phase is Phase.EXITED
    assert actions(told(machine, GONE)) == [Action.STOP]


def test_a_running_container_is_adopted_without_a_start() -> None:
    machine = LeaseMachine()
    told(machine, RUN)
    machine.handle(Found("test", 1), 0)
    assert actions(done(machine, Action.GET_SPEC)) == [Action.GET_IMAGE]
    assert done(machine, Action.GET_IMAGE) == []
    assert machine.phase is Phase.RUNNING


def test_a_found_container_of_another_term_is_stopped() -> None:
    machine = LeaseMachine()
    told(machine, HOLD)
    machine.handle(Found("test", 1), 0)
    done(machine, Action.GET_SPEC)
    assert actions(done(machine, Action.GET_IMAGE)) == [Action.STOP]


def test_failures_back_off_up_to_a_minute() -> None:
    machine = LeaseMachine()
    told(machine, PREPARE)
    delays = []
    for _ in range(8):
        delays.append(machine.handle(Failed("test", Action.GET_SPEC, "no"), 0)[0].delay_ms)
        assert actions(machine.handle(TimerFired("test"), 0)) == [Action.GET_SPEC]
    assert delays == [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.GONE])
def test_every_phase_leads_to_gone(phase: Phase) -> None:
    reached, edge = {phase}, [phase]
    while edge:
        edge = [after for before in edge for after in TRANSITIONS[before] if after not in reached]
        reached.update(edge)
    assert Phase.GONE in reached


def test_the_diagram_in_the_docs_is_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs/spec/agent.md").read_text()
    assert diagram() in page


desires = st.builds(
    Desired, st.sampled_from(list(Want)), st.integers(0, 3), st.booleans(), st.sampled_from(["", "standby"])
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Wanted, st.just("test"), desires, st.booleans()),
    st.builds(Done, st.just("test"), st.sampled_from(list(Action))),
    st.builds(Failed, st.just("test"), st.sampled_from(list(Action)), st.just("no")),
    st.builds(Exited, st.just("test"), st.integers(0, 3), st.just("exit 1"), st.none() | st.just(100)),
    st.builds(Found, st.just("test"), st.integers(1, 3)),
    st.builds(TimerFired, st.just("test")),
)


@settings(max_examples=300)
@given(st.lists(events, max_size=60))
def test_no_sequence_leaves_the_table_or_starts_what_may_not_run(sequence: list[Event]) -> None:
    machine = LeaseMachine()
    wanted = Wanted("none", PREPARE, False)
    for event in sequence:
        if isinstance(event, Wanted):
            wanted = event
        for instruction in machine.handle(event, 0):
            if instruction.action in (Action.START, Action.AWAIT_PEERS):
                assert wanted.desired.want is Want.RUN
                assert wanted.fence_holds or not wanted.desired.fenced
