"""The merge of layers, in memory and pure: which names an image holds, and which entry of which layer is behind each.

Nothing here touches a file system, so no symbolic link can lead outside: links in the path of an entry are followed
inside the tree, as umoci and containerd do. Whiteouts act on lower layers only, whatever their place in the layer
(OCI image specification, layer.md).
"""

from collections.abc import Iterator

from freehold.base.limits import MIB
from freehold.runtime.images.manifest import refuse
from freehold.runtime.images.tarstream import MAX_NAME_BYTES, Kind, TarEntry

MAX_DEPTH = 128
MAX_TREE_PATH_BYTES = 3_072  # leaves room for the folder it is written to, below PATH_MAX
MAX_LINK_HOPS = 40
MAX_HARDLINKS = 30_000
MAX_NODES = 262_144  # inodes that an image may ask of a host, implied folders and replaced files counted
MAX_METADATA_BYTES = 64 * MIB  # of names and link targets
MAX_STEPS = 1 << 24  # parts of paths looked up; links in paths could multiply the work of each entry
WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"


class Node:
    """One inode of the merged tree; several names may share one that is no directory."""

    __slots__ = (
        "children",
        "depth",
        "gid",
        "kind",
        "link",
        "mode",
        "mtime",
        "names",
        "path_bytes",
        "pruned",
        "serial",
        "size",
        "uid",
    )

    def __init__(self, kind: Kind, serial: int) -> None:
        self.kind = kind
        self.serial = serial  # unique in the tree; the flattener names spooled data by it
        self.mode = 0o755
        self.uid = self.gid = self.size = self.mtime = 0
        self.link = b""
        self.names = 0
        self.children: dict[bytes, Child] = {}
        self.depth = 0
        self.path_bytes = 0
        self.pruned = -1  # the last layer that made this folder opaque


class Child:
    """A name in a directory: the node, and the last layer that touched this name or something below it."""

    __slots__ = ("layer", "node")

    def __init__(self, node: Node, layer: int) -> None:
        self.node = node
        self.layer = layer


