"""YAML text into plain values with a line for each, within bounds that hold before any memory is spent.

The parser's events are read one by one into a small tree (no constructor of PyYAML ever runs, so no tag can build an
object), then anchors, aliases and merge keys are expanded with every expanded value counted. Duplicate keys, keys
that are not text, a second document and unknown tags are refused. Bounds: docs/spec/compose.md.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgspec
import yaml

from freehold.base.limits import MAX_COMPOSE_BYTES
from freehold.client.compose.problems import Path, quote
from freehold.client.compose.scalars import Scalar, TagError, format_scalar, resolve_plain, resolve_tagged

MAX_DEPTH = 32
MAX_VALUES = 20_000
MAX_EXPANDED_CHARACTERS = 1 << 20

Value: TypeAlias = Any  # Scalar | list[Value] | dict[str, Value]; recursive aliases do not help mypy here
Interpolate: TypeAlias = Callable[[str, Path, int], str]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # only its parser is used
_MERGE = "<<"
_COLLECTION_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "!"}


class LoadError(Exception):
    """The text cannot be read as one bounded YAML document."""

    def __init__(self, code: str, message: str, *, line: int, path: Path = (), hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.line = line
        self.path = path
        self.hint = hint


class Document(msgspec.Struct):
    """Plain values of a file.

    Attributes:
        value: dicts with text keys, lists, text, numbers, booleans and None.
        lines: line of each path, counted from 1.
        written: how an unquoted scalar was written, where that is not what its value prints as.
        unquoted: unquoted text with a colon, which other YAML readers may take for a number.
    """

    value: Value
    lines: dict[Path, int]
    written: dict[Path, str]
    unquoted: set[Path]


class _Node:
    __slots__ = ("flat", "kind", "line", "open", "parts", "tag", "text")

    def __init__(self, kind: str, line: int, tag: str | None) -> None:
        self.kind = kind  # scalar, plain (an untagged unquoted scalar), list, map
        self.line = line
        self.tag = tag
        self.text = ""
        self.parts: list[_Node] = []  # of a map: key, value, key, value ..
        self.open = False  # being built, or being expanded
        self.flat: dict[str, tuple[int, _Node]] | None = None


def decode_text(data: bytes | str) -> str:
    """Check size and encoding of a file's bytes.

    Raises:
        LoadError: over 256 KiB, or not UTF-8.
    """
    try:
        raw = data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError as error:
        line = error.object.count("\n", 0, error.start) + 1
        raise LoadError("bad_encoding", "the file holds characters that are not Unicode text", line=line) from None
    if len(raw) > MAX_COMPOSE_BYTES:
        raise LoadError(
            "oversized",
            f"the file has {len(raw)} bytes, at most {MAX_COMPOSE_BYTES} are read",
            line=0,
            hint="move data out of the file, into env_file or secrets",
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise LoadError("bad_encoding", "not UTF-8 text", line=line, hint="save the file as UTF-8") from None


def load_document(text: str, interpolate: Interpolate) -> Document:
    """Read one YAML document.

    Args:
        text: the file, checked by `decode_text`.
        interpolate: called for every scalar value (never for a key) that holds a `$`, with its path and line.

    Raises:
        LoadError: not YAML, or beyond a bound.
    """
    root = _parse(text)
    return _Expansion(interpolate).run(root)


def _parse(text: str) -> _Node:
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_Loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or error.context or "not YAML").strip()
        hint = "indent with spaces, never with tabs" if "\\t" in problem or "tab" in problem else ""
        raise LoadError("bad_yaml", problem, line=mark.line + 1 if mark else 0, hint=hint) from None
    except yaml.reader.ReaderError as error:
        position = error.position if isinstance(error.position, int) else 0
        line = text.count("\n", 0, position) + 1
        raise LoadError("bad_yaml", "the file holds a control character", line=line) from None
    except ValueError as error:  # the scanner's own conversions, such as a huge \\U escape or version number
        raise LoadError("bad_yaml", f"not YAML: {error}", line=builder.line) from None
    if builder.root is None:
        raise LoadError("empty", "the file is empty", line=0, hint="a compose file has at least `services:`")
    return builder.root


class _Builder:
    """Builds the tree from events, with its depth and size bounded as it grows."""

    def __init__(self) -> None:
        self.root: _Node | None = None
        self.line = 0
        self._stack: list[_Node] = []
        self._anchors: dict[str, _Node] = {}
        self._count = 0

    def take(self, event: Any) -> None:
        """Add one event of the parser."""
        self.line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            self._add(self._scalar(event), event.anchor)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._stack.pop().open = False
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._alias(event.anchor), None)
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            raise LoadError("many_documents", "a second YAML document", line=self.line, hint="keep one document a file")

    def _scalar(self, event: Any) -> _Node:
        plain = not event.style and event.tag is None  # libyaml's binding says '', PyYAML's own parser None
        node = _Node("plain" if plain else "scalar", self.line, event.tag)
        node.text = event.value
        if "\0" in node.text or any("\ud800" <= character <= "\udfff" for character in node.text):
            raise LoadError("bad_characters", "a value holds a NUL or half a surrogate pair", line=self.line)
        return node

    def _open(self, event: Any) -> None:
        if event.tag is not None and event.tag not in _COLLECTION_TAGS:
            raise LoadError(
                "bad_tag", f"the tag {quote(event.tag)} is not supported", line=self.line, hint="remove the tag"
            )
        node = _Node("map" if isinstance(event, yaml.MappingStartEvent) else "list", self.line, None)
        node.open = True
        self._add(node, event.anchor)
        self._stack.append(node)
        if len(self._stack) > MAX_DEPTH:
            raise LoadError("too_deep", f"nested deeper than {MAX_DEPTH} levels", line=self.line)

    def _alias(self, anchor: str | None) -> _Node:
        anchor = anchor or ""
        node = self._anchors.get(anchor)
        if node is None:
            raise LoadError("unknown_anchor", f"no anchor &{anchor[:60]} before this alias", line=self.line)
        if node.open:
            raise LoadError("alias_cycle", f"the anchor &{anchor[:60]} contains itself", line=self.line)
        return node

    def _add(self, node: _Node, anchor: str | None) -> None:
        self._count += 1
        if self._count > 2 * MAX_VALUES:  # keys count here, and not later
            raise LoadError("too_many_values", f"more than {MAX_VALUES} values", line=self.line)
        if anchor is not None:
            self._anchors[anchor] = node
        if self._stack:
            self._stack[-1].parts.append(node)
        else:
            self.root = node


class _Expansion:
    """Turns the tree into plain values; whatever an alias repeats is counted each time."""

    def __init__(self, interpolate: Interpolate) -> None:
        self._interpolate = interpolate
        self._values = 0
        self._characters = 0
        self._merging = 0
        self._document = Document(None, {}, {}, set())

    def run(self, root: _Node) -> Document:
        self._document.lines[()] = root.line
        self._document.value = self._expand(root, ())
        return self._document

    def _expand(self, node: _Node, path: Path) -> Value:
        self._values += 1
        if self._values > MAX_VALUES:
            raise LoadError(
                "too_many_values",
                f"aliases expand the file to more than {MAX_VALUES} values",
                line=node.line,
                path=path,
                hint="write the services out, or remove nested anchors",
            )
        if len(path) > MAX_DEPTH:
            raise LoadError("too_deep", f"nested deeper than {MAX_DEPTH} levels", line=node.line, path=path)
        if node.kind == "map":
            return self._expand_map(node, path)
        if node.kind == "list":
            return self._expand_list(node, path)
        return self._expand_scalar(node, path)

    def _expand_list(self, node: _Node, path: Path) -> list[Value]:
        values = []
        for index, part in enumerate(node.parts):
            place = (*path, index)
            self._document.lines[place] = part.line
            values.append(self._expand(part, place))
        return values

    def _expand_map(self, node: _Node, path: Path) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for key, (line, part) in self._flatten(node, path).items():
            place = (*path, key)
            self._document.lines[place] = line
            values[key] = self._expand(part, place)
        return values

    def _expand_scalar(self, node: _Node, path: Path) -> Scalar:
        value = _scalar_value(node, path)
        if isinstance(value, str):
            if node.kind == "plain" and ":" in value:
                self._document.unquoted.add(path)
            if "$" in value:
                value = self._interpolate(value, path, node.line)
            self._characters += len(value)
            if self._characters > MAX_EXPANDED_CHARACTERS:
                raise LoadError(
                    "oversized",
                    f"aliases and variables expand the file to more than {MAX_EXPANDED_CHARACTERS} characters",
                    line=node.line,
                    path=path,
                )
        elif node.kind == "plain" and value is not None and format_scalar(value) != node.text:
            self._document.written[path] = node.text
        return value

    def _flatten(self, node: _Node, path: Path) -> dict[str, tuple[int, _Node]]:
        """Own keys, then what merge keys add: the first of several sources wins, own keys win over all."""
        if node.flat is not None:
            return node.flat
        own: dict[str, tuple[int, _Node]] = {}
        sources: list[_Node] = []
        seen_merge = False
        for key_node, part in zip(node.parts[::2], node.parts[1::2], strict=True):
            key = _key_text(key_node, path)
            if (key in own) or (key_node.kind == "plain" and key == _MERGE and seen_merge):
                raise LoadError(
                    "duplicate_key",
                    f"the key {quote(key)} is written twice",
                    line=key_node.line,
                    path=(*path, key),
                    hint=f"the first is on line {own[key][0]}" if key in own else "give `<<` one list of anchors",
                )
            if key_node.kind == "plain" and key == _MERGE:
                seen_merge = True
                sources = list(_merge_sources(part, path))
            else:
                own[key] = (key_node.line, part)
        for source in sources:
            for key, entry in self._flatten_source(source, path).items():
                own.setdefault(key, entry)
        node.flat = own
        return own

    def _flatten_source(self, source: _Node, path: Path) -> dict[str, tuple[int, _Node]]:
        # No cycle, as an anchor cannot be used while it is open; but a chain of merges that nothing expanded
        # before (its values were overridden) could be as long as the file.
        self._merging += 1
        if self._merging > MAX_DEPTH:
            raise LoadError("too_deep", f"more than {MAX_DEPTH} merge keys in a chain", line=source.line, path=path)
        flat = self._flatten(source, path)
        self._merging -= 1
        self._values += len(flat)
        if self._values > MAX_VALUES:
            raise LoadError("too_many_values", f"merge keys add more than {MAX_VALUES} values", line=source.line)
        return flat


def _merge_sources(part: _Node, path: Path) -> Iterator[_Node]:
    sources = part.parts if part.kind == "list" else [part]
    for source in sources:
        if source.kind != "map":
            raise LoadError(
                "bad_merge", "`<<` takes a mapping or a list of mappings", line=part.line, path=(*path, _MERGE)
            )
        yield source


def _key_text(node: _Node, path: Path) -> str:
    if node.kind in ("map", "list"):
        raise LoadError("bad_key", "a mapping or list stands as a key", line=node.line, path=path)
    value = _scalar_value(node, path)
    if not isinstance(value, str):
        raise LoadError(
            "bad_key",
            f"the key {quote(node.text)} is not text",
            line=node.line,
            path=path,
            hint=f'quote it: "{node.text[:40]}"',
        )
    return value


def _scalar_value(node: _Node, path: Path) -> Scalar:
    if node.kind == "plain":
        return resolve_plain(node.text)
    if node.tag is None:
        return node.text
    try:
        return resolve_tagged(node.text, node.tag)
    except TagError as error:
        raise LoadError("bad_tag", str(error), line=node.line, path=path, hint="remove the tag") from None
