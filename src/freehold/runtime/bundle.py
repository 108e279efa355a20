"""Build a container's file system, files and OCI bundle on the host, step by step, each found again after a crash.

Layers, from below: the image's EROFS file, mounted once per node; a view of it with the tenant's ids; an ext4 file of
the scratch size with the overlay's upper folder, owned by the tenant's root; the overlay. The bundle lies in memory:
environment and secrets never touch the disk, and after a reboot the agent makes the container again from its spec.
"""

import os
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from freehold.base.errors import InvalidInputError
from freehold.base.limits import MIB
from freehold.runtime import cgroups, kernel, mounts
from freehold.runtime.atomic import save_json
from freehold.runtime.engine import Engine
from freehold.runtime.idranges import IdRanges
from freehold.runtime.mountpoints import prepare_mountpoints
from freehold.runtime.network import Networks
from freehold.runtime.places import ContainerPlaces, Places
from freehold.runtime.records import Record
from freehold.runtime.spec import (
    RLIMITS,
    ContainerSpec,
    Identity,
    Paths,
    build_config,
    hosts_file,
    memory_mounts,
    resolv_file,
)
from freehold.runtime.users import resolve_user
from freehold.runtime.volumes import VolumeStore

_BUNDLE_BYTES: Final = 2 * MIB
_RUN_BYTES: Final = 32 * MIB


class Timings(dict[str, float]):
    """Seconds that each step took, by name."""

    def measure(self, name: str, work: Callable[[], object]) -> None:
        """Run one step and keep how long it took."""
        start = time.perf_counter()
        work()
        self[name] = time.perf_counter() - start