class Tree:
    """Layers applied one after the other, lowest first."""

    def __init__(self) -> None:
        self.root = Node(Kind.DIRECTORY, 0)
        self.layer = -1
        self._serial = 0
        self._metadata_bytes = 0
        self._steps = 0

    def begin_layer(self) -> None:
        """Say that what follows belongs to the next layer."""
        self.layer += 1

    def apply(self, entry: TarEntry) -> Node | None:
        """Apply one entry of the present layer.

        Returns:
            The new node when the entry made one, so that a file's data can be kept under its serial; else None.

        Raises:
            ImageError: a path that is absolute, climbs, is too long or too deep, a link without its target.
        """
        self._metadata_bytes += len(entry.name) + len(entry.link)
        if self._metadata_bytes > MAX_METADATA_BYTES:
            refuse(f"names and links take more than {MAX_METADATA_BYTES} bytes", "image_too_big")
        parts = split_path(entry.name)
        if not parts:
            if entry.kind is not Kind.DIRECTORY:
                refuse("a layer replaces the root by something else", "bad_layer")
            _describe(self.root, entry)
            return None
        for part in parts[:-1]:
            if part.startswith(WHITEOUT):
                refuse(f"a whiteout is used as a folder: {entry.name[:60]!r}", "bad_layer")
        name = parts[-1]
        if name.startswith(WHITEOUT):
            self._whiteout(parts, entry)
            return None
        parent = self._resolve(parts[:-1], create=True)
        if parent is None:  # with create=True every folder exists
            refuse("a layer's folder is missing", "bad_layer")
        existing = parent.children.get(name)
        if entry.kind is Kind.HARDLINK:
            self._link(parent, name, entry)
            return None
        if entry.kind is Kind.DIRECTORY and existing is not None and existing.node.kind is Kind.DIRECTORY:
            _describe(existing.node, entry)
            existing.layer = self.layer
            return None
        node = self._node(entry.kind)
        _describe(node, entry)
        self._place(parent, name, node)
        return node

    def lookup(self, path: bytes) -> Node | None:
        """Find a node by its path, following links inside the tree, the last one too."""
        parts = split_path(path.lstrip(b"/"))
        for _ in range(MAX_LINK_HOPS):
            if not parts:
                return self.root
            parent = self._resolve(parts[:-1], create=False)
            child = parent.children.get(parts[-1]) if parent else None
            if child is None or child.node.kind is not Kind.SYMLINK:
                return child.node if child else None
            target = child.node.link
            if b".." in target.split(b"/"):
                return None
            parts = split_path(target.lstrip(b"/")) if target.startswith(b"/") else (*parts[:-1], *split_path(target))
        return None

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Yield every path, without a leading slash, and its node; parents first, names in byte order."""
        stack: list[tuple[bytes, Node]] = [(b"", self.root)]
        while stack:
            path, node = stack.pop()
            yield path, node
            if node.kind is Kind.DIRECTORY:
                base = path + b"/" if path else b""
                stack.extend((base + name, node.children[name].node) for name in sorted(node.children, reverse=True))

    def _node(self, kind: Kind) -> Node:
        self._serial += 1
        if self._serial >= MAX_NODES:
            refuse(f"the image has more than {MAX_NODES} files and folders", "image_too_big")
        return Node(kind, self._serial)

    def _place(self, parent: Node, name: bytes, node: Node) -> None:
        if node.kind is Kind.DIRECTORY:
            node.depth = parent.depth + 1
            node.path_bytes = parent.path_bytes + len(name) + 1
        if parent.depth >= MAX_DEPTH or parent.path_bytes + len(name) > MAX_TREE_PATH_BYTES:
            refuse(f"folders are nested too deep at {name[:60]!r}", "bad_path")
        node.names += 1
        if node.names > MAX_HARDLINKS:
            refuse(f"a file has more than {MAX_HARDLINKS} names", "image_too_big")
        parent.children[name] = Child(node, self.layer)

    def _link(self, parent: Node, name: bytes, entry: TarEntry) -> None:
        target = split_path(entry.link)
        folder = self._resolve(target[:-1], create=False) if target else None
        child = folder.children.get(target[-1]) if folder else None
        if child is None or child.node.kind is Kind.DIRECTORY:
            refuse(f"{entry.name[:60]!r} is a hard link to {entry.link[:60]!r}, which is no file here", "bad_layer")
        self._place(parent, name, child.node)

    def _whiteout(self, parts: tuple[bytes, ...], entry: TarEntry) -> None:
        if entry.size or entry.kind not in (Kind.FILE, Kind.HARDLINK):
            refuse(f"the whiteout {entry.name[:60]!r} is not an empty file", "bad_layer")
        name = parts[-1][len(WHITEOUT) :]
        parent = self._resolve(parts[:-1], create=False)
        if parts[-1] == OPAQUE:
            if parent is not None:
                self._prune(parent)
            return
        # `.wh..` and `.wh...` would remove the folder itself or the one above; umoci 0.4.7 deletes its root.
        if name in (b"", b".", b"..") or name.startswith(WHITEOUT):
            refuse(f"the whiteout {entry.name[:60]!r} names nothing that can be removed", "bad_layer")
        child = parent.children.get(name) if parent is not None else None
        if parent is None or child is None:
            return
        if child.layer < self.layer:
            del parent.children[name]
        elif child.node.kind is Kind.DIRECTORY:
            self._prune(child.node)

    def _prune(self, folder: Node) -> None:
        """Remove everything below folder that this layer did not touch."""
        stack = [folder]
        while stack:
            node = stack.pop()
            if node.pruned == self.layer:
                continue  # what came since is of this layer; repeated whiteouts must not repeat the work
            node.pruned = self.layer
            node.children = {name: child for name, child in node.children.items() if child.layer == self.layer}
            stack.extend(child.node for child in node.children.values() if child.node.kind is Kind.DIRECTORY)

    def _resolve(self, parts: tuple[bytes, ...], *, create: bool) -> Node | None:
        """Find the folder with that path, following links inside the tree.

        Returns:
            The folder, or None when create is false and there is none.
        """
        stack = [self.root]
        todo = list(reversed(parts))
        hops = 0
        while todo:
            part = todo.pop()
            self._steps += 1
            if self._steps > MAX_STEPS:
                refuse("the paths of the image take too long to follow", "image_too_big")
            if part in (b"", b"."):
                continue
            if part == b"..":
                # Comes from a link's target only; the root's parent is the root, as in a chroot.
                if len(stack) > 1:
                    stack.pop()
                continue
            child = stack[-1].children.get(part)
            if child is None:
                if not create:
                    return None
                node = self._node(Kind.DIRECTORY)
                self._place(stack[-1], part, node)
                child = stack[-1].children[part]
            if child.node.kind is Kind.DIRECTORY:
                if create:
                    child.layer = self.layer
                stack.append(child.node)
            elif child.node.kind is Kind.SYMLINK:
                hops += 1
                if hops > MAX_LINK_HOPS and not create:
                    return None
                if hops > MAX_LINK_HOPS:
                    refuse(f"too many links on the way to {part[:60]!r}", "bad_path")
                target = child.node.link
                if target.startswith(b"/"):
                    stack = [self.root]
                todo.extend(reversed(target.split(b"/")))
            else:
                if not create:
                    return None
                refuse(f"{part[:60]!r} is used as a folder and is none", "bad_layer")
        return stack[-1]


def split_path(name: bytes) -> tuple[bytes, ...]:
    """Split an entry's name into its parts, without empty ones and dots.

    Raises:
        ImageError: absolute, holds `..`, or a part is longer than 255 bytes.
    """
    if name.startswith(b"/"):
        refuse(f"the path {name[:60]!r} is absolute", "bad_path")
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    for part in parts:
        if part == b"..":
            refuse(f"the path {name[:60]!r} climbs out of its folder", "bad_path")
        if len(part) > MAX_NAME_BYTES:
            refuse(f"the name {part[:60]!r} is longer than {MAX_NAME_BYTES} bytes", "bad_path")
    return parts


def _describe(node: Node, entry: TarEntry) -> None:
    node.mode = entry.mode
    node.uid = entry.uid
    node.gid = entry.gid
    node.mtime = entry.mtime
    node.size = entry.size
    node.link = entry.link if entry.kind is Kind.SYMLINK else b""
