"""Agents have nothing but their own home, their own key and the ledger's address; and one more node joins."""

from pathlib import Path

import pytest
from faults import ticker_service
from local_grid import LocalGrid

pytestmark = pytest.mark.root


def traces(pid: int) -> str:
    """Everything that /proc tells of the files and words that a process holds."""
    folder = Path(f"/proc/{pid}")
    parts = [(folder / name).read_bytes().decode(errors="replace") for name in ("cmdline", "environ", "maps", "mounts")]
    parts += [str(path.readlink()) for path in (folder / "fd").iterdir()]
    parts += [str((folder / name).readlink()) for name in ("cwd", "root", "exe")]
    return "\n".join(parts[:3] + parts[4:])


def test_no_node_holds_anything_of_another(local_grid: LocalGrid) -> None:
    """With a deployment whose image and spec came over the transport, look at every agent's open files and words."""
    grid = local_grid
    grid.deploy(f"name: apart\nservices:\n{ticker_service('web', 'apart-marker', 1)}")
    members = set(grid.members_of("apart/web"))
    nodes = grid.node_status()
    homes = {name: str(grid.node_home(name)) for name in nodes}
    others = [str(grid.home / "grid" / part) for part in ("ledger", "farms")]
    others += [str(grid.home / part) for part in ("wallet.json", "images")]
    for name, status in nodes.items():
        seen = traces(status["pid"])
        assert homes[name] in seen, "the look itself sees nothing"
        foreign = [home for other, home in homes.items() if other != name and home + "/" in seen + "/"]
        foreign += [path for path in others if path in seen]
        assert foreign == [], f"{name} holds {foreign}"
        # The image is in the stores of the lease's members, each its own copy, and nowhere else.
        blobs = list((grid.node_home(name) / "data/images/blobs/sha256").glob("*"))
        assert bool(blobs) >= (name in members)
    inodes = [
        path.stat().st_ino for name in members for path in (grid.node_home(name) / "data/images/built").rglob("*.erofs")
    ]
    assert len(inodes) == len(set(inodes)) >= 2
    namespaces = {Path(f"/proc/{status['pid']}/ns/net").readlink() for status in nodes.values()}
    assert len(namespaces) == len(nodes)
    assert Path("/proc/self/ns/net").readlink() not in namespaces
    grid.end("apart")


@pytest.mark.long
def test_one_more_node_joins_by_transaction(own_grid: LocalGrid) -> None:
    grid = own_grid
    before = {node["node"] for node in grid.cli("node", "list")["nodes"]}
    added = grid.cli("grid", "add")["added"]
    rows = grid.cli("node", "list")["nodes"]
    new = next(row for row in rows if row["node"] not in before)
    assert new["stake"] == "100"
    assert grid.node_status()[added]["node"] == new["node"]
    # Nobody is drawn, and nothing is reported, before the second epoch after it registered.
    reported = grid.wait_for(
        lambda: (row := grid.cli("node", "show", new["node"]))["last_report_epoch"] >= 0 and row, 60
    )
    assert reported["reports"] >= 1
