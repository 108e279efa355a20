"""Folders below file systems in memory: made with their mode, inside the tenant's tree whatever links it holds."""

import os
from pathlib import Path

from freehold.runtime.mountpoints import prepare_mountpoints
from freehold.runtime.spec import TmpfsMount, VolumeMount

MIB = 1 << 20


def prepare(rootfs: Path, path: str, mode: int, volumes: list[tuple[VolumeMount, Path]] | None = None) -> None:
    prepare_mountpoints([TmpfsMount(path=path, size_bytes=MIB, mode=mode)], volumes or [], rootfs, os.getuid())


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_missing_folders_are_made_and_present_ones_get_the_mode(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir(mode=0o755)
    prepare(tmp_path, "/tmp", 0o1777)
    prepare(tmp_path, "/var/cache/app", 0o700)
    assert mode_of(tmp_path / "tmp") == 0o1777
    assert mode_of(tmp_path / "var/cache/app") == 0o700
    assert mode_of(tmp_path / "var/cache") == 0o755


def test_links_never_lead_out_of_the_tree(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "etc").mkdir(parents=True)
    outside.mkdir(mode=0o755)
    (root / "absolute").symlink_to(outside)
    (root / "up").symlink_to("../outside")
    (root / "file").write_text("x")
    for path in ("/absolute", "/absolute/x", "/up", "/up/x", "/file", "/file/x"):
        prepare(root, path, 0o700)
    assert mode_of(outside) == 0o755
    assert list(outside.iterdir()) == []


def test_a_folder_below_a_volume_is_made_in_the_volume(tmp_path: Path) -> None:
    root, data = tmp_path / "root", tmp_path / "data"
    root.mkdir()
    data.mkdir()
    (data / "cache").mkdir(mode=0o755)
    volume = VolumeMount(name="v", path="/data", size_bytes=16 * MIB)
    prepare(root, "/data/cache", 0o750, [(volume, data)])
    prepare(root, "/database", 0o750, [(volume, data)])
    assert mode_of(data / "cache") == 0o750
    assert mode_of(root / "database") == 0o750
