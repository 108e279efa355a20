"""How often one client may ask: a bucket of points for each, filled at a steady rate, in bounded memory. No clock here.

A client is an IPv4 address or an IPv6 /64, since whoever has one address of such a network has them all.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final

MAX_CLIENTS: Final = 4_096


def client_of(host: str) -> str:
    """The name under which a peer's requests are counted."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host[:64]
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped is not None else address.exploded[:19]
    return str(address)


class RateLimiter:
    """Buckets of clients; the one that asked longest ago is forgotten first.

    Attributes:
        rate: points per second that come back.
        burst: points a client has after a rest.
    """

    def __init__(self, rate: float, burst: float, max_clients: int = MAX_CLIENTS) -> None:
        self.rate = rate
        self.burst = burst
        self._max_clients = max_clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # points left, seen at

    def take(self, client: str, points: float, now_s: float) -> float:
        """Take points from a client's bucket.

        Args:
            client: from `client_of`.
            points: what the request costs, at most `burst`.
            now_s: a monotonic clock.

        Returns:
            0.0 when they were taken; else the seconds after which they could be.
        """
        left, seen_s = self._buckets.pop(client, (self.burst, now_s))
        left = min(self.burst, left + max(0.0, now_s - seen_s) * self.rate)
        wait_s = 0.0 if left >= points else (points - left) / self.rate
        self._buckets[client] = (left if wait_s else left - points, now_s)
        if len(self._buckets) > self._max_clients:
            self._buckets.popitem(last=False)
        return wait_s

    def __len__(self) -> int:
        return len(self._buckets)
