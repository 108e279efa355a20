"""Random images, merged by us and unpacked by umoci: where both accept, both give the same tree."""

import io
import random
import shutil
import subprocess
from pathlib import Path

import image_kit as kit
import pytest

from freehold.runtime.images.flatten import Layer, Notes, merge_layers, write_tree
from freehold.runtime.images.manifest import ImageError
from freehold.runtime.images.tarstream import TarReader

FOLDERS, FILES = ("a", "b", "c"), ("x", "y", "z")


def random_layer(rng, number, files):
    """Entries that mostly fit together; `files` are names that earlier entries gave to files."""

    def path(last=FOLDERS):
        return "/".join([*(rng.choice(FOLDERS) for _ in range(rng.randint(0, 2))), rng.choice(last)])

    entries = []
    for step in range(rng.randint(1, 10)):
        kind = rng.choices(("file", "folder", "symlink", "hardlink", "whiteout", "opaque"), (5, 5, 2, 2, 3, 1))[0]
        mixed = FOLDERS + FILES if rng.random() < 0.2 else FILES
        name = path(FOLDERS if kind == "folder" else FOLDERS + FILES if kind in ("whiteout", "symlink") else mixed)
        parent, _, last = name.rpartition("/")
        inside = f"{parent}/" if parent else ""
        owner = {"uid": rng.randint(0, 3), "gid": rng.randint(0, 3)}
        if kind == "file":
            mode = rng.choice((0o644, 0o4755, 0o600))
            entries.append(kit.tar_entry(name, f"{number}.{step}".encode(), mode=mode, **owner))
            files.append(name)
        elif kind == "folder":
            entries.append(kit.folder(name, mode=rng.choice((0o755, 0o1777, 0o700)), **owner))
        elif kind == "symlink":
            entries.append(kit.symlink(name, rng.choice((path(), "/" + path(), "../" + path())), mode=0o777, **owner))
        elif kind == "hardlink" and files:
            entries.append(kit.hardlink(name, rng.choice(files), **owner))
        elif kind == "whiteout" and number:
            entries.append(kit.tar_entry(f"{inside}.wh.{last}"))
        elif kind == "opaque" and number:
            entries.append(kit.tar_entry(f"{inside}.wh..wh..opq"))
    return kit.tar(*entries)


def rows(root: Path):
    found = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        is_folder = path.is_dir() and not path.is_symlink()
        text = str(path.readlink()) if path.is_symlink() else "" if is_folder else path.read_text()
        links = 1 if is_folder else info.st_nlink
        found[str(path.relative_to(root))] = (oct(info.st_mode), info.st_uid, info.st_gid, links, text)
    return found


def compare(seed, folder: Path):
    """Whether both accepted the image of that seed; fails when their trees differ."""
    rng = random.Random(seed)
    files = []
    layers = [random_layer(rng, number, files) for number in range(rng.randint(1, 3))]
    image = kit.HandMade(*layers, zipped=False)
    for name in ("spool", "ours"):
        (folder / name).mkdir(parents=True)
    sources = [Layer(io.BytesIO(layer), len(layer), False, kit.digest_of(layer)) for layer in layers]
    try:
        write_tree(merge_layers(sources, folder / "spool", Notes()), folder / "spool", folder / "ours", Notes())
    except ImageError:
        return False
    shutil.rmtree(folder / "spool")
    image.layout(folder / "layout")
    command = ["umoci", "unpack", "--image", f"{folder / 'layout'}:app", folder / "bundle"]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        return False
    ours, theirs = rows(folder / "ours"), rows(folder / "bundle" / "rootfs")
    story = [[(e.name, e.kind.value, e.link) for e in TarReader(io.BytesIO(x), max_entries=99)] for x in layers]
    assert ours == theirs, f"seed {seed}: {story}"
    return True


@pytest.mark.root
@pytest.mark.parametrize("seed", range(4))
def test_same_as_umoci(tmp_path, seed):
    compare(seed, tmp_path)


@pytest.mark.root
@pytest.mark.long
def test_same_as_umoci_on_many(tmp_path):
    both = sum(compare(seed, tmp_path / str(seed)) for seed in range(500))
    assert both >= 100, "too few random images are accepted by both to mean anything"
