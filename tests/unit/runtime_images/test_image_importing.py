"""Imports: the three forms give checked blobs; damaged and hostile ones are refused and nothing is written outside."""

import gzip
import json
import os
import random
import shutil
import subprocess

import image_kit as kit
import pytest

from freehold.base.errors import FreeholdError
from freehold.runtime.images.blobs import BlobStore
from freehold.runtime.images.importing import import_image, load_image

PLAIN = kit.tar(kit.tar_entry("x", b"x" * 5_000), kit.folder("d"))
UPPER = kit.tar(kit.tar_entry("y", b"y"))
IMAGE = kit.HandMade(PLAIN, UPPER, Cmd=["/x"])


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "store")


def code_of(path, store, **arguments):
    with pytest.raises(FreeholdError) as caught:
        import_image(path, store, **arguments)
    return caught.value.code


def written(path, data):
    path.write_bytes(data)
    return path


def test_layout(tmp_path, store):
    image = import_image(IMAGE.layout(tmp_path / "layout"), store)
    assert image.manifest_digest == IMAGE.digest
    assert image.config.cmd == ("/x",)
    assert image.size_bytes == sum(len(blob) for blob in IMAGE.blobs)
    assert set(store.digests()) == {kit.digest_of(blob) for blob in IMAGE.blobs}
    assert load_image(store, IMAGE.digest) == image
    assert import_image(tmp_path / "layout", store, reference="app") == image
    assert code_of(tmp_path / "layout", store, reference="other") == "no_such_image"
    assert code_of(tmp_path / "layout", store, architecture="s390x") == "wrong_platform"


def test_oci_archive(tmp_path, store):
    path = written(tmp_path / "a.tar", IMAGE.oci_archive())
    assert import_image(path, store).manifest_digest == IMAGE.digest


def test_docker_archive_is_converted_alike_everywhere(tmp_path, store):
    plain = kit.HandMade(PLAIN, UPPER, zipped=False)
    first = import_image(written(tmp_path / "a.tar", plain.docker_archive()), store)
    second = import_image(
        written(tmp_path / "b.tar", plain.docker_archive(tags=("other:2",))),
        BlobStore(tmp_path / "2"),
        reference="other:2",
    )
    assert first == second
    assert [layer.digest for layer in first.manifest.layers] == list(first.config.diff_ids)
    document = json.loads(store.read(first.manifest_digest))
    assert store.read(first.manifest_digest) == json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def test_docker_archive_with_gzip_layers_and_links(tmp_path, store):
    image = import_image(written(tmp_path / "a.tar", IMAGE.docker_archive()), store)
    assert all(layer.media_type.endswith("gzip") for layer in image.manifest.layers)
    plain = kit.HandMade(PLAIN, PLAIN, zipped=False)
    listing = [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["0/layer.tar", "1/layer.tar"]}]
    shared = kit.tar(
        kit.tar_entry("manifest.json", json.dumps(listing).encode()),
        kit.tar_entry("c.json", plain.config),
        kit.tar_entry("0/layer.tar", PLAIN),
        kit.symlink("1/layer.tar", "../0/layer.tar"),
    )
    assert import_image(written(tmp_path / "b.tar", shared), store).manifest.layers[0].digest == kit.digest_of(PLAIN)


def test_archive_with_several_images(tmp_path, store):
    other = kit.HandMade(UPPER, zipped=False)
    listing = [
        {"Config": "a.json", "RepoTags": ["a:1"], "Layers": ["a.tar"]},
        {"Config": "b.json", "RepoTags": ["b:1"], "Layers": ["b.tar"]},
    ]
    both = kit.tar(
        kit.tar_entry("manifest.json", json.dumps(listing).encode()),
        kit.tar_entry("a.json", kit.HandMade(PLAIN, zipped=False).config),
        kit.tar_entry("b.json", other.config),
        kit.tar_entry("a.tar", PLAIN),
        kit.tar_entry("b.tar", UPPER),
    )
    path = written(tmp_path / "a.tar", both)
    assert code_of(path, store) == "ambiguous_image"
    assert code_of(path, store, reference="c:1") == "no_such_image"
    assert import_image(path, store, reference="b:1").config.diff_ids == (kit.digest_of(UPPER),)


def test_nested_index(tmp_path, store):
    layout = IMAGE.layout(tmp_path / "layout")
    inner = IMAGE.index()
    (layout / "blobs/sha256" / kit.digest_of(inner)[7:]).write_bytes(inner)
    outer = {"schemaVersion": 2, "manifests": [kit.descriptor(inner, "application/vnd.oci.image.index.v1+json")]}
    (layout / "index.json").write_text(json.dumps(outer))
    assert import_image(layout, store).manifest_digest == IMAGE.digest
    assert kit.digest_of(inner) not in store.digests()


