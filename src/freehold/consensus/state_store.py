"""The application's state on disk: the authenticated map, its recent versions, and one durable step per block.

`stage` computes the root that a block's changes lead to and changes nothing; `commit` makes it durable in one
transaction of leaves, undo record and head. A crash leaves the version before or the one after. The upper tree is
rebuilt from the leaves at start and must match the root on disk.

One thread stages and commits; any thread reads. Spec: docs/spec/state-tree.md.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from freehold.base.codec import Record, decode, encode
from freehold.base.errors import InvalidInputError, check
from freehold.consensus.errors import HeightUnavailableError, StorageDamagedError
from freehold.consensus.proofs import prove
from freehold.consensus.records import (
    MAX_STATE_KEY_BYTES,
    Undo,
    encode_leaf,
    encode_undo,
    leaf_of,
    record_key,
    record_value,
)
from freehold.consensus.storage import MAX_MAP_BYTES, Storage, exchange
from freehold.consensus.tree import (
    HASH_BYTES,
    LEAF_KIND,
    Leaf,
    Node,
    UpperTree,
    bucket_bounds,
    path_prefix,
    subtree,
)
from freehold.crypto.smt import PATH_BYTES, hash_path

FORMAT: Final = 1
DEFAULT_SPLIT: Final = 18
MAX_META_BYTES: Final = 1 << 20
MAX_CACHED: Final = 32_768  # values read lately: a block reads again what checking its transactions read
_UNREAD: Final = b"unread"
HEAD_KEY: Final = b"head"
_LAST_PATH: Final = b"\xff" * PATH_BYTES


class Head(Record):
    """The newest version: format and split of the store, height, root, and the application's own bytes."""

    format: int
    split: int
    height: int
    root: bytes
    meta: bytes


EMPTY_HEAD: Final = Head(FORMAT, DEFAULT_SPLIT, 0, bytes(HASH_BYTES), b"")


class Staged(NamedTuple):
    """A computed version that is not written yet.

    Attributes:
        head: what `commit` will make the head.
        leaves: path and new record (None: delete) of every changed leaf, sorted by path.
        undo: the undo record.
        changes: as they were given.
    """

    head: Head
    leaves: list[tuple[bytes, bytes | None]]
    undo: bytes
    changes: Mapping[bytes, bytes | None]


