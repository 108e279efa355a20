"""From blobs to a mounted EROFS file: the same digest twice, the same tree as umoci, kill -9, two builders at once."""

import asyncio
import contextlib
import ctypes
import hashlib
import os
import signal
import stat
import subprocess
from pathlib import Path

import image_kit as kit
import pytest

from freehold.base.errors import NotVerifiedError
from freehold.runtime.images.blobs import BlobError
from freehold.runtime.images.manifest import ImageError
from freehold.runtime.images.store import ImageStore, lock_build

pytestmark = pytest.mark.root


def good_image(**inner):
    lower = kit.tar(
        kit.folder("./"),
        kit.folder("etc"),
        kit.tar_entry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/app:/bin/false\n"),
        kit.tar_entry("etc/group", b"root:x:0:\napp:x:1001:\nlog:x:44:app,root\n"),
        kit.folder("usr"),
        kit.folder("usr/lib", mode=0o750, uid=7, gid=9),
        kit.symlink("lib", "usr/lib"),
        kit.tar_entry("usr/lib/a", b"a" * 70_000, mtime=1_234_567_890),
        kit.tar_entry("usr/lib/gone", b"gone"),
        kit.folder("var"),
        kit.folder("var/old"),
        kit.tar_entry("var/old/x", b"x"),
        kit.tar_entry("tosymlink", b"file"),
        kit.folder("todir"),
        kit.tar_entry("todir/x", b"x"),
        kit.tar_entry("bin-su", b"su", mode=0o4755),
        kit.hardlink("bin-su2", "bin-su"),
        kit.tar_entry("caseName", b"1"),
        kit.tar_entry("casename", b"2"),
    )
    upper = kit.tar(
        kit.tar_entry("usr/lib/.wh.gone"),
        kit.folder("var/old"),
        kit.tar_entry("var/old/.wh..wh..opq"),
        kit.tar_entry("var/old/new", b"new", uid=1000, gid=1000, mode=0o600),
        kit.symlink("tosymlink", "../../../etc/passwd"),
        kit.tar_entry("todir", b"now a file"),
        kit.tar_entry("lib/through-link", b"lands in usr/lib"),
        kit.tar_entry("name\nwith newline", b"n"),
        kit.tar_entry("ünï" + "ö" * 60, b"long"),
        kit.hardlink("usr/lib/a2", "usr/lib/a"),
        kit.folder("sticky", mode=0o1777),
    )
    return kit.HandMade(lower, upper, **inner)


