"""Blobs: verified while written, resumable, one writer, full disk, collection by roots."""

import asyncio
import ctypes
import os
import subprocess
import sys

import image_kit as kit
import pytest

from freehold.base.errors import FreeholdError, LocalProtocolError, NotVerifiedError
from freehold.runtime.images.blobs import BlobError, BlobStore
from freehold.runtime.images.manifest import ImageError

DATA = bytes(range(256)) * 40_000
DIGEST = kit.digest_of(DATA)


def chunks(data, size=100_000):
    return [data[start : start + size] for start in range(0, len(data), size)]


def code_of(call, *arguments, kind=FreeholdError):
    with pytest.raises(kind) as caught:
        call(*arguments)
    return caught.value.code


def test_put_and_read(tmp_path):
    store = BlobStore(tmp_path)
    assert store.missing([DIGEST, DIGEST]) == [DIGEST]
    store.put(DIGEST, len(DATA), chunks(DATA))
    store.put(DIGEST, len(DATA), [])
    assert store.has(DIGEST)
    assert store.missing([DIGEST]) == []
    assert store.size(DIGEST) == store.used_bytes() == len(DATA)
    with store.open(DIGEST) as file:
        assert file.read() == DATA
    assert store.digests() == [DIGEST]
    assert store.path(DIGEST).stat().st_mode & 0o777 == 0o400
    store.delete(DIGEST)
    store.delete(DIGEST)
    assert code_of(store.open, DIGEST) == code_of(store.size, DIGEST) == "no_such_blob"


def test_async_put(tmp_path):
    store = BlobStore(tmp_path)

    async def arriving():
        for chunk in chunks(DATA):
            yield chunk

    asyncio.run(store.put_async(DIGEST, len(DATA), arriving()))
    asyncio.run(store.put_async(DIGEST, len(DATA), arriving()))
    assert store.read(DIGEST, len(DATA)) == DATA


def test_async_put_that_breaks_off_is_resumed(tmp_path):
    store = BlobStore(tmp_path)

    async def breaking():
        for number, chunk in enumerate(chunks(DATA)):
            if number == 50:
                raise ConnectionError
            yield chunk

    async def rest():
        for chunk in chunks(DATA[store.offset(DIGEST) :]):
            yield chunk

    with pytest.raises(ConnectionError):
        asyncio.run(store.put_async(DIGEST, len(DATA), breaking()))
    assert 0 < store.offset(DIGEST) < len(DATA)
    asyncio.run(store.put_async(DIGEST, len(DATA), rest()))
    assert store.read(DIGEST, len(DATA)) == DATA


def test_other_bytes_are_refused_and_nothing_stays(tmp_path):
    store = BlobStore(tmp_path)
    wrong = DATA[:-1] + b"!"
    assert code_of(store.put, DIGEST, len(DATA), chunks(wrong), kind=NotVerifiedError) == "digest_mismatch"
    assert code_of(store.put, DIGEST, len(DATA), [*chunks(DATA), b"more"], kind=NotVerifiedError) == "digest_mismatch"
    assert not store.has(DIGEST)
    assert store.used_bytes() == 0


def test_incomplete_is_kept_and_resumed(tmp_path):
    store = BlobStore(tmp_path)
    assert code_of(store.put, DIGEST, len(DATA), [DATA[:1_000]], kind=BlobError) == "incomplete"
    assert store.offset(DIGEST) == 1_000
    again = BlobStore(tmp_path)
    with again.writer(DIGEST, len(DATA)) as writer:
        assert writer.offset == 1_000
        writer.write(DATA[1_000:])
        writer.finish()
    assert again.has(DIGEST)
    assert again.offset(DIGEST) == 0


def test_partial_that_is_wrong_or_too_long_starts_again(tmp_path):
    store = BlobStore(tmp_path)
    store.partial_path(DIGEST).write_bytes(DATA + b"too long")
    store.put(DIGEST, len(DATA), [DATA])
    store.delete(DIGEST)
    store.partial_path(DIGEST).write_bytes(b"other" * 10)
    assert code_of(store.put, DIGEST, len(DATA), [DATA[50:]]) == "digest_mismatch"
    assert store.offset(DIGEST) == 0
    store.put(DIGEST, len(DATA), [DATA])


