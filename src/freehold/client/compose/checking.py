"""`check_compose`: one compose file in, its services, every problem and the typed model out; never raises on bad input.

Order: size and encoding, YAML within bounds, `.env`, variables, our own reading key by key, relations between the
parts, and last the official schema where nothing was reported yet. Spec: docs/spec/compose.md.
"""

import posixpath
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from freehold.base.errors import InvalidInputError
from freehold.base.limits import MAX_LEASES_PER_DEPLOYMENT
from freehold.client.compose.cursor import EXTENSION, Cursor
from freehold.client.compose.dotenv import DotenvError, parse_dotenv
from freehold.client.compose.environment import ReadFile
from freehold.client.compose.interpolation import InterpolationError, interpolate
from freehold.client.compose.keys import FILE
from freehold.client.compose.loading import Document, LoadError, decode_text, load_document
from freehold.client.compose.model import ComposeFile, Service
from freehold.client.compose.problems import Path, Problem, Problems, quote
from freehold.client.compose.relations import Declared, check_relations
from freehold.client.compose.schema import schema_errors
from freehold.client.compose.service import is_service_name, read_service
from freehold.client.compose.toplevel import read_file_settings, read_named, read_network, read_volume, secret_reader

DEFAULT_NAME = "app"
MAX_NAME_CHARACTERS = 63

_PROJECT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\Z", re.ASCII)


class CheckResult(msgspec.Struct, frozen=True):
    """What was found out about a file.

    Attributes:
        ok: whether it can be deployed.
        services: names of all services in the file, in its order, also of those with problems.
        problems: by line; codes that begin with `warning_` do not count against the file.
        model: None unless ok.
    """

    ok: bool
    services: tuple[str, ...]
    problems: tuple[Problem, ...]
    model: ComposeFile | None

    def as_json(self) -> dict[str, Any]:
        """The face of `compose check --json`."""
        return {
            "ok": self.ok,
            "services": list(self.services),
            "problems": [
                {key: getattr(problem, key) for key in ("code", "path", "line", "message", "hint")}
                for problem in self.problems
            ],
        }


def no_files(path: str) -> bytes:
    """A `read_file` for where there is no folder.

    Raises:
        InvalidInputError: always.
    """
    raise InvalidInputError(f"no file {quote(path)} beside the compose file", code="file_missing")


def check_compose(
    text: str | bytes,
    filename: str = "compose.yaml",
    environment: Mapping[str, str] | None = None,
    env_file_text: str | None = None,
    read_file: ReadFile = no_files,
) -> CheckResult:
    """Check a compose file.

    Args:
        text: the file; at most 256 KiB of UTF-8.
        filename: its path; the last folder in it names the deployment when the file does not.
        environment: variables of the caller, which win over `.env`.
        env_file_text: the text of `.env` beside the file, when there is one.
        read_file: gives the bytes of a file beside the compose file (env_file, secrets), confined to that folder;
            raises `FreeholdError` (code `file_missing` when there is none) or `OSError`.
    """
    problems = Problems()
    variables = _variables(problems, dict(environment or {}), env_file_text)
    document = _load(problems, text, variables)
    if document is None:
        return CheckResult(False, (), problems.listed(), None)
    root = Cursor(document, problems, document.value)
    names = _service_names(document)
    model = _read(root, variables, read_file, filename)
    for path, message in schema_errors(document.value):
        if not problems.has_room():
            break
        if not problems.touches(path):
            Cursor(document, problems, None, path).report("schema", message, "see the compose specification")
    if problems.has_error() or model is None:
        return CheckResult(False, names, problems.listed(), None)
    return CheckResult(True, names, problems.listed(), model)


def _variables(problems: Problems, environment: dict[str, str], env_file_text: str | None) -> dict[str, str]:
    if env_file_text is None:
        return environment
    try:
        found = parse_dotenv(env_file_text, environment)
    except DotenvError as error:
        problems.add(error.code, (".env",), error.line, error.message, error.hint)
        return environment
    return {name: value for name, value in found.items() if value is not None} | environment


