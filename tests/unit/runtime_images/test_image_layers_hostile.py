"""A corpus of hostile layers: each is refused by name, or harmless; nothing is ever made outside."""

import gzip
import io
import os
import tarfile

import image_kit as kit
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.runtime.images import flatten, tree
from freehold.runtime.images.flatten import Layer, Notes, merge_layers, read_small, write_tree
from freehold.runtime.images.manifest import ImageError
from freehold.runtime.images.tarstream import Kind, TarReader

ROOT = kit.folder("./")


def merged(tmp_path, *layers, zipped=False):
    spool = tmp_path / "spool"
    spool.mkdir()
    notes = Notes()
    sources = []
    for plain in layers:
        stored = gzip.compress(plain, 1) if zipped else plain
        sources.append(Layer(io.BytesIO(stored), len(stored), zipped, kit.digest_of(plain)))
    return merge_layers(sources, spool, notes), spool, notes


def names(result):
    return [path.decode() for path, _ in result[0].walk() if path]


def content(result, path):
    found, spool, _ = result
    return read_small(found, spool, path, 1 << 20)


def code_of(tmp_path, *layers):
    with pytest.raises(ImageError) as caught:
        merged(tmp_path, *layers)
    return caught.value.code


REFUSED = {
    "absolute path": (kit.tar(kit.tar_entry("/etc/x", b"x")), "bad_path"),
    "climbing path": (kit.tar(kit.tar_entry("a/../../x", b"x")), "bad_path"),
    "climbing folder": (kit.tar(kit.folder("..")), "bad_path"),
    "root is a file": (kit.tar(kit.tar_entry(".", b"x")), "bad_layer"),
    "long name": (kit.tar(kit.tar_entry("n" * 256, b"x")), "bad_path"),
    "long path": (kit.tar(kit.tar_entry("n/" * 2_100 + "x", b"x")), "bad_path"),
    "deep path": (kit.tar(kit.tar_entry("n/" * 140 + "x", b"x")), "bad_path"),
    "hard link outside": (kit.tar(kit.hardlink("x", "../../etc/passwd")), "bad_path"),
    "hard link to an absolute path": (kit.tar(kit.hardlink("x", "/etc/passwd")), "bad_path"),
    "hard link to nothing": (kit.tar(kit.hardlink("x", "y")), "bad_layer"),
    "hard link to a folder": (kit.tar(kit.folder("y"), kit.hardlink("x", "y")), "bad_layer"),
    "hard link to the root": (kit.tar(kit.hardlink("x", "./")), "bad_layer"),
    "hard link through an outside link": (
        kit.tar(kit.symlink("out", "/etc"), kit.hardlink("x", "out/passwd")),
        "bad_layer",
    ),
    "file used as a folder": (kit.tar(kit.tar_entry("f", b"x"), kit.tar_entry("f/x", b"x")), "bad_layer"),
    "loop of links": (kit.tar(kit.symlink("a", "b"), kit.symlink("b", "a"), kit.tar_entry("a/x")), "bad_path"),
    "whiteout of the root": (kit.tar(kit.tar_entry(".wh..")), "bad_layer"),
    "whiteout of the parent": (kit.tar(kit.folder("d"), kit.tar_entry("d/.wh...")), "bad_layer"),
    "whiteout of nothing": (kit.tar(kit.tar_entry(".wh.")), "bad_layer"),
    "whiteout of a whiteout": (kit.tar(kit.tar_entry(".wh..wh.x")), "bad_layer"),
    "whiteout with data": (kit.tar(kit.tar_entry(".wh.x", b"data")), "bad_layer"),
    "whiteout as a folder": (kit.tar(kit.folder(".wh.x"), kit.tar_entry(".wh.x/y")), "bad_layer"),
    "owner out of range": (kit.tar(kit.tar_entry("x", uid=65_536)), "bad_layer"),
    "group out of range": (kit.tar(kit.tar_entry("x", gid=1 << 40)), "bad_layer"),
    "old sparse file": (kit.raw_header(flag=b"S") + kit.END, "bad_layer"),
    "pax sparse file": (kit.pax_header((b"GNU.sparse.major", b"1")) + kit.raw_header() + kit.END, "bad_layer"),
    "unknown type": (kit.raw_header(flag=b"V") + kit.END, "bad_layer"),
    "link with data": (kit.raw_header(flag=b"2", link=b"y", size=b"00000000010\0") + kit.END, "bad_layer"),
    "folder with data": (kit.raw_header(flag=b"5", size=b"00000000010\0") + kit.END, "bad_layer"),
    "negative size": (kit.raw_header(size=b"\xff" * 12) + kit.END, "bad_layer"),
    "huge size": (kit.raw_header(size=b"\x80" + b"\x7f" * 11) + kit.END, "image_too_big"),
    "size that is no number": (kit.raw_header(size=b"+0000000001\0") + kit.END, "bad_layer"),
    "wrong checksum": (b"y" + kit.raw_header()[1:] + kit.END, "bad_layer"),
    "cut in a header": (kit.raw_header()[:300], "bad_layer"),
    "cut in a file": (kit.raw_header(size=b"00000002000\0") + b"x", "bad_layer"),
    "cut in the padding": (kit.raw_header(size=b"00000000001\0") + b"x", "bad_layer"),
    "no name": (kit.raw_header(name=b"") + kit.END, "bad_path"),
    "link without target": (kit.raw_header(flag=b"2") + kit.END, "bad_path"),
    "NUL in a pax name": (kit.pax_header((b"path", b"a\0b")) + kit.raw_header() + kit.END, "bad_path"),
    "NUL in a pax target": (kit.pax_header((b"linkpath", b"a\0b")) + kit.raw_header(flag=b"2") + kit.END, "bad_path"),
    "climbing pax name": (kit.pax_header((b"path", b"../x")) + kit.raw_header() + kit.END, "bad_path"),
    "negative pax size": (kit.pax_header((b"size", b"-1")) + kit.raw_header() + kit.END, "bad_layer"),
    "pax header of a GiB": (kit.raw_header(b"p", b"x", b"10000000000\0") + kit.END, "image_too_big"),
    "long name of a GiB": (kit.raw_header(b"p", b"L", b"10000000000\0") + kit.END, "image_too_big"),
    "damaged pax": (kit.raw_header(b"p", b"x", b"00000000005\0") + kit.padded(b"99 x=") + kit.END, "bad_layer"),
    "pax record of no length": (
        kit.raw_header(b"p", b"x", b"00000000004\0") + kit.padded(b"0 =\n") + kit.END,
        "bad_layer",
    ),
    "pax header alone": (kit.pax_header((b"path", b"x")) + kit.END, "bad_layer"),
    "global header with a name": (kit.pax_header((b"path", b"x"), flag=b"g") + kit.raw_header() + kit.END, "bad_layer"),
    "chain of headers": (kit.pax_header((b"path", b"x")) * 6 + kit.raw_header() + kit.END, "bad_layer"),
    "not a tar": (b"hello" * 1_000, "bad_layer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, name):
    layer, code = REFUSED[name]
    assert code_of(tmp_path, layer) == code


def test_links_lead_nowhere_outside(tmp_path):
    layer = kit.tar(
        kit.symlink("out", "/tmp"),
        kit.symlink("up", "../../../../../../tmp"),
        kit.tar_entry("out/one", b"1"),
        kit.tar_entry("up/two", b"2"),
        kit.symlink("etc", "/etc"),
    )
    result = merged(tmp_path, layer)
    assert names(result) == ["etc", "out", "tmp", "tmp/one", "tmp/two", "up"]
    assert content(result, b"etc/passwd") == b""
    assert content(result, b"out/one") == b"1"


def test_whiteouts_act_on_lower_layers_only(tmp_path):
    lower = kit.tar(kit.folder("d"), kit.tar_entry("d/old", b"1"), kit.tar_entry("gone", b"1"), kit.tar_entry("keep"))
    upper = kit.tar(
        kit.tar_entry("d/new", b"2"),
        kit.tar_entry("d/.wh..wh..opq"),
        kit.tar_entry("gone", b"new one"),
        kit.tar_entry(".wh.gone"),
        kit.tar_entry(".wh.never"),
        kit.tar_entry("nowhere/.wh.x"),
    )
    result = merged(tmp_path, lower, upper)
    assert names(result) == ["d", "d/new", "gone", "keep"]
    assert content(result, b"gone") == b"new one"


def test_whiteout_of_a_folder_keeps_what_this_layer_put_there(tmp_path):
    lower = kit.tar(kit.folder("d"), kit.folder("d/e"), kit.tar_entry("d/e/old"), kit.tar_entry("d/x"))
    upper = kit.tar(kit.tar_entry("d/e/new"), kit.tar_entry(".wh.d"))
    assert names(merged(tmp_path, lower, upper)) == ["d", "d/e", "d/e/new"]


def test_replacements(tmp_path):
    lower = kit.tar(
        kit.folder("usr"),
        kit.symlink("lib", "usr"),
        kit.folder("dir"),
        kit.tar_entry("dir/x"),
        kit.tar_entry("file", b"1"),
        kit.device("dev"),
    )
    upper = kit.tar(
        kit.folder("lib"),
        kit.tar_entry("lib/x", b"in lib"),
        kit.tar_entry("dir", b"file now"),
        kit.folder("file"),
        kit.tar_entry("dev", b"plain"),
    )
    result = merged(tmp_path, lower, upper)
    assert names(result) == ["dev", "dir", "file", "lib", "lib/x", "usr"]
    assert content(result, b"dir") == b"file now"
    assert content(result, b"dev") == b"plain"


def test_duplicates_hard_links_and_case(tmp_path):
    layer = kit.tar(
        kit.tar_entry("x", b"first"),
        kit.hardlink("y", "x"),
        kit.tar_entry("x", b"second"),
        kit.tar_entry("X", b"other"),
        kit.hardlink("y", "y"),
    )
    result = merged(tmp_path, layer)
    assert (content(result, b"x"), content(result, b"y"), content(result, b"X")) == (b"second", b"first", b"other")


def test_gnu_long_names_old_folders_and_odd_names(tmp_path):
    long = "/".join(["part" * 10] * 6)
    layer = kit.tar(kit.tar_entry(long, b"1"), kit.symlink("link", "t" * 200), form=tarfile.GNU_FORMAT)
    old_folder = kit.raw_header(b"old/", b"\0", magic=b"\0" * 8)
    result = merged(tmp_path, layer, old_folder + kit.raw_header(b"a\nb\xff\x01") + kit.END)
    kinds = {path: node.kind for path, node in result[0].walk()}
    assert kinds[b"old"] is Kind.DIRECTORY
    assert kinds[b"a\nb\xff\x01"] is Kind.FILE
    assert kinds[long.encode()] is Kind.FILE


def test_times_are_whole_and_bounded():
    def mtime(*records, field=b"00000000000\0"):
        block = bytearray(kit.raw_header())
        block[136:148] = field
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        data = (kit.pax_header(*records) if records else b"") + bytes(block) + kit.END
        return next(iter(TarReader(io.BytesIO(data), max_entries=2))).mtime

    assert mtime((b"mtime", b"12.75")) == 12
    assert mtime((b"mtime", b"-12.75")) == 0
    assert mtime((b"mtime", b"99999999999999")) == (1 << 32) - 1
    assert mtime(field=b"\xff" * 12) == 0
    assert mtime(field=b"\x80" + b"\x01" * 11) == (1 << 32) - 1


def test_counts_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "MAX_NODES", 50)
    (tmp_path / "1").mkdir()
    assert code_of(tmp_path / "1", kit.tar(kit.tar_entry("a/" * 60 + "x"))) == "image_too_big"
    monkeypatch.setattr(flatten, "MAX_NODES", 10)
    (tmp_path / "2").mkdir()
    assert code_of(tmp_path / "2", kit.tar(*[kit.folder("d")] * 11)) == "image_too_big"
    monkeypatch.setattr(tree, "MAX_HARDLINKS", 3)
    (tmp_path / "3").mkdir()
    links = [kit.hardlink(f"l{n}", "x") for n in range(5)]
    assert code_of(tmp_path / "3", kit.tar(kit.tar_entry("x"), *links)) == "image_too_big"


def test_work_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "MAX_STEPS", 1_000)
    layer = kit.tar(kit.symlink("a", "./" * 1_000 + "b"), kit.folder("b"), kit.tar_entry("a/x"))
    assert code_of(tmp_path, layer) == "image_too_big"