class BundleBuilder:
    """Makes what a container needs before its first process can be created."""

    def __init__(self, places: Places, engine: Engine, ids: IdRanges, volumes: VolumeStore, networks: Networks) -> None:
        self._places = places
        self._engine = engine
        self._ids = ids
        self._volumes = volumes
        self._networks = networks
        self._sharing = threading.Lock()

    def build(self, spec: ContainerSpec, base_id: int, timings: Timings) -> None:
        """Make file system, network and configuration of a container.

        Raises:
            FreeholdError: no space, no address, an image that does not mount, a user it does not know.
        """
        places = self._places.of(spec.id)
        places.run.mkdir(mode=0o710)
        os.chown(places.run, 0, base_id)  # the container's root may pass through, other users of the host may not
        timings.measure("image", lambda: self._mount_image(spec, places, base_id))
        timings.measure("scratch", lambda: self._mount_scratch(spec, places, base_id))
        timings.measure("overlay", lambda: self._mount_root(places))
        timings.measure("volumes", lambda: self._mount_volumes(spec, places, base_id))
        timings.measure("bundle", lambda: self._write_bundle(spec, places, base_id))

    def _mount_image(self, spec: ContainerSpec, places: ContainerPlaces, base_id: int) -> None:
        places.image.mkdir(mode=0o700)
        with self._sharing:
            shared = self._shared_image(spec.image_path)
            mounts.mount_idmapped(shared, places.image, self._ids.userns(base_id))

    def _shared_image(self, image_path: str) -> Path:
        """Mount an image for all containers of the node that use it, so that its pages are cached once."""
        if not Path(image_path).is_file():
            raise InvalidInputError(f"no image at {image_path}", code="no_image", hint="import the image first")
        shared = self._places.image_mount(image_path)
        shared.mkdir(exist_ok=True, mode=0o700)
        if not mounts.is_mounted(shared):
            mounts.mount_erofs(Path(image_path), shared)
        return shared

    def _mount_scratch(self, spec: ContainerSpec, places: ContainerPlaces, base_id: int) -> None:
        templates = self._places.home / "templates"
        size = 4 * MIB if spec.read_only_root else spec.scratch_bytes
        mounts.copy_ext4(templates, places.scratch_file, size)
        places.scratch.mkdir(mode=0o700)
        mounts.mount_ext4(places.scratch_file, places.scratch)
        for name in ("upper", "work"):
            folder = places.scratch / name
            folder.mkdir(mode=0o755)
            os.chown(folder, base_id, base_id)

    @staticmethod
    def _mount_root(places: ContainerPlaces) -> None:
        places.rootfs.mkdir(mode=0o755)
        mounts.mount_overlay(places.image, places.scratch / "upper", places.scratch / "work", places.rootfs)

    def _mount_volumes(self, spec: ContainerSpec, places: ContainerPlaces, base_id: int) -> None:
        found = []
        for number, volume in enumerate(spec.volumes):
            view = places.volume(number)
            view.mkdir(mode=0o755)
            with self._sharing:
                data = self._volumes.prepare(volume, self._places.image_mount(spec.image_path))
                mounts.mount_idmapped(data, view, self._ids.userns(base_id))
            found.append((volume, data))
        prepare_mountpoints(memory_mounts(spec), found, places.rootfs, base_id)

    def _write_bundle(self, spec: ContainerSpec, places: ContainerPlaces, base_id: int) -> None:
        identity: Identity = resolve_user(self._places.image_mount(spec.image_path), spec.user)
        secret_bytes = sum(len(data) for _, data in spec.secrets)
        places.bundle.mkdir(mode=0o700)
        mounts.mount_tmpfs(places.bundle, _BUNDLE_BYTES + 2 * secret_bytes + 4_096 * len(spec.secrets), 0o710)
        os.chown(places.bundle, 0, base_id)
        files = places.bundle / "files"
        files.mkdir(mode=0o755)
        for name, text in (
            ("hosts", hosts_file(spec)),
            ("hostname", spec.hostname + "\n"),
            ("resolv.conf", resolv_file(spec)),
        ):
            (files / name).write_text(text)
            (files / name).chmod(0o644)
        secrets = places.bundle / "secrets"
        secrets.mkdir(mode=0o755)
        for name, data in spec.secrets:
            (secrets / name).write_bytes(data)
            (secrets / name).chmod(0o444)
        config = build_config(
            spec,
            base_id=base_id,
            identity=identity,
            paths=Paths(
                rootfs=str(places.rootfs),
                bundle=str(places.bundle),
                volumes=tuple(str(places.volume(number)) for number in range(len(spec.volumes))),
            ),
            cgroup=places.cgroup,
            seccomp=self._engine.seccomp,
            counts_swap=cgroups.counts_swap(),
            rlimits={kind: _within_own(kind, value) for kind, value in RLIMITS.items()},
        )
        save_json(places.bundle / "config.json", config)

    def take_down(self, container: str) -> None:
        """Remove network, mounts and files of a container whose processes are gone; idempotent."""
        places = self._places.of(container)
        self._networks.detach(container)
        mounts.unmount_tree(places.run)
        for folder in (places.run, places.home):
            remove_tree(folder)

    def release(self, records: Callable[[], list[Record]]) -> None:
        """Unmount images and volumes that no container uses; a container's record is there before its mounts."""
        with self._sharing:
            known = records()
            self._volumes.release({name for record in known for name in record.volumes})
            keep = {self._places.image_mount(record.image_path) for record in known}
            for folder in (self._places.run / "images").iterdir():
                if folder not in keep:
                    mounts.unmount_tree(folder)
                    folder.rmdir()


def _within_own(kind: str, value: int) -> int:
    hard = resource.getrlimit(getattr(resource, kind))[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def remove_tree(folder: Path) -> None:
    """Remove a folder of our own files; refuses to look into anything that is still mounted below it."""
    if not folder.exists():
        return
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            if not os.path.ismount(entry):
                remove_tree(entry)
        else:
            entry.unlink(missing_ok=True)
    folder.rmdir()


def mount_run_folder(path: Path) -> None:
    """Make a node's run folder a small file system in memory of its own, kept out of other mount namespaces."""
    path.mkdir(parents=True, exist_ok=True, mode=0o711)
    if not mounts.is_mounted(path):
        mounts.mount_tmpfs(path, _RUN_BYTES, 0o711)
    kernel.mount("none", path, "none", kernel.MS_PRIVATE)
