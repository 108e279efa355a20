"""What stands beside the services: volumes, networks, secrets and the top-level x-freehold."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from freehold.base.amounts import parse_amount
from freehold.base.errors import InvalidInputError
from freehold.client.compose.cursor import EXTENSION, Cursor
from freehold.client.compose.environment import ReadFile, read_beside, read_labels
from freehold.client.compose.keys import FREEHOLD_FILE, FREEHOLD_VOLUME, NETWORK, SECRET, VOLUME
from freehold.client.compose.model import DEFAULT_VOLUME_MIB, Network, Secret, Volume
from freehold.client.compose.mounts import is_resource_name, read_mib
from freehold.client.compose.preferences import parse_preference, parse_preferences
from freehold.client.compose.problems import quote
from freehold.client.compose.scalars import format_scalar

MAX_RESOURCES = 64
MAX_SECRET_BYTES = 32 * 1024
MIN_VOLUME_MIB, MAX_VOLUME_MIB = 16, 16 * 1024 * 1024

T = TypeVar("T")


def read_named(place: Cursor | None, read: Callable[[Cursor], T | None], noun: str) -> dict[str, T]:
    """Read a top-level mapping of named things, each by `read`."""
    found: dict[str, T] = {}
    if place is None:
        return found
    entries = place.entries(f"a mapping of {noun}s")
    if len(entries) > MAX_RESOURCES:
        place.report("too_many", f"{len(entries)} {noun}s, at most {MAX_RESOURCES}")
        return found
    for entry in entries:
        if entry.name.startswith("x-"):
            entry.report("bad_name", f"{quote(entry.name)} cannot name a {noun}", f"name a {noun} without `x-`")
        elif not is_resource_name(entry.name):
            entry.report("bad_name", f"{quote(entry.name)} cannot name a {noun}", "use letters, digits, `_`, `.`, `-`")
        else:
            value = read(entry)
            if value is not None:
                found[entry.name] = value
    return found


def read_volume(place: Cursor) -> Volume:
    """A named volume: its size and kind."""
    size, labels = DEFAULT_VOLUME_MIB, {}
    fields = {} if place.value is None else place.fields(VOLUME)
    if "labels" in fields:
        labels = read_labels(fields["labels"])
    extension = fields[EXTENSION].fields(FREEHOLD_VOLUME) if EXTENSION in fields else {}
    if "size" in extension:
        size = read_mib(extension["size"], MIN_VOLUME_MIB, MAX_VOLUME_MIB) or size
    if "kind" in extension and extension["kind"].value != "local":
        hint = "write `local`; it dies with its node"
        if extension["kind"].value == "store":
            extension["kind"].report("unsupported_value", "store volumes are not offered yet", hint)
        else:
            extension["kind"].report("bad_value", f"{quote(extension['kind'].value)} is no kind of volume", hint)
    return Volume(place.name, size, labels=labels)


def read_network(place: Cursor) -> Network:
    """A network without options."""
    fields = {} if place.value is None else place.fields(NETWORK)
    return Network(place.name, read_labels(fields["labels"]) if "labels" in fields else {})


def secret_reader(variables: Mapping[str, str], read_file: ReadFile) -> Callable[[Cursor], Secret | None]:
    """Make the reader of one secret, by file or by variable."""

    def read(place: Cursor) -> Secret | None:
        fields = place.fields(SECRET)
        if "labels" in fields:
            read_labels(fields["labels"])
        sources = [fields[key] for key in ("file", "environment") if key in fields]
        if len(sources) != 1:
            if isinstance(place.value, dict) and "external" not in place.value:
                place.report("missing_key", "a secret comes from either `file` or `environment`", "give one of them")
            return None
        data = _secret_data(sources[0], variables, read_file)
        if data is not None and len(data) > MAX_SECRET_BYTES:
            sources[0].report("oversized", f"the secret has {len(data)} bytes, at most {MAX_SECRET_BYTES}")
            return None
        return None if data is None else Secret(place.name, data)

    return read


def _secret_data(source: Cursor, variables: Mapping[str, str], read_file: ReadFile) -> bytes | None:
    text = source.text("a path" if source.name == "file" else "a variable's name")
    if text is None:
        return None
    if source.name == "file":
        return read_beside(source, text, read_file)
    value = variables.get(text)
    if value is None:
        source.report("variable_required", f"the variable {quote(text)} is not set", "set it, or put it in .env")
        return None
    try:
        return value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        source.report("bad_characters", f"the variable {quote(text)} is not text")
        return None


def read_file_settings(place: Cursor | None) -> tuple[int | None, tuple[tuple[str, str], ...]]:
    """The top-level x-freehold: price limit in 10^-7 token, and wishes."""
    fields = {} if place is None else place.fields(FREEHOLD_FILE)
    limit = _price(fields["max_price_per_hour"]) if "max_price_per_hour" in fields else None
    return limit, _prefer(fields["prefer"]) if "prefer" in fields else ()


def _price(place: Cursor) -> int | None:
    if isinstance(place.value, dict | list | bool):
        place.wrong_type("an amount of tokens an hour")
        return None
    text = place.document.written.get(place.path) or format_scalar(place.value)
    try:
        return parse_amount(text)
    except InvalidInputError as error:
        place.report(error.code, error.message, error.hint)
        return None


def _prefer(place: Cursor) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    try:
        if isinstance(place.value, str):
            return parse_preferences(place.value)
        for entry in place.entries("a mapping such as {country: BE, farm: alpha}"):
            values = entry.value if isinstance(entry.value, list) else [entry.value]
            found += [parse_preference(entry.name, str(value)) for value in values[:MAX_RESOURCES]]
    except InvalidInputError as error:
        place.report(error.code, error.message, error.hint)
    return tuple(dict.fromkeys(found))
