"""`kill -9` of the agent under running containers; an agent that stays dead; a host whose agent is gone for good."""

import json
import os
import threading
import time
import urllib.request
from datetime import datetime

import pytest
from faults import overlaps, seed_of, spans_of, ticker_service, ticks
from local_grid import LocalGrid

from freehold.base.presets import MINIMAL

pytestmark = pytest.mark.root

FEW, MANY = 3, 20
RETURN_S = 2.0  # within which a new connection succeeds after the agent is back
ALLOWANCE_S = 3.0  # for a loaded machine, on top of what the rules say


def death(grid: LocalGrid, kills: int) -> None:
    """Kill the agent at random moments; the container must not notice.

    It has no standby, hence no fence: however long a loaded machine takes to bring the agent back, only a defect
    touches the container. What a fence does to one that has a standby is shown below.
    """
    rng = seed_of("agent kills")
    name = f"death{kills}"
    grid.deploy(f"name: {name}\nservices:\n{ticker_service('web', f'{name}-marker', 0)}")
    service = f"{name}/web"
    node = grid.node_of(service)
    pid = int(grid.python(service, "import os; print(os.getpid())"))
    before = _container_pid(grid, service)
    load = Load(f"http://{grid.connect(service, 8080)}/healthz")
    load.start()
    in_flight = 0
    try:
        for number in range(kills):
            pause = rng.uniform(0.3, 1.5)
            time.sleep(pause)  # the moment of the kill is what is drawn
            done_before = load.done
            grid.kill_agent(node)
            dead = rng.uniform(0.0, MINIMAL.fence_ms / 1000 - 4.0)
            time.sleep(dead)
            started = time.time()
            grid.start_agent(node)
            returned = grid.wait_for(lambda since=started: _returned(grid, node, since), 10)
            served = grid.wait_for(lambda since=returned: load.first_success_after(since), RETURN_S + ALLOWANCE_S + 5)
            took = served - returned
            in_flight += load.attempts > 0 and load.done > done_before
            print(
                f"kill {number}: after {pause:.2f} s, dead {dead:.2f} s, served {took:.2f} s after the agent's return"
            )
            assert took <= RETURN_S + ALLOWANCE_S
            assert _container_pid(grid, service) == before
    finally:
        load.stop()
    assert in_flight >= kills * 0.8, f"only {in_flight} of {kills} kills had requests in flight"
    assert int(grid.python(service, "import os; print(os.getpid())")) == pid
    numbers = ticks(grid.logs(service, 10_000))
    assert numbers == list(range(numbers[0], numbers[-1] + 1)), "a gap in the log"
    assert overlaps(spans_of(grid, grid.service(service)["lease"])) == []
    grid.end(name)


def test_kills_of_the_agent_do_not_touch_containers(local_grid: LocalGrid) -> None:
    death(local_grid, FEW)


@pytest.mark.long
def test_twenty_kills_of_the_agent(own_grid: LocalGrid) -> None:
    death(own_grid, MANY)


def test_an_exit_while_the_agent_is_dead_keeps_its_code(local_grid: LocalGrid) -> None:
    grid = local_grid
    grid.deploy(
        'name: exits\nservices:\n  web:\n    image: "test-image:1"\n    ports: ["8080"]\n    restart: "no"\n'
        "    x-freehold: {standbys: 0}\n"
    )
    node = grid.node_of("exits/web")
    grid.python("exits/web", "import threading, os; threading.Timer(1.0, os._exit, [42]).start()")
    pid = _container_pid(grid, "exits/web")
    grid.kill_agent(node)
    grid.wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 10)  # noqa: PTH110
    grid.start_agent(node)
    row = grid.wait_for(lambda: (row := grid.service("exits/web"))["last_exit"] and row, 20)
    assert row["last_exit"] == "exit 42"
    assert row["state"] == "exited"
    grid.end("exits")


@pytest.mark.long
def test_an_agent_that_stays_dead_loses_what_has_a_standby(own_grid: LocalGrid) -> None:
    """The watchdog stops it at the fence; what has no standby runs on; the standby takes over; never both."""
    grid = own_grid
    services = ticker_service("web", "dead-web", 1) + ticker_service("lone", "dead-lone", 0)
    grid.deploy(f"name: dead\nservices:\n{services}  # both may lie on one node or not\n")
    node = grid.node_of("dead/web")
    lone_node = grid.node_of("dead/lone")
    lone_pid = _container_pid(grid, "dead/lone")
    lease = grid.service("dead/web")["lease"]
    if lone_node != node:  # its agent stays dead beyond the fence too, but not while witnesses are needed
        grid.kill_agent(lone_node)
        time.sleep(MINIMAL.fence_ms / 1000 + 1.0)  # the fence's own time
        grid.start_agent(lone_node)
        grid.wait_for(lambda: "listening" in str(grid.agent_log(lone_node)[-5:]), 20)
    began = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    grid.kill_agent(node)
    grid.wait_for(
        lambda: any(line["event"] == "fenced" and line["container"] == lease for line in grid.term_log(node)),
        MINIMAL.fence_ms / 1000 + ALLOWANCE_S,
    )
    fenced = next(line for line in grid.term_log(node) if line["event"] == "fenced" and line["container"] == lease)
    assert fenced["boottime_ms"] <= began + MINIMAL.fence_ms + ALLOWANCE_S * 1000
    grid.wait_for(lambda: grid.service("dead/web")["term"] == 2 and grid.service("dead/web")["state"] == "running", 40)
    assert os.path.exists(f"/proc/{lone_pid}"), "a container without standby was stopped"  # noqa: PTH110
    assert overlaps(spans_of(grid, lease)) == []


def _returned(grid: LocalGrid, node: str, since: float) -> float:
    """When the node's agent last said that it listens, if that was since a moment; else 0."""
    times = [row["timestamp"] for row in grid.agent_log(node) if row.get("event") == "listening"]
    last = datetime.fromisoformat(times[-1]).timestamp() if times else 0.0
    return last if last >= since else 0.0


def _container_pid(grid: LocalGrid, service: str) -> int:
    lease = grid.service(service)["lease"]
    node = grid.node_of(service)
    record = (grid.node_home(node) / f"data/runtime/containers/{lease}/record.json").read_text()
    return int(json.loads(record)["pid"])


class Load(threading.Thread):
    """Requests one after the other until it is stopped; failures are fine, silence is not."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.attempts = 0
        self.done = 0
        self.successes: list[float] = []
        self._ends = threading.Event()

    def run(self) -> None:
        while not self._ends.wait(0.02):
            self.attempts += 1
            try:
                with urllib.request.urlopen(self.url, timeout=1.0) as answer:  # noqa: S310 - our own forward
                    if answer.status == 200:
                        self.done += 1
                        self.successes.append(time.time())
            except OSError:
                continue

    def first_success_after(self, moment: float) -> float:
        """When a request first succeeded after a moment; 0 when none has."""
        return next((at for at in list(self.successes) if at > moment), 0.0)

    def stop(self) -> None:
        self._ends.set()
        self.join()
