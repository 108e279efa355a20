"""Which grid a folder holds: its arguments in grid.json, and the machine's subnet that it claims."""

import fcntl
import subprocess
from functools import partial
from pathlib import Path

import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import FreeholdError, InvalidInputError
from freehold.grid.layout import GridLayout, make_layout
from freehold.grid.namespaces import create_bridge
from freehold.runtime.places import RUN_ROOT


class _Marker(msgspec.Struct, forbid_unknown_fields=True):
    """grid.json: the arguments from which the layout follows."""

    nodes: int
    farms: int
    preset: str
    subnet: int
    validators: int = 1


def load_layout(folder: Path) -> GridLayout | None:
    """The layout of the grid in a folder; None when there is none."""
    try:
        marker = decode_json((folder / "grid.json").read_bytes(), _Marker)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidInputError(
            f"{folder / 'grid.json'} is damaged: {error}", code="bad_grid", hint="`freehold grid down` removes the grid"
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
    (layout.folder / "grid.json").write_bytes(msgspec.json.encode(marker))


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
