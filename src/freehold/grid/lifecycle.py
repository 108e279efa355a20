"""Up and down of a local grid, and what runs of it. Both can be interrupted anywhere and run again."""

import asyncio
import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from freehold.agent.identity import create_keys
from freehold.base.errors import FreeholdError, InvalidInputError
from freehold.consensus.comet import install
from freehold.grid.claims import LOCK, check_folder, claim_layout, load_layout, remove_folder, write_marker
from freehold.grid.founding import found, register_node
from freehold.grid.layout import GridLayout, NodeLayout, Place, ValidatorLayout, make_layout
from freehold.grid.ledgers import describe_ledger, kill_validator, ledger_status, start_ledger, start_validator
from freehold.grid.namespaces import create_network, namespace_path, remove_network
from freehold.grid.processes import (
    daemon_pid,
    last_lines,
    require_running,
    start_daemon,
    stop_daemons,
    wait_until,
)
from freehold.runtime.containers import ContainerRuntime

READY_TIMEOUT_S = 30.0
Say = Callable[[str], None]


def up(folder: Path, *, nodes: int, farms: int, preset: str, say: Say, validators: int = 1) -> GridLayout:
    """Start a local grid, or what is missing of it.

    Args:
        folder: where it lives.
        nodes: how many.
        farms: how many.
        preset: its name.
        say: is told of each step.
        validators: 1 is the embedded ledger; more run CometBFT, which must be installed.

    Raises:
        InvalidInputError: the counts are wrong, or another grid is in the folder.
        FreeholdError: not root, or a process does not come up.
    """
    check_folder(folder)
    require_root()
    if validators > 1:
        install.require()
    with exclusive(folder):
        layout = load_layout(folder)
        if layout is None:
            layout = claim_layout(folder, nodes=nodes, farms=farms, preset=preset, validators=validators)
        elif (
            len(layout.nodes),
            len(layout.farms),
            layout.preset,
            len(layout.validators) or 1,
        ) != (nodes, farms, preset, validators):
            raise InvalidInputError(
                f"{folder} holds a grid of {len(layout.nodes)} nodes on {len(layout.farms)} farms, "
                f"{len(layout.validators) or 1} validators, {layout.preset} preset",
                code="other_grid",
                hint="`freehold grid down` removes it; or name those counts",
            )
        say(f"grid: {farms} farms with {nodes} nodes in {folder}")
        found(layout)
        create_network(layout)
        say(f"grid: {len(layout.places)} network namespaces on bridge {layout.bridge} ({layout.network})")
        start_ledger(layout)
        say(f"grid: ledger at {layout.urls[0]}, {describe_ledger(layout)}")
        for node in layout.nodes:
            start_node(node)
        _await_nodes(layout)
        say(f"grid: {nodes} node agents run")
        return layout


def start_node(node: NodeLayout) -> int:
    """Start a node's agent in its namespace, with nothing but its own home."""
    arguments = ["-m", "freehold.agent.main", "--home", str(node.home)]
    return start_daemon(node.home, arguments, namespace=namespace_path(node))


def down(folder: Path, *, say: Say) -> bool:
    """Stop and remove a grid with everything that it made; returns whether there was one.

    Raises:
        FreeholdError: not root.
    """
    layout = load_layout(folder)
    if layout is None:
        return False
    require_root()
    with exclusive(folder):
        say(f"grid: stopping {len(layout.nodes)} agents and the ledger")
        stop_daemons([*(node.home for node in layout.nodes), *layout.ledger_homes])
        for node in layout.nodes:
            say(f"grid: removing containers of {node.name}")
            destroy_runtime(node)
        remove_network(layout)
    remove_folder(folder)
    say("grid: nothing is left")
    return True


def kill(layout: GridLayout, name: str, say: Say) -> Place:
    """Kill a node (its agent and every process of its containers) or a validator with SIGKILL. Its disk stays.

    Raises:
        InvalidInputError: no such node or validator.
    """
    validator = find_validator(layout, name)
    if validator is not None:
        say(f"grid: killing {validator.name}, its daemon and its engine")
        kill_validator(validator)
        return validator
    node = find_node(layout, name)
    say(f"grid: killing the agent of {node.name}")
    stop_daemons([node.home], kill=True)
    say(f"grid: killing the containers of {node.name}")
    _in_namespace(node, "kill_here")
    return node


def add_node(folder: Path, say: Say) -> NodeLayout:
    """Join one more node to a running grid, by transaction from its farm's wallet, as any farmer would.

    Raises:
        InvalidInputError: no grid here, or no room for another node.
        RefusedError: the ledger refused.
    """
    layout = load_layout(folder)
    if layout is None:
        raise InvalidInputError("there is no grid here", code="no_grid", hint="start one with `freehold grid up`")
    require_root()
    with exclusive(folder):
        subnet = int(layout.host_ip.split(".")[2])
        count = len(layout.nodes) + 1
        larger = make_layout(
            folder,
            nodes=count,
            farms=len(layout.farms),
            preset=layout.preset,
            validators=len(layout.validators) or 1,
            subnet=subnet,
        )
        node = larger.nodes[-1]
        write_marker(larger)
        found(larger)
        create_network(larger)
        say(f"grid: {node.name} of farm {node.farm.name} joins by transaction")
        asyncio.run(register_node(node))
        start_node(node)
        _await_nodes(larger)
        return node


