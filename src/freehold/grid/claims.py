"""Which grid a folder holds: its arguments in grid.json, and the machine's subnet that it claims."""

import fcntl
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import FreeholdError, InvalidInputError
from freehold.consensus.storage import write_file
from freehold.grid.layout import GridLayout, make_layout
from freehold.grid.namespaces import create_bridge
from freehold.runtime.places import RUN_ROOT

MARKER: Final = "grid.json"
LOCK: Final = "lock"


class _Marker(msgspec.Struct, forbid_unknown_fields=True):
    """grid.json: the arguments from which the layout follows."""

    nodes: int
    farms: int
    preset: str
    subnet: int
    validators: int = 1


def check_folder(folder: Path) -> None:
    """Refuse to make a grid in a folder that holds something else: `down` would remove that too.

    Raises:
        InvalidInputError: `home_not_empty`.
    """
    if not folder.is_dir() or (folder / MARKER).exists():
        return
    strange = sorted({path.name for path in folder.iterdir()} - {LOCK, f"{MARKER}.new"})
    if strange:
        raise InvalidInputError(
            f"{folder} is not empty, and holds no grid: {', '.join(strange[:5])}",
            code="home_not_empty",
            hint="nothing was changed; choose a new folder, for `freehold grid down` removes all of it",
        )


def remove_folder(folder: Path) -> None:
    """Remove a grid's folder, what says that it is one last: whoever is cut off here can begin again."""
    for path in folder.iterdir():
        if path.name not in (MARKER, LOCK):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.rmtree(folder)


def load_layout(folder: Path) -> GridLayout | None:
    """The layout of the grid in a folder; None when there is none."""
    try:
        marker = decode_json((folder / MARKER).read_bytes(), _Marker)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidInputError(
            f"{folder / MARKER} is damaged: {error}",
            code="bad_grid",
            hint="restore it; or end this grid's processes by hand, and remove the folder",
        ) from None
    return make_layout(
        folder,
        nodes=marker.nodes,
        farms=marker.farms,
        preset=marker.preset,
        validators=marker.validators,
        subnet=marker.subnet,
    )


def write_marker(layout: GridLayout) -> None:
    """Write down what the layout follows from, before anything is made."""
    subnet = int(layout.host_ip.split(".")[2])
    validators = len(layout.validators) or 1
    marker = _Marker(len(layout.nodes), len(layout.farms), layout.preset, subnet, validators)
    write_file(layout.folder / MARKER, msgspec.json.encode(marker))


def claim_layout(folder: Path, *, nodes: int, farms: int, preset: str, validators: int) -> GridLayout:
    """Choose a subnet and take it by making the bridge; one grid of the machine at a time, or two take the same."""
    RUN_ROOT.mkdir(mode=0o711, exist_ok=True)
    with (RUN_ROOT / "grids.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        layout = _free_layout(folder, nodes=nodes, farms=farms, preset=preset, validators=validators)
        write_marker(layout)
        create_bridge(layout)
    return layout


def _free_layout(folder: Path, *, nodes: int, farms: int, preset: str, validators: int) -> GridLayout:
    """A layout whose subnet no other link of this machine uses."""
    make = partial(make_layout, folder, nodes=nodes, farms=farms, preset=preset, validators=validators)
    layout = make()
    taken = subprocess.run(["ip", "-o", "-4", "address"], capture_output=True, text=True, check=False).stdout
    start = int(layout.host_ip.split(".")[2])
    for step in range(256):
        subnet = (start + step) % 256
        if f" 100.96.{subnet}." not in taken:
            return make(subnet=subnet)
    raise FreeholdError("every subnet of 100.96.0.0/16 is in use", code="no_subnet")
