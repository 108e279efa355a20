"""Environment, env_file and labels of a service."""

import re
from collections.abc import Callable, Mapping

from freehold.base.errors import FreeholdError
from freehold.client.compose.cursor import Cursor
from freehold.client.compose.dotenv import DotenvError, parse_dotenv
from freehold.client.compose.keys import ENV_FILE
from freehold.client.compose.problems import quote

MAX_FILES = 16
MAX_ENTRIES = 512
MAX_NAME_CHARACTERS = 256

ReadFile = Callable[[str], bytes]
_NAME = re.compile(r"[^\s=\0-\x1f\x7f]+\Z")


def read_environment(fields: Mapping[str, Cursor], variables: Mapping[str, str], read_file: ReadFile) -> dict[str, str]:
    """Merge `env_file` and `environment`, the latter over the former.

    Args:
        fields: the service's supported keys.
        variables: what a name without a value, and variables in env files, are taken from.
        read_file: reads a file beside the compose file.
    """
    merged: dict[str, str | None] = {}
    if "env_file" in fields:
        for entry in _env_files(fields["env_file"]):
            merged.update(_read_env_file(entry, variables, read_file))
    if "environment" in fields:
        place = fields["environment"]
        for name, value in read_pairs(place).items():
            if value is None and name not in variables:
                place.report("warning_unset_variable", f"{quote(name)} has no value and is not set: left out")
            merged[name] = value
    resolved = {}
    for name, value in merged.items():
        text = variables.get(name) if value is None else value
        if text is not None and not _is_text(text):
            fields.get("environment", fields.get("env_file", next(iter(fields.values())))).report(
                "bad_characters", f"the value of {quote(name)} holds a NUL or is not Unicode text"
            )
        elif text is not None:
            resolved[name] = text
    return resolved


def read_labels(place: Cursor) -> dict[str, str]:
    """Labels as a mapping or a list; they have no effect."""
    return {name: value or "" for name, value in read_pairs(place).items()}


def read_pairs(place: Cursor) -> dict[str, str | None]:
    """A mapping of scalars, or a list of `NAME=VALUE` and `NAME`."""
    pairs: dict[str, str | None] = {}
    if isinstance(place.value, list):
        for item in place.items(limit=MAX_ENTRIES):
            text = item.text(limit=128 * 1024)
            if text is None:
                continue
            name, equals, value = text.partition("=")
            if name in pairs:
                item.report("duplicate_key", f"{quote(name)} is given twice")
            if _check_name(item, name):
                pairs[name] = value if equals else None
        return pairs
    entries = place.entries("a mapping or a list")
    if len(entries) > MAX_ENTRIES:
        place.report("too_many", f"{len(entries)} entries, at most {MAX_ENTRIES}")
        return pairs
    for entry in entries:
        if not _check_name(entry, entry.name):
            continue
        if entry.value is None:
            pairs[entry.name] = None
        else:
            text = entry.scalar_text()
            if text is not None:
                pairs[entry.name] = text
    return pairs


def _check_name(place: Cursor, name: str) -> bool:
    if _NAME.match(name) is None or len(name) > MAX_NAME_CHARACTERS:
        place.report("bad_name", f"{quote(name)} cannot be a variable's or label's name", "write NAME=VALUE")
        return False
    return True


def _env_files(place: Cursor) -> list[Cursor]:
    return [place] if isinstance(place.value, str) else place.items("a path or a list of paths", limit=MAX_FILES)


def _read_env_file(place: Cursor, variables: Mapping[str, str], read_file: ReadFile) -> dict[str, str | None]:
    required, raw, target = True, False, place
    if isinstance(place.value, dict):
        fields = place.fields(ENV_FILE)
        if "path" not in fields:
            place.report("missing_key", "an env_file entry needs `path`")
            return {}
        target = fields["path"]
        if "required" in fields:
            required = fields["required"].boolean() is not False
        if "format" in fields:
            raw = fields["format"].value == "raw"
            if not raw:
                fields["format"].report("unsupported_value", "the only other format is `raw`", "remove it")
    path = target.text("a path")
    text = None if path is None else read_beside(target, path, read_file, required=required)
    if text is None or path is None:
        return {}
    try:
        found = parse_dotenv(text.decode(), variables, raw=raw)
    except UnicodeDecodeError:
        target.report("bad_env_file", f"{quote(path)} is not UTF-8 text")
        return {}
    except DotenvError as error:
        target.report(error.code, f"{path}, line {error.line}: {error.message}", error.hint)
        return {}
    return found


def read_beside(place: Cursor, path: str, read_file: ReadFile, *, required: bool = True) -> bytes | None:
    """Read a file beside the compose file; reports and gives None when it cannot be had."""
    try:
        return read_file(path)
    except FreeholdError as error:
        if required or error.code != "file_missing":
            place.report(error.code, error.message, error.hint)
    except (OSError, ValueError) as error:
        place.report("file_unreadable", f"{quote(path)} cannot be read: {type(error).__name__}")
    return None


def _is_text(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
