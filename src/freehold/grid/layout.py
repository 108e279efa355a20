"""The layout of a local grid: names, places, addresses, folders. Everything follows from home, counts and preset."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from freehold.base.errors import InvalidInputError
from freehold.base.presets import PRESETS

LEDGER_PORT = 4600
NODE_PORT = 4700
MAX_NODES = 64
MAX_FARMS = 16
PEER_PORT = 26656
MAX_VALIDATORS = 7  # each needs memory and time of the one machine; a network of them is no local grid
FIRST_VALIDATOR_IP = 201

# Farms of a local grid lie in four places in turn, so that plans can prefer one.
PLACES = (("BE", "Ghent"), ("AT", "Vienna"), ("PT", "Porto"), ("CZ", "Brno"))
FARM_NAMES = ("ghent", "vienna", "porto", "brno")


@dataclass(frozen=True)
class FarmLayout:
    """A farm: its name, place and its owner's home."""

    name: str
    country: str
    city: str
    home: Path


@dataclass(frozen=True)
class NodeLayout:
    """A node: its name, farm, home, namespace and address."""

    name: str
    farm: FarmLayout
    home: Path
    namespace: str
    link: str  # the host's end of its cable; interface names have at most 15 characters
    ip: str

    @property
    def listen(self) -> str:
        """Where its agent listens."""
        return f"{self.ip}:{NODE_PORT}"


@dataclass(frozen=True)
class ValidatorLayout:
    """A validator on CometBFT: its name, home, namespace and address."""

    name: str
    home: Path
    namespace: str
    link: str
    ip: str

    @property
    def url(self) -> str:
        """Its RPC."""
        return f"http://{self.ip}:{LEDGER_PORT}"

    @property
    def peer(self) -> str:
        """Where its engine listens to others."""
        return f"{self.ip}:{PEER_PORT}"


Place = NodeLayout | ValidatorLayout


@dataclass(frozen=True)
class GridLayout:
    """A local grid; `tag` keeps names of several grids on one machine apart.

    `validators` is empty where the embedded ledger runs, which has one of its own on the host.
    """

    folder: Path
    tag: str
    preset: str
    bridge: str
    host_ip: str
    network: str
    farms: tuple[FarmLayout, ...]
    nodes: tuple[NodeLayout, ...]
    validators: tuple[ValidatorLayout, ...] = ()

    @property
    def ledger_home(self) -> Path:
        """The embedded ledger's home."""
        return self.folder / "ledger"

    @property
    def ledger_homes(self) -> tuple[Path, ...]:
        """Homes of all daemons that serve the ledger."""
        return tuple(validator.home for validator in self.validators) or (self.ledger_home,)

    @property
    def places(self) -> tuple[Place, ...]:
        """All that has a namespace of its own."""
        return (*self.nodes, *self.validators)

    @property
    def urls(self) -> tuple[str, ...]:
        """Each RPC of the ledger as nodes reach it."""
        return tuple(validator.url for validator in self.validators) or (f"http://{self.host_ip}:{LEDGER_PORT}",)

    @property
    def url(self) -> str:
        """The ledger's RPC servers as settings name them."""
        return ",".join(self.urls)

    def url_for(self, index: int) -> str:
        """The same servers, beginning with another one for each index, so that readers spread over them."""
        first = index % len(self.urls)
        return ",".join((*self.urls[first:], *self.urls[:first]))

    @property
    def genesis_path(self) -> Path:
        """The genesis document, as everybody gets a copy of it."""
        return self.folder / "genesis.json"


def make_layout(
    folder: Path, *, nodes: int, farms: int, preset: str, validators: int = 1, subnet: int | None = None
) -> GridLayout:
    """Lay out a grid.

    Args:
        folder: where it lives; its path decides the names of namespaces and, by default, the subnet.
        nodes: 1 to 64, dealt to the farms in turn.
        farms: 1 to 16, at most as many as nodes.
        preset: name of the preset.
        validators: 1 is the embedded ledger's own; 2 to 7 run CometBFT.
        subnet: third byte of the grid's 100.96.x.0/24; from the path's hash when left out.

    Raises:
        InvalidInputError: a count or the preset is out of range.
    """
    if preset not in PRESETS:
        raise InvalidInputError(f"preset {preset!r} is not one of {', '.join(PRESETS)}", code="bad_preset")
    if not 1 <= nodes <= MAX_NODES or not 1 <= farms <= min(MAX_FARMS, nodes):
        raise InvalidInputError(
            f"{nodes} nodes on {farms} farms: 1 to {MAX_NODES} nodes, and 1 to {MAX_FARMS} farms, no more than nodes",
            code="bad_count",
        )
    if not 1 <= validators <= MAX_VALIDATORS:
        raise InvalidInputError(
            f"{validators} validators: 1 (the embedded ledger) to {MAX_VALIDATORS} fit one machine", code="bad_count"
        )
    digest = hashlib.sha256(str(folder.resolve()).encode()).digest()
    tag = digest.hex()[:4]
    third = digest[2] if subnet is None else subnet
    prefix = f"100.96.{third}"
    farm_rows = []
    for index in range(farms):
        country, city = PLACES[index % len(PLACES)]
        name = FARM_NAMES[index] if index < len(FARM_NAMES) else f"{FARM_NAMES[index % 4]}{index // 4 + 1}"
        farm_rows.append(FarmLayout(name, country, city, folder / "farms" / name))
    node_rows = []
    for index in range(nodes):
        farm = farm_rows[index % farms]
        name = f"{farm.name}-{index // farms + 1}"
        node_rows.append(
            NodeLayout(
                name,
                farm,
                folder / "nodes" / name,
                f"fh{tag}-{name}",
                f"fh{tag}v{index + 1}",
                f"{prefix}.{index + 11}",
            )
        )
    validator_rows = [
        ValidatorLayout(
            f"validator-{index + 1}",
            folder / "validators" / f"validator-{index + 1}",
            f"fh{tag}-validator-{index + 1}",
            f"fh{tag}l{index + 1}",
            f"{prefix}.{index + FIRST_VALIDATOR_IP}",
        )
        for index in range(validators if validators > 1 else 0)
    ]
    return GridLayout(
        folder,
        tag,
        preset,
        f"fh{tag}br",
        f"{prefix}.1",
        f"{prefix}.0/24",
        tuple(farm_rows),
        tuple(node_rows),
        tuple(validator_rows),
    )