def test_one_writer_at_a_time(tmp_path):
    store = BlobStore(tmp_path)
    with store.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA[:10])
        assert code_of(store.writer, DIGEST, len(DATA)) == "blob_busy"
        store.delete(DIGEST)
        writer.write(DATA[10:])
        writer.finish()
    assert store.read(DIGEST, len(DATA)) == DATA


def test_small_blobs(tmp_path):
    store = BlobStore(tmp_path)
    digest = store.put_bytes(b"small")
    assert store.put_bytes(b"small") == digest
    assert store.read(digest) == b"small"
    assert store.read(store.put_bytes(b"")) == b""
    assert code_of(store.read, digest, 2) == "oversized"
    store.path(digest).chmod(0o600)
    store.path(digest).write_bytes(b"other")
    assert code_of(store.read, digest, kind=NotVerifiedError) == "digest_mismatch"


def test_names_that_are_no_digests(tmp_path):
    store = BlobStore(tmp_path)
    for name in ("", "sha256:", "../../etc/passwd", "sha256:" + "../" * 20, "sha512:" + "0" * 64, DIGEST + "\n"):
        for call in (store.has, store.open, store.read, store.delete, store.offset, store.size):
            assert code_of(call, name, kind=ImageError) == "bad_digest"
    assert code_of(store.writer, DIGEST, 5 << 30, kind=LocalProtocolError) == "oversized"
    assert code_of(store.writer, DIGEST, -1, kind=LocalProtocolError) == "oversized"


def test_too_little_room_is_told_before_writing(tmp_path):
    store = BlobStore(tmp_path, reserve_bytes=1 << 60)
    assert code_of(store.put, DIGEST, len(DATA), [DATA]) == "disk_full"
    assert not store.has(DIGEST)


@pytest.mark.root
def test_full_disk_leaves_no_partial(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", str(disk).encode(), b"tmpfs", 0, b"size=12m") == 0
    try:
        store = BlobStore(disk, reserve_bytes=0)
        with store.writer(DIGEST, len(DATA)) as writer:
            (disk / "other").write_bytes(bytes(4 << 20))  # someone else fills the disk meanwhile
            with pytest.raises(BlobError) as caught:
                for chunk in chunks(DATA):
                    writer.write(chunk)
        assert caught.value.code == "disk_full"
        assert caught.value.hint
        assert store.used_bytes() == 0
    finally:
        assert libc.umount2(str(disk).encode(), 2) == 0


def test_killed_writer_leaves_a_partial_that_can_be_resumed(tmp_path):
    program = (
        "import os, signal, sys; from pathlib import Path; from freehold.runtime.images.blobs import BlobStore\n"
        "writer = BlobStore(Path(sys.argv[1])).writer(sys.argv[2], 10_240_000)\n"
        "writer.write(bytes(range(256)) * 1_000); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program, tmp_path, DIGEST], check=False)
    assert done.returncode == -9
    store = BlobStore(tmp_path)
    assert store.offset(DIGEST) == 256_000
    assert not store.has(DIGEST)
    store.put(DIGEST, len(DATA), [DATA[256_000:]])


def test_collect_keeps_what_roots_name(tmp_path):
    store = BlobStore(tmp_path)
    keep = kit.HandMade(kit.tar(kit.tar_entry("a", os.urandom(100))))
    drop = kit.HandMade(kit.tar(kit.tar_entry("b", os.urandom(100))))
    keep.into(store)
    drop.into(store)
    alone = store.put_bytes(b"not a manifest")
    absent = kit.digest_of(b"absent")
    with store.writer(DIGEST, len(DATA)) as writer:
        writer.write(b"partial")
        removed = store.collect([keep.digest, alone, absent])
        assert store.offset(DIGEST) == 7, "a blob that is being written stays"
    assert set(removed) == {kit.digest_of(blob) for blob in drop.blobs} | {DIGEST}
    assert set(store.digests()) == {kit.digest_of(blob) for blob in keep.blobs} | {alone}
    store.collect([])
    assert store.used_bytes() == 0
