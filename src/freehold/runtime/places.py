"""Where a node keeps what, all derived from its home: two nodes of one host never name the same thing."""

import hashlib
import os
from pathlib import Path
from typing import Final

from freehold.base.errors import check
from freehold.runtime.spec import is_container_id

RUN_ROOT: Final = Path("/run/freehold")


class Places:
    """Paths and names of one node.

    Args:
        home: the runtime's folder on disk.
        name: the node's name; part of the prefix.

    Attributes:
        prefix: eight hex digits that stand in every name on the host.
        home: on disk.
        run: in memory, gone after a reboot.
        cgroup: parent group of all containers.
        engine_root: state of the OCI runtime.
    """

    def __init__(self, home: Path, name: str) -> None:
        self.home = home.resolve()
        digest = hashlib.sha256(f"freehold:node-prefix:v1:{self.home}:{name}".encode()).hexdigest()
        self.prefix = digest[:8]
        self.run = RUN_ROOT / self.prefix
        self.cgroup = f"/freehold-{self.prefix}"
        self.engine_root = self.run / "engine"

    def make(self) -> None:
        """Make the folders; what is there stays."""
        for folder, mode in (
            (RUN_ROOT, 0o711),
            (self.run, 0o711),
            (self.run / "c", 0o711),
            (self.run / "images", 0o700),
            (self.run / "volumes", 0o700),
            (self.engine_root, 0o700),
            (self.home, 0o700),
            (self.home / "containers", 0o700),
            (self.home / "templates", 0o700),
            (self.home / "volumes", 0o700),
        ):
            folder.mkdir(parents=True, exist_ok=True, mode=mode)
            os.chmod(folder, mode)  # noqa: PTH101 - mkdir's mode passes through the umask

    def of(self, container: str) -> "ContainerPlaces":
        """The places of one container."""
        check(is_container_id(container), "container_id", id=container)
        return ContainerPlaces(self, container)

    def image_mount(self, image_path: str) -> Path:
        """Where an image is mounted once for all containers that use it."""
        return self.run / "images" / hashlib.sha256(f"freehold:image:v1:{image_path}".encode()).hexdigest()[:24]


class ContainerPlaces:
    """Paths of one container; see `freehold.runtime.records`."""

    def __init__(self, node: Places, container: str) -> None:
        self.home = node.home / "containers" / container
        self.run = node.run / "c" / container
        self.cgroup = f"{node.cgroup}/{container}"
        self.shim_cgroup = f"{node.cgroup}/shim-{container}"
        self.engine_state = node.engine_root / container
        self.record = self.home / "record.json"
        self.log = self.home / "log"
        self.scratch_file = self.home / "scratch.img"
        self.exit_dir = self.home / "exit"
        self.exit_file = self.exit_dir / container
        self.fenced = self.home / "fenced"
        self.bundle = self.run / "bundle"
        self.image = self.run / "image"
        self.scratch = self.run / "scratch"
        self.rootfs = self.run / "rootfs"

    def volume(self, number: int) -> Path:
        """Where the container's view of its n-th volume is mounted."""
        return self.run / f"vol-{number}"