def test_every_flipped_byte_of_an_archive_is_harmless(tmp_path):
    """A changed archive either gives the very same image or is refused."""
    archive = IMAGE.oci_archive()
    rng = random.Random(7)
    for number in range(60):
        data = bytearray(archive)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        store = BlobStore(tmp_path / str(number))
        try:
            image = import_image(written(tmp_path / "a.tar", data), store)
        except FreeholdError as error:
            assert error.code
        else:
            assert image.manifest_digest == IMAGE.digest
        shutil.rmtree(store.folder)


def test_damaged_layouts(tmp_path, store):
    def broken(name, change):
        layout = IMAGE.layout(tmp_path / name)
        change(layout)
        return code_of(layout, store)

    def blob(layout, number):
        return layout / "blobs/sha256" / kit.digest_of(IMAGE.blobs[number])[7:]

    assert broken("no marker", lambda layout: (layout / "oci-layout").unlink()) == "bad_image"
    assert broken("marker", lambda layout: (layout / "oci-layout").write_text("{}")) == "bad_image"
    assert broken("no index", lambda layout: (layout / "index.json").unlink()) == "bad_image"
    assert broken("no layer", lambda layout: blob(layout, 2).unlink()) == "bad_image"
    assert broken("short layer", lambda layout: blob(layout, 2).write_bytes(b"x")) == "incomplete"
    assert broken("long layer", lambda layout: blob(layout, 3).write_bytes(b"x" * 9_000)) == "digest_mismatch"
    assert broken("config", lambda layout: blob(layout, 1).write_bytes(b"{}")) == "digest_mismatch"
    assert broken("manifest", lambda layout: blob(layout, 0).write_bytes(b"{}")) == "digest_mismatch"
    assert broken("big index", lambda layout: (layout / "index.json").write_bytes(b" " * (2 << 20))) == "image_too_big"

    def linked(layout):
        target = blob(layout, 2)
        target.unlink()
        target.symlink_to("/etc/passwd")

    def piped(layout):
        (layout / "index.json").unlink()
        os.mkfifo(layout / "index.json")

    assert broken("link", linked) == "bad_image"
    assert broken("pipe", piped) == "bad_image"


def test_what_is_no_image(tmp_path, store):
    assert code_of(tmp_path / "none", store) == "no_such_file"
    assert code_of(tmp_path, store) == "bad_image"
    assert code_of(written(tmp_path / "text", b"hello" * 200), store) == "bad_layer"
    assert code_of(written(tmp_path / "empty", b""), store) == "bad_image"
    assert code_of(written(tmp_path / "z.tgz", gzip.compress(IMAGE.oci_archive())), store) == "compressed_archive"
    assert code_of(written(tmp_path / "t.tar", kit.tar(kit.tar_entry("x", b"x"))), store) == "bad_image"
    twice = kit.tar(kit.tar_entry("manifest.json", b"[]"), kit.tar_entry("./manifest.json", b"[]"))
    assert code_of(written(tmp_path / "twice.tar", twice), store) == "bad_image"
    cut = IMAGE.oci_archive()[:-12_000]
    assert code_of(written(tmp_path / "cut.tar", cut), store) in {"bad_image", "bad_layer"}


def test_hostile_docker_archives(tmp_path, store):
    def archive(layers, *entries, config=IMAGE.config):
        listing = [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": layers}]
        return written(
            tmp_path / "a.tar",
            kit.tar(
                kit.tar_entry("manifest.json", json.dumps(listing).encode()), kit.tar_entry("c.json", config), *entries
            ),
        )

    one = kit.HandMade(PLAIN, zipped=False).config
    assert code_of(archive(["../../../etc/passwd"], config=one), store) == "bad_path"
    assert code_of(archive(["l"], kit.symlink("l", "/etc/passwd"), config=one), store) == "bad_image"
    assert code_of(archive(["l"], kit.symlink("l", "l"), config=one), store) == "bad_image"
    assert code_of(archive(["l"], kit.tar_entry("l", UPPER), config=one), store) == "digest_mismatch"
    assert code_of(archive(["l"], kit.tar_entry("l", PLAIN)), store) == "bad_config"
    assert code_of(archive(["l"], config=one), store) == "bad_image"


@pytest.mark.root
def test_layout_made_by_umoci(tmp_path, store):
    layout = tmp_path / "layout"
    layer = written(tmp_path / "layer.tar", PLAIN)
    for arguments in (
        ["init", "--layout", layout],
        ["new", "--image", f"{layout}:v1"],
        ["raw", "add-layer", "--image", f"{layout}:v1", layer],
        ["config", "--image", f"{layout}:v1", "--config.cmd=/x", "--config.user=7:8"],
    ):
        subprocess.run(["umoci", *arguments], check=True, capture_output=True)
    image = import_image(layout, store, reference="v1")
    assert image.config.diff_ids == (kit.digest_of(PLAIN),)
    assert image.config.user == "7:8"
