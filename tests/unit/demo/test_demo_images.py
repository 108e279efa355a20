"""Layers of the demo's images, and (long) the images themselves, from Debian's packages to a mounted tree."""

import asyncio
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from freehold.base.errors import FreeholdError
from freehold.client.compose.checking import check_compose
from freehold.demo import images
from freehold.demo.image_layers import NEWEST_SECONDS, prune, write_layer
from freehold.runtime.images.importing import import_image
from freehold.runtime.images.store import ImageStore

EXAMPLE = Path(__file__).parents[3] / "examples" / "guestbook"


def small_root(root: Path) -> Path:
    for name in ("usr/bin", "usr/share/doc/x", "usr/share/man/man1", "usr/lib/any/gconv", "tmp/y"):
        (root / name).mkdir(parents=True)
    (root / "usr/bin/tool").write_text("tool")
    (root / "usr/bin/su").write_text("su")
    (root / "usr/bin/su").chmod(0o4755)
    (root / "usr/share/doc/x/copyright").write_text("licence")
    (root / "usr/share/doc/x/changelog.gz").write_text("long")
    (root / "usr/bin/alias").symlink_to("tool")
    os.link(root / "usr/bin/tool", root / "usr/bin/twin")
    return root


def test_prune_keeps_programs_and_licences(tmp_path):
    root = small_root(tmp_path / "root")
    prune(root, ["usr/bin/alias"])
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())
    assert files == ["usr/bin/tool", "usr/bin/twin", "usr/share/doc/x/copyright"]
    assert (root / "tmp").is_dir()


def test_layers_hold_only_what_is_new_and_are_the_same_twice(tmp_path):
    base = small_root(tmp_path / "base")
    full = tmp_path / "full"
    shutil.copytree(base, full, symlinks=True)
    (full / "usr/bin/tool").write_text("changed")
    (full / "app").mkdir()
    (full / "app/new").write_text("new")
    assert write_layer(full, tmp_path / "one.tar", [base]) == 5
    write_layer(full, tmp_path / "two.tar", [base])
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == ["app", "app/new", "usr", "usr/bin", "usr/bin/tool"]
    assert all(member.mtime <= NEWEST_SECONDS and not member.uname for member in members)
    (full / "usr/bin/alias").unlink()
    with pytest.raises(FreeholdError) as caught:
        write_layer(full, tmp_path / "three.tar", [base])
    assert caught.value.code == "not_a_superset"


def test_the_example_is_a_clean_compose_file():
    text = (EXAMPLE / "compose.yaml").read_text()
    result = check_compose(text)
    assert not result.problems
    assert all(name in text for name in images.DemoImages(Path("w"), Path("d")).names)


@pytest.mark.parametrize("fault", ["missing tool", "tool fails", "disk full", "no network"])
def test_a_failing_tool_is_told_and_nothing_stays(tmp_path, monkeypatch, fault):
    tools = tmp_path / "bin"
    tools.mkdir()
    words = {
        "tool fails": ("boom", "build_failed"),
        "disk full": ("cp: No space left on device", "disk_full"),
        "no network": ("E: Failed to fetch http://x  Could not resolve 'x'", "download_failed"),
    }
    text, code = words.get(fault, ("", "tool_missing"))
    script = tools / "tool"
    script.write_text(f"#!/bin/sh\necho '{text}'\nexit 3\n".replace("'x'", "x"))
    script.chmod(0o755)
    monkeypatch.setattr(images, "_ISOLATED", (str(tools / ("none" if fault == "missing tool" else "tool")),))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    cache = tmp_path / "cache"
    lines = []
    with pytest.raises(FreeholdError) as caught:
        asyncio.run(images.build_images(EXAMPLE, cache, lines.append))
    assert caught.value.code == code
    assert sorted(path.name for path in cache.iterdir()) == ["lock", "packages"]
    assert lines[0].startswith("base: Debian")


@pytest.mark.root
def test_a_cancelled_build_ends_its_tools(tmp_path, monkeypatch):
    marker = tmp_path / "started"
    pipeline = (
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--",
        "sh",
        "-c",
        f"echo $$ >{marker}; exec sleep 3{os.getpid()}",
    )
    monkeypatch.setattr(images, "_ISOLATED", ("setpriv", "--pdeathsig", "KILL", *pipeline))
    cache = tmp_path / "cache"

    async def cancel():
        task = asyncio.create_task(images.build_images(EXAMPLE, cache, lambda line: None))
        while not marker.exists():  # noqa: ASYNC110 - made by another process
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    asyncio.run(cancel())
    assert sorted(path.name for path in cache.iterdir()) == ["lock", "packages"]
    left = subprocess.run(["pgrep", "-f", f"^sleep 3{os.getpid()}$"], check=False, capture_output=True)
    assert not left.stdout


@pytest.mark.root
@pytest.mark.long
def test_real_images(tmp_path):
    """Needs apt's archive. Built twice from one set of packages, both give the same digests, and a real tree."""
    found = []
    for _ in range(2):
        built = asyncio.run(images.build_images(EXAMPLE, tmp_path / "cache", lambda line: None))
        store = ImageStore(tmp_path / f"store{len(found)}")
        digests = {}
        for name, layout in built.names.items():
            image = import_image(layout, store.blobs)
            assert len(image.manifest.layers) == 3
            erofs = store.build_sync(image.manifest_digest)
            assert erofs.size_bytes < 60 << 20
            assert erofs.record.setid_files == 0
            assert erofs.user().uid in (999, 1000)
            digests[name] = (image.manifest_digest, erofs.erofs_digest)
        found.append(digests)
        shutil.rmtree(built.web.parent)
    assert found[0] == found[1]
    assert found[0]["guestbook-web:1"] != found[0]["guestbook-db:1"]