def start(layout: GridLayout, name: str) -> tuple[Place, int]:
    """Start a node's agent or a validator again.

    Returns:
        What was started, and the pid.

    Raises:
        InvalidInputError: no such node or validator.
    """
    validator = find_validator(layout, name)
    if validator is not None:
        return validator, start_validator(validator)
    node = find_node(layout, name)
    return node, start_node(node)


def find_validator(layout: GridLayout, name: str) -> ValidatorLayout | None:
    """A validator by its name; None when there is none of that name."""
    return next((validator for validator in layout.validators if validator.name == name), None)


def find_node(layout: GridLayout, name: str) -> NodeLayout:
    """A node by its name, or by the first digits of its id.

    Raises:
        InvalidInputError: no such node.
    """
    found = [node for node in layout.nodes if node.name == name or (name and _node_id(node.home).startswith(name))]
    if len(found) != 1:
        names = ", ".join(place.name for place in layout.places)
        raise InvalidInputError(f"no node {name!r} here; there are: {names}", code="unknown_node")
    return found[0]


def kill_here(home: Path) -> None:
    """In the node's namespace: kill every container of a node."""

    async def kill() -> None:
        runtime = _runtime_of(home)
        for container in await runtime.list():
            await runtime.kill(container.id)

    if (home / "data" / "runtime").exists():
        asyncio.run(kill())


def _runtime_of(home: Path) -> ContainerRuntime:
    key, _ = create_keys(home)
    return ContainerRuntime(home / "data" / "runtime", key.public.hex()[:16])


def destroy_runtime(node: NodeLayout) -> None:
    """Remove a node's containers, mounts and rules from the host."""
    if (node.home / "node.key").exists():
        _in_namespace(node, "destroy_here")


def _in_namespace(node: NodeLayout, function: str) -> None:
    """Run a function of this module on a node's home, in the node's network namespace."""
    code = (
        f"import sys; from pathlib import Path; from freehold.grid.lifecycle import {function};"
        f"{function}(Path(sys.argv[1]))"
    )
    enter = ["nsenter", f"--net={namespace_path(node)}", "--"] if namespace_path(node).exists() else []
    done = subprocess.run(
        # -P: what lies in the folder where someone stands is never imported as root.
        [*enter, sys.executable, "-P", "-c", code, str(node.home)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise FreeholdError(f"{function} failed for {node.name}: {done.stderr[-400:]}", code="runtime_failed")


def destroy_here(home: Path) -> None:
    """In the node's namespace: remove everything of its runtime."""
    if (home / "data" / "runtime").exists():
        asyncio.run(_runtime_of(home).destroy())


def status(layout: GridLayout) -> dict[str, Any]:
    """What runs of a grid."""
    return {
        "home": str(layout.folder),
        "preset": layout.preset,
        "genesis": str(layout.genesis_path),
        "ledger": ledger_status(layout),
        "farms": [
            {"farm": farm.name, "country": farm.country, "city": farm.city, "home": str(farm.home)}
            for farm in layout.farms
        ],
        "nodes": [_node_status(node) for node in layout.nodes],
    }


def _node_status(node: NodeLayout) -> dict[str, Any]:
    pid = daemon_pid(node.home)
    return {
        "name": node.name,
        "node": _node_id(node.home),
        "farm": node.farm.name,
        "address": node.listen,
        "namespace": node.namespace,
        "home": str(node.home),
        "pid": pid,
        "running": pid > 0,
    }


def _node_id(home: Path) -> str:
    return create_keys(home)[0].public.hex() if (home / "node.key").exists() else ""


def local_names(folder: Path) -> dict[bytes, str]:
    """Names of the nodes of the local grid in a folder, by id; none where there is no grid."""
    layout = load_layout(folder)
    ids = {node.name: _node_id(node.home) for node in layout.nodes} if layout else {}
    return {bytes.fromhex(id_): name for name, id_ in ids.items() if id_}


def require_root() -> None:
    """Check for root.

    Raises:
        FreeholdError: not root.
    """
    if os.geteuid() != 0:
        raise FreeholdError(
            "a local grid needs root: it makes network namespaces and runs containers",
            code="not_root",
            hint="run the same command with sudo",
        )


def _await_nodes(layout: GridLayout) -> None:
    def settled() -> bool:
        return all(not daemon_pid(node.home) or '"listening"' in last_lines(node.home, 50) for node in layout.nodes)

    wait_until(settled, READY_TIMEOUT_S)
    for node in layout.nodes:
        require_running(node.home, f"node {node.name}")


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """One `up` or `down` of a folder at a time."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FreeholdError(
                "another command is starting or stopping this grid", code="grid_busy", hint="wait for it to end"
            ) from None
        yield
