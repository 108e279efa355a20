"""How an operator writes where others are: `ip:port` of an engine, `id@host:port` of a peer, a URL of an HTTP face."""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from freehold.base.errors import InvalidInputError

DEFAULT_PORT: Final = 26_656
MAX_PEERS: Final = 64
MIN_SERVERS: Final = 2  # one to ask and one to compare with
_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z][A-Za-z0-9-]{0,62}\Z", re.ASCII
)
_PEER = re.compile(r"[0-9a-f]{40}\Z", re.ASCII)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def check_address(text: str) -> tuple[str, int]:
    """Read `ip:port`.

    Raises:
        InvalidInputError: `bad_address`.
    """
    host, port = _split(text)
    if not port or not _is_ip(host):
        raise _bad_address(text)
    return host, port


def check_place(text: str) -> tuple[str, int]:
    """Read `host:port`, where the host is an address or a name.

    Raises:
        InvalidInputError: `bad_address`.
    """
    host, port = _split(text)
    if not port or not (_is_ip(host) or _NAME.match(host)):
        raise _bad_address(text)
    return host, port


def check_peer_id(text: str) -> None:
    """Read a peer's id.

    Raises:
        InvalidInputError: `bad_peer`.
    """
    if not _PEER.match(text):
        raise InvalidInputError(f"{text[:60]!r} is not a peer's id", code="bad_peer", hint="it has 40 hex digits")


def parse_peer(text: str) -> tuple[str, str]:
    """Read `id@host:port`.

    Returns:
        The id, and `host:port`.

    Raises:
        InvalidInputError: `bad_peer`, `bad_address`.
    """
    peer, _, place = text.partition("@")
    check_peer_id(peer)
    check_place(place)
    return peer, place


def merge_peers(known: Sequence[str], more: Sequence[str], own: str) -> list[str]:
    """Add peers to those that are known: an id keeps one place, the newest; this home's own is left out.

    Args:
        known: `id@host:port` each.
        more: likewise.
        own: this home's id.

    Raises:
        InvalidInputError: `too_many_peers`, or one is malformed.
    """
    places = dict(parse_peer(peer) for peer in (*known, *more))
    places.pop(own, None)
    if len(places) > MAX_PEERS:
        raise InvalidInputError(
            f"{len(places)} peers are more than {MAX_PEERS}",
            code="too_many_peers",
            hint="give a few: the engine hears of the others from them; those of earlier stand in validator.toml",
        )
    return [f"{peer}@{place}" for peer, place in places.items()]


def check_server(url: str) -> str:
    """Read the URL of an HTTP face: `http://host:port` or `https://host`.

    Returns:
        It with its port, lower case: one server is written in one way.

    Raises:
        InvalidInputError: `bad_server`, `bad_address`.
    """
    scheme, separator, place = url.rstrip("/").partition("://")
    default = _DEFAULT_PORTS.get(scheme.lower())
    if not separator or default is None:
        raise InvalidInputError(
            f"{url[:80]!r} is no http URL", code="bad_server", hint="write it as http://192.0.2.1:4600"
        )
    has_port = ":" in place.rpartition("]")[2]
    host, port = check_place(place if has_port else f"{place}:{default}")
    return f"{scheme.lower()}://{f'[{host}]' if ':' in host else host.lower()}:{port}"


def check_state_sync(servers: Sequence[str], trust: str) -> tuple[int, str]:
    """Read from whom and from which header on a home is restored.

    Args:
        servers: the URL of an HTTP face each; none for no state sync.
        trust: `HEIGHT:HASH`.

    Returns:
        Height and hash (hex); (0, "") when there are no servers.

    Raises:
        InvalidInputError: `bad_state_sync`, `bad_trust`, `bad_server`, `bad_address`.
    """
    if not servers and not trust:
        return 0, ""
    check_servers(servers)
    height, _, digest = trust.partition(":")
    is_hash = len(digest) == 64 and all(letter in "0123456789abcdefABCDEF" for letter in digest)
    if not (height.isascii() and height.isdigit() and 1 <= int(height) < 1 << 63 and is_hash):
        raise InvalidInputError(
            f"{trust[:80]!r} names no header to trust",
            code="bad_trust",
            hint="HEIGHT:HASH with the hash of that block's header; `freehold ledger join` finds one by itself",
        )
    return int(height), digest.upper()


def check_servers(servers: Sequence[str]) -> list[str]:
    """Read the servers that state sync asks and compares.

    Raises:
        InvalidInputError: `bad_state_sync`: fewer than two different ones; `bad_server`, `bad_address`.
    """
    written = [check_server(server) for server in servers]
    if len(set(written)) < len(written):
        raise InvalidInputError(
            "a server stands twice: one cannot be compared with itself",
            code="bad_state_sync",
            hint="give the HTTP faces of validators of different operators",
        )
    if len(written) < MIN_SERVERS:
        raise InvalidInputError(
            f"state sync needs the HTTP faces of {MIN_SERVERS} validators, of different operators",
            code="bad_state_sync",
            hint="--state-sync http://192.0.2.1:4600,http://192.0.2.2:4600",
        )
    return written


def _split(text: str) -> tuple[str, int]:
    """Host and port; port 0 where there is none that is right."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if ":" in host and not bracketed:
        return host, 0
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    return host[1:-1] if bracketed else host, number if number <= 65_535 else 0


def _is_ip(host: str) -> bool:
    """Whether it is an address without a zone: Python takes any characters for one, the engine takes none."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def _bad_address(text: str) -> InvalidInputError:
    return InvalidInputError(
        f"{text[:80]!r} is not an address", code="bad_address", hint=f"write it as 192.0.2.1:{DEFAULT_PORT}"
    )
