"""Reads `ip:port` and `[ip6]:port`; names are refused, as nothing here asks a resolver."""

from ipaddress import ip_address

from freehold.base.errors import InvalidInputError


def parse_address(text: str) -> tuple[int, int]:
    """Return the IP version (4 or 6) and the port of an address.

    Raises:
        InvalidInputError: not an address (code `bad_address`).
    """
    host, colon, port_text = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if bracketed else host)
        port = int(port_text) if port_text.isascii() and port_text.isdigit() else -1
    except ValueError:
        port, address = -1, None
    if not colon or address is None or not 0 <= port <= 65_535 or bracketed != (address.version == 6):
        raise InvalidInputError(
            f"{text[:80]!r} is not ip:port", code="bad_address", hint="write 192.0.2.1:7000 or [2001:db8::1]:7000"
        )
    return address.version, port


def family(text: str) -> int:
    """The IP version (4 or 6) of an address."""
    return parse_address(text)[0]


def bind_addresses(bind: list[str]) -> dict[int, str]:
    """Addresses to listen on, by IP version.

    Raises:
        InvalidInputError: none, two of one family, or malformed ones (code `bad_bind` or `bad_address`).
    """
    wanted = {family(text): text for text in bind}
    if not bind or len(wanted) != len(bind):
        raise InvalidInputError(
            "bind takes one or two addresses, at most one per IP family", code="bad_bind", hint="use 0.0.0.0:7000"
        )
    return wanted


def any_port(bind: list[str]) -> list[str]:
    """The same hosts with ports that the system chooses."""
    return [f"{text.rpartition(':')[0]}:0" for text in bind]