def test_repeated_opaque_whiteouts_cost_little(tmp_path):
    files = [kit.tar_entry(f"d/{n}") for n in range(1_000)]
    opaque = [kit.tar_entry("d/.wh..wh..opq")] * 1_000
    result = merged(tmp_path, kit.tar(kit.folder("d")), kit.tar(*files, *opaque))
    assert len(names(result)) == 1_001


def test_names_take_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "MAX_METADATA_BYTES", 10_000)
    layer = kit.tar(*[kit.symlink(f"l{n}", "t" * 4_000) for n in range(3)])
    assert code_of(tmp_path, layer) == "image_too_big"


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(flatten, "BOMB_FLOOR_BYTES", 1 << 20)
    bomb = kit.tar(kit.tar_entry("zeros", bytes(8 << 20)))
    (tmp_path / "1").mkdir()
    with pytest.raises(ImageError) as caught:
        merged(tmp_path / "1", bomb, zipped=True)
    assert caught.value.code == "compression_bomb"
    monkeypatch.setattr(flatten, "MAX_IMAGE_BYTES", 4 << 20)
    (tmp_path / "2").mkdir()
    with pytest.raises(ImageError) as caught:
        merged(tmp_path / "2", kit.tar(kit.tar_entry("a", bytes(3 << 20))), kit.tar(kit.tar_entry("b", bytes(3 << 20))))
    assert caught.value.code == "image_too_big"