class StateStore:
    """The map under one folder.

    Attributes:
        keep_heights: versions before the newest that can be read and proven.
    """

    def __init__(self, storage: Storage, head: Head, keep_heights: int) -> None:
        self._storage = storage
        self._head = head
        self._tree = UpperTree(head.split)
        self._staged: Staged | None = None
        self._cache: dict[bytes, bytes | None] = {}
        self.keep_heights = keep_heights

    @classmethod
    def open(
        cls,
        path: Path,
        keep_heights: int,
        *,
        split: int = DEFAULT_SPLIT,
        max_map_bytes: int = MAX_MAP_BYTES,
    ) -> Self:
        """Open or create a store; a new one is at height 0 with the empty map.

        Args:
            path: its folder.
            keep_heights: versions before the newest to keep, at least 1.
            split: depth of the upper tree of a new store; an old one keeps its own.
            max_map_bytes: largest size of the file.

        Raises:
            StorageDamagedError: the leaves do not hash to the root on disk, or the format is not known.
            StorageError: the folder cannot be opened.
        """
        check(keep_heights >= 1, "keep_heights_positive", keep_heights=keep_heights)
        storage = Storage(path, ("leaves", "undo", "head"), max_map_bytes=max_map_bytes)
        try:
            with storage.lock:
                raw = storage.get("head", HEAD_KEY)
                head = Head(FORMAT, split, 0, bytes(HASH_BYTES), b"")
                if raw is not None:
                    head = decode(bytes(raw), Head, max_bytes=2 * MAX_META_BYTES)
                if head.format != FORMAT:
                    raise _damaged(path, f"its format {head.format} is not known to this version")
                store = cls(storage, head, keep_heights)
                every = storage.scan("leaves", b"", _LAST_PATH)
                store._tree.rebuild((bytes(key), bytes(value[:HASH_BYTES])) for key, value in every)
                if store._tree.root != head.root:
                    raise _damaged(path, "its leaves do not hash to its root")
        except BaseException:
            storage.close()
            raise
        return store

    def close(self) -> None:
        """Close the store; what was staged is forgotten."""
        self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def height(self) -> int:
        """Height of the newest durable version."""
        return self._head.height

    @property
    def app_hash(self) -> bytes:
        """Root of the newest durable version, 32 bytes."""
        return self._head.root

    @property
    def meta(self) -> bytes:
        """What the application stored with the newest version."""
        return self._head.meta

    @property
    def lowest_height(self) -> int:
        """Lowest height that can be read and proven."""
        storage = self._storage
        with storage.lock:
            for key, _ in storage.scan("undo", b""):
                return max(int.from_bytes(key, "big") - 1, self.height - self.keep_heights)
        return self.height

    def __len__(self) -> int:
        return self._storage.count("leaves")

    def get(self, key: bytes) -> bytes | None:
        """Read a value of the newest version."""
        value = self._cache.get(key, _UNREAD)
        if value is not _UNREAD:
            return value
        path = hash_path(key)
        with self._storage.lock:
            record = self._storage.get("leaves", path)
            value = None if record is None else record_value(record)
            # filled under the lock, under which `commit` changes it: never older than what readers see
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            self._cache[key] = value
        return value

    def get_at(self, key: bytes, height: int) -> bytes | None:
        """Read a value as it was after a height.

        Raises:
            HeightUnavailableError: that version is not kept, or not made yet.
        """
        path = hash_path(key)
        with self._storage.lock:
            for undo in self._undos(height):
                for _, record in undo.leaves(path, path):
                    return record_value(record) if record else None
            return self.get(key)

    def prove(self, key: bytes, height: int) -> tuple[bytes | None, bytes]:
        """Prove a value, or its absence, as it was after a height.

        Returns:
            The value and the encoded ICS-23 `CommitmentProof` against the root after that height, which is the
            app hash of the header at `height + 1`. The empty map has no proofs: `b""`.

        Raises:
            HeightUnavailableError: that version is not kept, or not made yet.
            InvalidInputError: the key has no length that a key can have.
        """
        if not 0 < len(key) <= MAX_STATE_KEY_BYTES:
            raise InvalidInputError(f"a key has 1 to {MAX_STATE_KEY_BYTES} bytes, not {len(key)}", code="bad_key")
        with self._storage.lock:
            return prove(_View(self._storage, self._tree, self._undos(height)), key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Read every key and value of the newest version, in no useful order; readers wait meanwhile."""
        with self._storage.lock:
            for _, value in self._storage.scan("leaves", b""):
                record = bytes(value)
                yield record_key(record), record_value(record)

    def stage(
        self, height: int, changes: Mapping[bytes, bytes | None], meta: bytes = b"", *, begins: bool = False
    ) -> bytes:
        """Compute the next version; nothing is written, and what was staged before is forgotten.

        Args:
            height: the one after the newest; any for genesis, on an empty store.
            changes: new value by key, None to delete.
            meta: at most 1 MiB, stored in the same transaction.
            begins: this is genesis' state, before which there is none.

        Returns:
            The root, 32 bytes.
        """
        genesis = (height == 0 or begins) and self.height == 0 and self.app_hash == bytes(HASH_BYTES)
        check(genesis or height == self.height + 1, "stage_next_height", height=height, newest=self.height)
        check(len(meta) <= MAX_META_BYTES, "stage_meta_length", length=len(meta))
        leaves: list[tuple[bytes, bytes | None]] = []
        before: list[tuple[bytes, bytes]] = []
        buckets: dict[int, Node] = {}
        split = self._head.split
        paths = sorted([(hash_path(key), key) for key in changes])
        with self._storage.snapshot("leaves") as cursor:
            for prefix, updates in groupby(paths, lambda item: path_prefix(item[0], split)):
                bucket, count = _read_bucket(cursor, prefix, split), len(leaves)
                for path, key in updates:
                    value, was = changes[key], bucket.get(path)
                    record = None if value is None else encode_leaf(path, key, value)
                    if record == was:
                        continue
                    leaves.append((path, record))
                    before.append((path, was or b""))
                    if record is None:
                        del bucket[path]
                    else:
                        bucket[path] = record
                if len(leaves) > count:
                    buckets[prefix] = _bucket_node(bucket, split)
        with self._storage.lock:
            overwritten = self._tree.stage(buckets)
        undo = b"" if genesis else encode_undo(*overwritten, before)
        head = Head(FORMAT, split, height, self._tree.staged_root, meta)
        self._staged = Staged(head, leaves, undo, changes)
        return head.root

    def commit(self) -> bytes:
        """Make the staged version durable and the newest.

        Returns:
            Its root.

        Raises:
            StorageFullError: no room; the version before stands, on disk and here.
            StorageError: the disk failed.
        """
        staged = self._staged
        check(staged is not None, "commit_after_stage")
        if staged is None:  # for the type checker
            return self.app_hash
        height = staged.head.height
        databases = self._storage.databases

        def fill(txn: Any) -> None:
            with txn.cursor(db=databases["leaves"]) as cursor:
                cursor.putmulti([item for item in staged.leaves if item[1] is not None])
            for path, record in staged.leaves:
                if record is None:
                    txn.delete(path, db=databases["leaves"])
            if staged.undo:
                txn.put(height.to_bytes(8, "big"), staged.undo, db=databases["undo"])
            self._prune(txn, height)
            txn.put(HEAD_KEY, encode(staged.head), db=databases["head"])

        def after() -> None:
            self._tree.apply()
            # what was read before is kept only as it is now
            for key in staged.changes.keys() & self._cache.keys():
                self._cache[key] = staged.changes[key]
            self._head = staged.head
            self._staged = None

        self._storage.write(fill, after)
        return staged.head.root

    def rollback(self) -> int:
        """Go back by one version, durably; what was staged is forgotten.

        Returns:
            The height of the version that is the newest now.

        Raises:
            HeightUnavailableError: the version before is not kept.
            StorageError: the disk failed.
        """
        height = self.height
        with self._storage.lock:
            (undo, *_) = self._undos(height - 1)
            top = undo.node(1)
            root = self.app_hash if top is None else top[1]
            before = [(path, bytes(record)) for path, record in undo.leaves(b"", _LAST_PATH)]
        head = Head(FORMAT, self._head.split, height - 1, root, b"")
        databases = self._storage.databases

        def fill(txn: Any) -> None:
            for path, record in before:
                if record:
                    txn.put(path, record, db=databases["leaves"])
                else:
                    txn.delete(path, db=databases["leaves"])
            txn.delete(height.to_bytes(8, "big"), db=databases["undo"])
            txn.put(HEAD_KEY, encode(head), db=databases["head"])

        self._storage.write(fill)
        self._reopen()
        return self.height

    def replace(self, folder: Path) -> None:
        """Become the store in another folder, which takes this one's place: all of it or, after a crash, nothing.

        Args:
            folder: of a closed store, beside this one's.

        Raises:
            StorageError: the folders cannot be exchanged.
        """
        self._reopen(folder)

    def release_readers(self) -> None:
        """Let go of versions that a reader held who has died."""
        self._storage.release_readers()

    def _reopen(self, folder: Path | None = None) -> None:
        place, lock = self._storage.path, self._storage.lock
        with lock:
            self._storage.close()
            if folder is not None:
                exchange(folder, place)
            fresh = type(self).open(place, self.keep_heights)
            fresh._storage.lock = lock
            self._storage, self._head, self._tree = fresh._storage, fresh._head, fresh._tree
            self._staged, self._cache = None, {}

    def _prune(self, txn: Any, height: int) -> None:
        undo = self._storage.databases["undo"]
        lowest = (max(height - self.keep_heights, 0) + 1).to_bytes(8, "big")
        with txn.cursor(db=undo) as cursor:
            # Bounded, so that a lowered setting does not make one block slow.
            for _ in range(16):
                if not cursor.first() or bytes(cursor.key()) >= lowest:
                    return
                cursor.delete()

    def _undos(self, height: int) -> list[Undo]:
        """The undo records from height + 1 to the newest, in order; valid while the lock is held."""
        if height > self.height:
            raise HeightUnavailableError(
                f"height {height} is not committed yet, the newest is {self.height}",
                code="height_unknown",
                hint="ask again after the next block",
            )
        undos: list[Undo] = []
        is_kept = height >= max(0, self.height - self.keep_heights)
        for wanted in range(height + 1, self.height + 1) if is_kept else (0,):
            raw = self._storage.get("undo", wanted.to_bytes(8, "big"))
            if raw is None:
                raise HeightUnavailableError(
                    f"height {height} is not kept any more",
                    code="height_pruned",
                    hint=f"versions from height {self.lowest_height} on are kept",
                )
            undos.append(Undo(raw))
        return undos


def newest_head(path: Path) -> Head:
    """Read what a store's newest version is, and nothing else of it.

    Args:
        path: of a store that nobody has open.

    Raises:
        StorageDamagedError: it cannot be read.
        StorageError: the folder cannot be opened.
    """
    with Storage(path, ("leaves", "undo", "head")) as storage, storage.lock:
        raw = storage.get("head", HEAD_KEY)
        return EMPTY_HEAD if raw is None else decode(bytes(raw), Head, max_bytes=2 * MAX_META_BYTES)


class _View:
    """One version of the map: the newest, seen through the undo records after it. Valid while the lock is held."""

    __slots__ = ("_buckets", "_storage", "_tree", "_undos", "split")

    def __init__(self, storage: Storage, tree: UpperTree, undos: list[Undo]) -> None:
        self._storage = storage
        self._tree = tree
        self._undos = undos
        self._buckets: dict[int, list[Leaf]] = {}
        self.split = tree.split

    def node(self, index: int) -> Node:
        for undo in self._undos:
            node = undo.node(index)
            if node is not None:
                return node
        return self._tree.node(index)

    def bucket(self, prefix: int) -> list[Leaf]:
        bucket = self._buckets.get(prefix)
        if bucket is None:
            bucket = self._buckets[prefix] = self._read(prefix)
        return bucket

    def _read(self, prefix: int) -> list[Leaf]:
        low, high = bucket_bounds(prefix, self.split)
        newest = ((bytes(path), bytes(record)) for path, record in self._storage.scan("leaves", low, high))
        if not self._undos:
            return [leaf_of(path, record) for path, record in newest]
        records = dict(newest)
        for undo in reversed(self._undos):
            records.update(undo.leaves(low, high))
        return [leaf_of(path, record) for path, record in sorted(records.items()) if record]


def _read_bucket(cursor: Any, prefix: int, split: int) -> dict[bytes, bytes]:
    """Read a bucket's records by path."""
    low, high = bucket_bounds(prefix, split)
    bucket: dict[bytes, bytes] = {}
    is_there = cursor.set_range(low)
    while is_there:
        path, record = cursor.item()
        if path > high:
            break
        bucket[path] = record
        is_there = cursor.next()
    return bucket


def _bucket_node(bucket: dict[bytes, bytes], split: int) -> Node:
    """Hash a bucket's records up to its node."""
    if len(bucket) == 1:
        return LEAF_KIND, next(iter(bucket.values()))[:HASH_BYTES]
    return subtree([(path, bucket[path][:HASH_BYTES]) for path in sorted(bucket)], split)


def _damaged(path: Path, why: str) -> StorageDamagedError:
    return StorageDamagedError(
        f"the state at {path} is damaged: {why}",
        code="state_damaged",
        hint="remove the state folder and start again: it is rebuilt from the blocks",
    )