def _load(problems: Problems, text: str | bytes, variables: Mapping[str, str]) -> Document | None:
    def expand(value: str, path: Path, line: int) -> str:
        try:
            result, unset = interpolate(value, variables)
        except InterpolationError as error:
            problems.add(error.code, path, line, error.message, error.hint)
            return value
        for name in unset:
            hint = f"set it, or write ${{{name}:-DEFAULT}}"
            problems.add("warning_unset_variable", path, line, f"the variable {name} is not set: empty text", hint)
        if "\0" in result or any("\ud800" <= character <= "\udfff" for character in result):
            problems.add("bad_characters", path, line, "a variable's value holds a NUL or is not Unicode text")
            return ""
        return result

    try:
        return load_document(decode_text(text), expand)
    except LoadError as error:
        problems.add(error.code, error.path, error.line, error.message, error.hint)
        return None


def _read(root: Cursor, variables: Mapping[str, str], read_file: ReadFile, filename: str) -> ComposeFile | None:
    fields = root.fields(FILE)
    if not isinstance(root.value, dict):
        return None
    if "version" in fields:
        fields["version"].report("warning_obsolete_version", "`version` means nothing any more", "remove it")
    name = _project_name(fields.get("name"), filename)
    volumes = read_named(fields.get("volumes"), read_volume, "volume")
    networks = read_named(fields.get("networks"), read_network, "network")
    secrets = read_named(fields.get("secrets"), secret_reader(variables, read_file), "secret")
    services = _services(root, fields, variables, read_file)
    limit, prefer = read_file_settings(fields.get(EXTENSION))
    declared = Declared(*(_declared(fields, key) for key in ("services", "volumes", "networks", "secrets")))
    check_relations(root, services, declared, {key: len(secret.data) for key, secret in secrets.items()})
    return ComposeFile(
        name=name,
        services=services,
        volumes=volumes,
        networks=networks,
        secrets=secrets,
        max_price_per_hour=limit,
        prefer=prefer,
    )


def _services(
    root: Cursor, fields: Mapping[str, Cursor], variables: Mapping[str, str], read_file: ReadFile
) -> dict[str, Service]:
    found: dict[str, Service] = {}
    if "services" not in fields:
        root.report("missing_key", "the file has no `services`", "add `services:` with at least one service")
        return found
    entries = fields["services"].entries("a mapping of services")
    if isinstance(fields["services"].value, dict) and not entries:
        fields["services"].report("no_services", "the file has no service", "add one under `services:`")
    if len(entries) > MAX_LEASES_PER_DEPLOYMENT:
        fields["services"].report("too_many", f"{len(entries)} services, at most {MAX_LEASES_PER_DEPLOYMENT}")
        return found
    for entry in entries:
        if not is_service_name(entry.name):
            hint = "a to z, 0 to 9, `-` and `_` inside, at most 63: it is a host name to the other services"
            entry.report("bad_name", f"{quote(entry.name)} cannot name a service", hint)
        service = read_service(entry, variables, read_file)
        if service is not None:
            found[entry.name] = service
    return found


def _project_name(place: Cursor | None, filename: str) -> str:
    if place is None:
        folder = posixpath.basename(posixpath.dirname(filename)).lower()
        folder = re.sub(r"[^a-z0-9_-]", "", folder).strip("_-")[:MAX_NAME_CHARACTERS].strip("_-")
        return folder or DEFAULT_NAME
    text = place.text("a name") or ""
    if text and _PROJECT_NAME.match(text) is None:
        place.report("bad_name", f"{quote(text)} cannot name a deployment", "a to z, 0 to 9, `-` and `_` inside")
    return text


def _service_names(document: Document) -> tuple[str, ...]:
    services = document.value.get("services") if isinstance(document.value, dict) else None
    return tuple(services)[: 2 * MAX_LEASES_PER_DEPLOYMENT] if isinstance(services, dict) else ()


def _declared(fields: Mapping[str, Cursor], key: str) -> frozenset[str]:
    value = fields[key].value if key in fields else None
    return frozenset(value) if isinstance(value, dict) else frozenset()
