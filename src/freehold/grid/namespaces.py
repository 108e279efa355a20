"""Network namespaces of a local grid, joined to a bridge on the host; made and removed by name.

Each step first looks at what is there, so that an interrupted run is finished or undone by running again.
"""

import subprocess
from pathlib import Path

from freehold.base.errors import FreeholdError
from freehold.grid.layout import GridLayout, Place

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def _ip(*arguments: str, missing_is_fine: bool = False) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode and not missing_is_fine:
        raise FreeholdError(
            f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}",
            code="network_setup",
            hint="a local grid needs root and network namespaces",
        )


def namespace_path(node: Place) -> Path:
    """The namespace as a file that nsenter takes."""
    return Path("/run/netns") / node.namespace


def create_bridge(layout: GridLayout) -> None:
    """Make the bridge with the host's address, which takes the grid's subnet; each step once."""
    if not Path(f"/sys/class/net/{layout.bridge}").exists():
        _ip("link", "add", layout.bridge, "type", "bridge")
    _ip("address", "replace", f"{layout.host_ip}/24", "dev", layout.bridge)
    _ip("link", "set", layout.bridge, "up")


def create_network(layout: GridLayout) -> None:
    """Make the bridge and every namespace; keeps what is already there."""
    create_bridge(layout)
    for node in layout.places:
        if namespace_path(node).exists() and Path(f"/sys/class/net/{node.link}").exists():
            continue
        remove_namespace(node)
        _ip("netns", "add", node.namespace)
        _ip("link", "add", node.link, "type", "veth", "peer", "name", "eth0", "netns", node.namespace)
        _ip("link", "set", node.link, "master", layout.bridge, "up")
        _ip("-n", node.namespace, "link", "set", "lo", "up")
        _ip("-n", node.namespace, "address", "add", f"{node.ip}/24", "dev", "eth0")
        _ip("-n", node.namespace, "link", "set", "eth0", "up")
        _ip("-n", node.namespace, "route", "add", "default", "via", layout.host_ip)
    _open_internet(layout)


def remove_network(layout: GridLayout) -> None:
    """Remove all of it; what is not there is no error."""
    for node in layout.places:
        remove_namespace(node)
    _ip("link", "delete", layout.bridge, missing_is_fine=True)
    subprocess.run(["nft", "delete", "table", "ip", _table(layout)], capture_output=True, check=False)
    saved = layout.folder / "ip_forward"
    if saved.exists():
        if not _other_grids():
            _FORWARD.write_text(saved.read_text())
        saved.unlink()


def remove_namespace(node: Place) -> None:
    """Remove a cable and its namespace."""
    _ip("link", "delete", node.link, missing_is_fine=True)
    _ip("netns", "delete", node.namespace, missing_is_fine=True)


def _table(layout: GridLayout) -> str:
    return f"freehold_{layout.tag}"


def _other_grids() -> bool:
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return "table ip freehold_" in listed.stdout


def _open_internet(layout: GridLayout) -> None:
    """Let nodes reach beyond the machine as they would behind a home router; what was set before is kept for `down`."""
    saved = layout.folder / "ip_forward"
    if not saved.exists():
        saved.write_text(_FORWARD.read_text())
    _FORWARD.write_text("1")
    rules = (
        f"table ip {_table(layout)}\ndelete table ip {_table(layout)}\ntable ip {_table(layout)} {{\n"
        "  chain outgoing { type nat hook postrouting priority srcnat;\n"
        f'    ip saddr {layout.network} oifname != "{layout.bridge}" masquerade\n  }}\n}}\n'
    )
    done = subprocess.run(["nft", "-f", "-"], input=rules, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FreeholdError(f"nft refused the grid's rules: {done.stderr.strip()}", code="network_setup")
