"""Bounds on the fields that people send: shapes of ids, texts, resources, offers, probes, addresses.

No rule here depends on tables that change with Python's version (Unicode categories, the `ipaddress` module): they are
consensus. Spec: docs/spec/transactions.md.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from freehold.base.amounts import TOKEN
from freehold.base.limits import ID_BYTES, MAX_ADDRESSES, MAX_PROBE_PATH_BYTES
from freehold.ledger.transactions import Offer, Place, Probe, ProbeKind, Resources

MAX_RESOURCE: Final = (1 << 31) - 1
MAX_UNIT_PRICE: Final = 1_000_000 * TOKEN  # per unit and hour
MAX_PREPAID_MS: Final = 3_660 * 86_400_000
MAX_REASON_BYTES: Final = 256
MAX_CITY_BYTES: Final = 64
MAX_PORTS: Final = 16
MAX_ACCESS_KEYS: Final = 16
MAX_DEPLOYMENTS_PER_ACCOUNT: Final = 256
MAX_SIGNER_WEIGHT: Final = 255
MAX_U32: Final = (1 << 32) - 1

_COUNTRY = re.compile(r"[A-Z]{2}\Z", re.ASCII)
_PATH = re.compile(r"/[!-~]*\Z", re.ASCII)
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_PORT = r"(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
_ADDRESS = re.compile(rf"(?:{_OCTET}(?:\.{_OCTET}){{3}}|\[[0-9a-f:]{{2,39}}\]):{_PORT}\Z", re.ASCII)
# Control characters, and those that reorder or hide text around them.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def is_text(text: str, max_bytes: int) -> bool:
    """Whether text is short and free of control and bidirectional characters."""
    return len(text.encode("utf-8")) <= max_bytes and _HIDDEN.search(text) is None


def is_place(place: Place) -> bool:
    """Whether a place is a two-letter country and a short city name."""
    return _COUNTRY.match(place.country) is not None and is_text(place.city, MAX_CITY_BYTES)


def is_resources(resources: Resources) -> bool:
    """Whether resources are in range: a positive vcpu and memory, disk from 0."""
    return (
        1 <= resources.vcpu_milli <= MAX_RESOURCE
        and 1 <= resources.memory_mib <= MAX_RESOURCE
        and 0 <= resources.disk_mib <= MAX_RESOURCE
    )


def is_offer(offer: Offer) -> bool:
    """Whether an offer's prices are in range."""
    return all(0 <= price <= MAX_UNIT_PRICE for price in (offer.vcpu_hour, offer.memory_gib_hour, offer.disk_gib_hour))


def is_addresses(addresses: Sequence[str]) -> bool:
    """Whether addresses are at most four distinct `ip:port`, IPv6 in brackets."""
    return (
        len(addresses) <= MAX_ADDRESSES
        and len(set(addresses)) == len(addresses)
        and all(_ADDRESS.match(address) for address in addresses)
    )


def is_port(port: int) -> bool:
    """Whether a number is a TCP port."""
    return 1 <= port <= 65_535


def is_probe(probe: Probe) -> bool:
    """Whether a probe has the fields of its kind and no others."""
    if probe.kind == ProbeKind.NONE:
        return probe.port == 0 and not probe.path
    if not is_port(probe.port):
        return False
    if probe.kind == ProbeKind.TCP:
        return not probe.path
    if probe.kind != ProbeKind.HTTP:
        return False
    return len(probe.path) <= MAX_PROBE_PATH_BYTES and _PATH.match(probe.path) is not None


def is_ports(ports: Sequence[int]) -> bool:
    """Whether published ports are few, in range and ascending."""
    return len(ports) <= MAX_PORTS and all(map(is_port, ports)) and is_ascending(ports)


def is_ids(ids: Sequence[bytes]) -> bool:
    """Whether all have the length of an id."""
    return all(len(value) == ID_BYTES for value in ids)


def is_ascending(values: Sequence[int] | Sequence[bytes]) -> bool:
    """Whether values are strictly ascending: sorted, none twice."""
    return all(first < second for first, second in pairwise(values))  # type: ignore[operator]