def test_bytes_after_the_end_count_and_hold_no_entries(tmp_path):
    good = kit.tar(kit.tar_entry("x", b"x"))
    hidden = kit.tar(kit.tar_entry("hidden", b"x"))
    assert names(merged(tmp_path, good + hidden)) == ["x"]


def test_damaged_gzip_and_wrong_diff_id(tmp_path):
    plain = kit.tar(kit.tar_entry("x", os.urandom(5_000)))
    stored = gzip.compress(plain)
    cases = [
        (stored[:-20], plain, "bad_layer"),
        (stored[:40], plain, "bad_layer"),
        (stored[:1_000] + b"\0\0\0\0" + stored[1_004:], plain, "bad_layer"),
        (b"not gzip", plain, "bad_layer"),
        (b"", plain, "bad_diff_id"),
        (stored + b"rubbish", plain, "bad_layer"),
        (stored, plain + b"x", "bad_diff_id"),
    ]
    for number, (data, claimed, code) in enumerate(cases):
        spool = tmp_path / str(number)
        spool.mkdir()
        with pytest.raises(ImageError) as caught:
            merge_layers([Layer(io.BytesIO(data), len(data), True, kit.digest_of(claimed))], spool, Notes())
        assert caught.value.code == code, number


@pytest.mark.root
def test_written_tree_stays_inside(tmp_path):
    """Canary files beside the target are untouched by a layer that tries every way out."""
    canary = tmp_path / "canary"
    canary.write_text("safe")
    lower = kit.tar(
        kit.symlink("up", "../../canary"),
        kit.symlink("abs", str(tmp_path)),
        kit.folder("d", mode=0o000),
        kit.tar_entry("d/x", b"x", mode=0o000),
    )
    upper = kit.tar(
        kit.tar_entry("abs/canary", b"overwritten"),
        kit.tar_entry("up", b"now a file"),
        kit.hardlink("link", "abs/canary"),
        kit.symlink("d", "../.."),
        kit.tar_entry("d/canary", b"overwritten"),
    )
    result = merged(tmp_path, lower, upper)
    target = tmp_path / "root"
    target.mkdir()
    write_tree(result[0], result[1], target, Notes())
    assert canary.read_text() == "safe"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["canary", "root", "spool"]
    assert (target / "canary").read_bytes() == b"overwritten"


SAMPLE = kit.tar(
    kit.folder("a"),
    kit.tar_entry("a/file", b"data" * 200),
    kit.symlink("l", "a"),
    kit.hardlink("h", "a/file"),
    kit.tar_entry("l/" + "long" * 40, b"x"),
    kit.tar_entry("a/.wh.file"),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_no_bytes_raise_anything_else(tmp_path_factory, flips):
    layer = bytearray(SAMPLE)
    for position, byte in flips:
        layer[position] = byte
        start = position // 512 * 512
        block = layer[start : start + 512]
        if block[257:262] == b"ustar":  # let the change through the checksum, or it would hide what comes after
            block[148:156] = b" " * 8
            layer[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        merged(folder, bytes(layer))
    except ImageError as error:
        assert error.code
