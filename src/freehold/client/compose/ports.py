"""Ports, expose and the witness's probe of a service."""

import re
from collections.abc import Mapping

from freehold.base.limits import MAX_PROBE_PATH_BYTES
from freehold.client.compose.cursor import Cursor
from freehold.client.compose.keys import FREEHOLD_HTTP, FREEHOLD_PROBE, PORT
from freehold.client.compose.model import LOCAL_ADDRESS, Port, Probe
from freehold.client.compose.problems import quote
from freehold.client.compose.scalars import is_sexagesimal

MAX_PORTS = 16  # of a lease
MAX_PORT = 65_535

_NUMBER = re.compile(r"[0-9]{1,5}\Z", re.ASCII)
_RANGE = re.compile(r"[0-9]{1,5}-[0-9]{1,5}\Z", re.ASCII)
_PROBE_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*\Z", re.ASCII)


def read_ports(place: Cursor) -> tuple[Port, ...]:
    """Published ports, short and long form."""
    ports: list[Port] = []
    for item in place.items(limit=MAX_PORTS):
        port = _long_port(item) if isinstance(item.value, dict) else _short_port(item)
        if port is None:
            continue
        if any(other.target == port.target and other.published == port.published for other in ports):
            item.report("duplicate_port", f"port {port.target} is listed twice")
        else:
            ports.append(port)
    return tuple(ports)


def read_expose(place: Cursor) -> tuple[int, ...]:
    """Ports that other services reach."""
    found: list[int] = []
    for item in place.items(limit=MAX_PORTS):
        text = item.value.removesuffix("/tcp") if isinstance(item.value, str) else str(item.value)
        number = _port_number(item, text)
        if number is not None and number not in found:
            found.append(number)
    return tuple(found)


def read_probe(place: Cursor) -> Probe | None:
    """`{tcp: PORT}` or `{http: PATH, port: PORT}` (also `{http: {path, port}}`, `{tcp: {port}}`)."""
    if isinstance(place.value, dict) and "port" in place.value and isinstance(place.value.get("http"), str):
        return _http_probe(place.child("http"), place.child("port"), place)
    fields = place.fields(FREEHOLD_PROBE)
    if len(fields) != 1:
        if isinstance(place.value, dict):
            place.report("bad_value", "a probe is either tcp or http", "such as `probe: {http: /, port: 8080}`")
        return None
    kind, target = next(iter(fields.items()))
    if kind == "tcp" and not isinstance(target.value, dict):
        number = target.integer(1, MAX_PORT)
        return None if number is None else Probe("tcp", number)
    inner = target.fields(FREEHOLD_HTTP)
    if "port" not in inner:
        if isinstance(target.value, dict):
            target.report("missing_key", "a probe needs a `port`")
        return None
    if kind == "tcp":
        if "path" in inner:
            inner["path"].report("no_effect", "a tcp probe has no path", "use http")
        number = inner["port"].integer(1, MAX_PORT)
        return None if number is None else Probe("tcp", number)
    return _http_probe(inner.get("path"), inner["port"], None)


def _http_probe(path_place: Cursor | None, port_place: Cursor, whole: Cursor | None) -> Probe | None:
    if whole is not None:
        for extra in set(whole.value) - {"http", "port"}:
            whole.child(extra).report("unknown_key", f"a probe has no key {quote(extra)} beside http and port")
    number = port_place.integer(1, MAX_PORT)
    path = "/" if path_place is None else path_place.text("a path", MAX_PROBE_PATH_BYTES)
    if path is None or number is None:
        return None
    if path_place is not None and _PROBE_PATH.match(path) is None:
        path_place.report(
            "bad_value", f"{quote(path)} is not a path of a URL", "begin with /; it is public on the ledger"
        )
        return None
    return Probe("http", number, path)


def _short_port(item: Cursor) -> Port | None:
    if isinstance(item.value, bool) or not isinstance(item.value, str | int):
        item.wrong_type("a port", 'such as "8080:80"')
        return None
    text = str(item.value)
    if is_sexagesimal(text) and item.path in item.document.unquoted:
        item.report(
            "warning_unquoted_port", f"some YAML readers take {text} for a number of base 60", f'quote it: "{text}"'
        )
    rest, slash, protocol = text.partition("/")
    if slash and not _check_protocol(item, protocol):
        return None
    host, colon, target = rest.rpartition(":")
    address, second_colon, published = host.rpartition(":")
    if second_colon and not _check_address(item, address):
        return None
    target_number = _port_number(item, target)
    if not colon or (second_colon and not published):
        return None if target_number is None else Port(target_number)
    published_number = _port_number(item, published)
    if target_number is None or published_number is None:
        return None
    return Port(target_number, published_number)


def _long_port(item: Cursor) -> Port | None:
    fields: Mapping[str, Cursor] = item.fields(PORT)
    if "target" not in fields:
        item.report("missing_key", "a port needs `target`", "the port inside the container")
        return None
    if "protocol" in fields and not _check_protocol(fields["protocol"], str(fields["protocol"].value)):
        return None
    if "host_ip" in fields and not _check_address(fields["host_ip"], str(fields["host_ip"].value)):
        return None
    target = _port_number(fields["target"], str(fields["target"].value))
    published: int | None = 0
    if "published" in fields and fields["published"].value != "":
        published = _port_number(fields["published"], str(fields["published"].value))
    return None if target is None or published is None else Port(target, published)


def _port_number(place: Cursor, text: str) -> int | None:
    if _RANGE.match(text):
        place.report("unsupported_value", f"the port range {text} is not supported", "list each port")
        return None
    if _NUMBER.match(text) is None:
        place.report("bad_port", f"{quote(text)} is not a port", 'write "PUBLISHED:TARGET", such as "8080:80"')
        return None
    number = int(text)
    if not 1 <= number <= MAX_PORT:
        place.report("bad_port", f"port {number} is out of range", f"ports go from 1 to {MAX_PORT}")
        return None
    return number


def _check_protocol(place: Cursor, protocol: str) -> bool:
    if protocol == "tcp":
        return True
    place.report(
        "unsupported_value", f"the protocol {quote(protocol)} is not supported", "only tcp ports are published"
    )
    return False


def _check_address(place: Cursor, address: str) -> bool:
    if address == LOCAL_ADDRESS:
        return True
    place.report(
        "unsupported_value",
        f"a port cannot be published on {quote(address)}",
        f"leave the address out; `freehold connect` listens on {LOCAL_ADDRESS}",
    )
    return False