@contextlib.contextmanager
def mounted(image: Path, at: Path):
    at.mkdir()
    subprocess.run(["mount", "-t", "erofs", "-o", "ro", image, at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def listing(root: Path):
    """Everything about a tree that a container could see."""
    rows = {}
    for path in sorted([root, *root.rglob("*")]):
        info = path.lstat()
        content = ""
        if path.is_symlink():
            content = str(path.readlink())
        elif stat.S_ISREG(info.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        links = 1 if stat.S_ISDIR(info.st_mode) else info.st_nlink
        rows[str(path.relative_to(root))] = (oct(info.st_mode), info.st_uid, info.st_gid, links, content)
    return rows


def test_same_input_gives_the_same_digest(tmp_path):
    digests = set()
    for name in ("one", "two"):
        store = ImageStore(tmp_path / name)
        built = store.build_sync(good_image().into(store.blobs))
        assert built.size_bytes == built.path.stat().st_size
        store.verify(built)
        digests.add(built.erofs_digest)
        assert store.build_sync(built.record.manifest_digest).erofs_digest == built.erofs_digest
        assert not any((store.folder / "work").iterdir())
    assert len(digests) == 1


def test_tree_is_the_one_umoci_unpacks(tmp_path):
    image = good_image()
    image.layout(tmp_path / "layout")
    subprocess.run(
        ["umoci", "unpack", "--image", f"{tmp_path / 'layout'}:app", tmp_path / "bundle"],
        check=True,
        capture_output=True,
    )
    store = ImageStore(tmp_path / "store")
    built = store.build_sync(image.into(store.blobs))
    with mounted(built.path, tmp_path / "mnt") as root:
        ours = listing(root)
        theirs = listing(tmp_path / "bundle" / "rootfs")
        assert ours == theirs
        assert (root / "usr/lib/a").stat().st_mtime == 1_234_567_890
        assert (root / "usr/lib/through-link").read_bytes() == b"lands in usr/lib"
    assert built.record.setid_files == 1


def test_user_is_resolved_in_the_image(tmp_path):
    store = ImageStore(tmp_path)
    built = store.build_sync(good_image(User="app").into(store.blobs))
    user = built.user()
    assert (user.uid, user.gid, user.groups, user.home) == (1000, 1001, (44,), "/app")
    assert built.user("0:44").gid == 44
    with pytest.raises(ImageError):
        built.user("nobody-here")


def test_two_builds_at_once_do_the_work_once(tmp_path):
    store = ImageStore(tmp_path)
    digest = good_image().into(store.blobs)

    async def both():
        return await asyncio.gather(store.build(digest), store.build(digest))

    first, second = asyncio.run(both())
    assert first == second


def test_killed_build_leaves_nothing_that_counts(tmp_path):
    store = ImageStore(tmp_path)
    big = kit.HandMade(kit.tar(*[kit.tar_entry(f"f{i}", os.urandom(200_000)) for i in range(100)]))
    digest = big.into(store.blobs)
    work = store.folder / "work" / digest[7:]
    process = subprocess.Popen(store._command(digest), stdout=subprocess.DEVNULL)
    while not (work / "spool").is_dir():
        assert process.poll() is None, "the build ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert store.built(digest) is None
    assert work.is_dir()
    ImageStore(tmp_path).sweep()
    assert not work.exists()
    built = store.build_sync(digest)
    store.verify(built)
    assert not any((store.folder / "work").iterdir())


def test_cancelled_build_is_killed(tmp_path):
    store = ImageStore(tmp_path)
    big = kit.HandMade(kit.tar(*[kit.tar_entry(f"f{i}", os.urandom(200_000)) for i in range(100)]))
    digest = big.into(store.blobs)

    async def cancel():
        task = asyncio.create_task(store.build(digest))
        while not (store.folder / "work" / digest[7:]).is_dir():  # noqa: ASYNC110 - made by another process
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    asyncio.run(cancel())
    assert store.built(digest) is None


def test_hostile_layer_is_told_by_the_worker(tmp_path):
    store = ImageStore(tmp_path)
    digest = kit.HandMade(kit.tar(kit.tar_entry("../../escape", b"x"))).into(store.blobs)
    with pytest.raises(ImageError) as caught:
        store.build_sync(digest)
    assert caught.value.code == "bad_path"
    assert not any((store.folder / "work").iterdir())


def test_missing_blobs_are_told(tmp_path):
    store = ImageStore(tmp_path)
    digest = good_image().into(store.blobs)
    store.blobs.delete(kit.digest_of(good_image().stored[0]))
    with pytest.raises(BlobError) as caught:
        store.build_sync(digest)
    assert caught.value.code == "no_such_blob"


def test_sweep_leaves_running_builds_alone(tmp_path):
    store = ImageStore(tmp_path)
    (store.folder / "work" / "00").mkdir()
    lock = lock_build(store.folder, "00", wait=True)
    store.sweep()
    assert (store.folder / "work" / "00").is_dir()
    os.close(lock)
    store.sweep()
    assert not (store.folder / "work" / "00").exists()


def test_other_bytes_in_the_image_file_are_noticed(tmp_path):
    store = ImageStore(tmp_path)
    built = store.build_sync(good_image().into(store.blobs))
    with built.path.open("r+b") as file:
        file.seek(2_000)
        file.write(b"!")
    with pytest.raises(NotVerifiedError):
        store.verify(built)


def test_damaged_record_is_built_again_and_collect_keeps_roots(tmp_path):
    store = ImageStore(tmp_path)
    first = good_image().into(store.blobs)
    second = kit.HandMade(kit.tar(kit.tar_entry("x", b"x"))).into(store.blobs)
    store.build_sync(first)
    store.build_sync(second)
    (store.built_folder(first) / "record").write_bytes(b"\xff")
    assert store.built(first) is None
    assert store.build_sync(first).config.stop_signal == "SIGTERM"
    assert set(store.images()) == {first, second}
    removed = store.collect([first])
    assert second in removed
    assert store.built(second) is None
    assert store.built(first) is not None


def test_full_disk_is_told_and_leaves_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", str(disk).encode(), b"tmpfs", 0, b"size=80m") == 0
    try:
        store = ImageStore(disk)
        store.blobs = type(store.blobs)(disk / "blobs", reserve_bytes=0)
        layers = [kit.tar(*[kit.tar_entry(f"f{n}{i}", bytes(1_000_000)) for i in range(60)]) for n in "ab"]
        digest = kit.HandMade(*layers).into(store.blobs)
        with pytest.raises(Exception) as caught:
            store.build_sync(digest)
        assert getattr(caught.value, "code", "") == "disk_full"
        assert not any((store.folder / "work").iterdir())
    finally:
        assert libc.umount2(str(disk).encode(), 2) == 0


def test_special_files(tmp_path):
    layer = kit.tar(
        kit.device("null"),
        kit.fifo("pipe"),
        kit.tar_entry("caps", b"", pax_headers={"SCHILY.xattr.security.capability": "x"}),
    )
    store = ImageStore(tmp_path / "store")
    built = store.build_sync(kit.HandMade(layer).into(store.blobs))
    with mounted(built.path, tmp_path / "mnt") as root:
        assert sorted(path.name for path in root.iterdir()) == ["caps", "pipe"]
        assert stat.S_ISFIFO((root / "pipe").lstat().st_mode)
        assert os.listxattr(root / "caps") == []
    assert (built.record.devices_dropped, built.record.xattrs_dropped) == (1, 1)
