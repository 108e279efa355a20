"""The few route-netlink messages that container networks need, in about a millisecond instead of seven processes.

A `Netlink` speaks to the network namespace of the thread that opened it. Source: rtnetlink(7), netlink(7).
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from types import TracebackType
from typing import Final, Self

_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _GETADDR, _NEWROUTE, _GETROUTE = 16, 17, 20, 21, 22, 24, 26
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _EXCL, _CREATE = 1, 4, 0x300, 0x200, 0x400
_IFNAME, _MTU, _MASTER, _LINKINFO, _NET_NS_FD = 3, 4, 10, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_ADDRESS, _LOCAL = 1, 2
_DST, _OIF, _GATEWAY = 1, 4, 5
_UP: Final = 1
_MAIN_TABLE: Final = 254


def _attr(kind: int, data: bytes) -> bytes:
    size = 4 + len(data)
    return struct.pack("=HH", size, kind) + data + b"\0" * (-size % 4)


def _attrs(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        if size < 4:
            return
        yield kind & 0x3FFF, data[4:size]
        data = data[size + (-size % 4) :]


def _link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


class Netlink:
    """A route-netlink socket of the calling thread's network namespace; a context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def _request(self, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
        self._sequence += 1
        header = struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST, self._sequence, 0)
        self._socket.send(header + body)
        replies: list[tuple[int, bytes]] = []
        while True:
            data = self._socket.recv(1 << 18)
            while len(data) >= 16:
                size, reply, _, sequence, _ = struct.unpack_from("=IHHII", data)
                payload, data = data[16:size], data[size + (-size % 4) :]
                if sequence != self._sequence:
                    continue
                if reply == _ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    if code:
                        raise OSError(code, f"netlink {kind}: {os.strerror(code)}")
                    return replies
                if reply == _DONE:
                    return replies
                replies.append((reply, payload))

    def add_bridge(self, name: str) -> int:
        """Make a bridge, or find the one of that name. Returns its index."""
        info = _attr(_LINKINFO, _attr(_INFO_KIND, b"bridge"))
        try:
            self._request(_NEWLINK, _ACK | _CREATE | _EXCL, _link() + _attr(_IFNAME, name.encode() + b"\0") + info)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        return socket.if_nametoindex(name)

    def add_veth(self, name: str, peer: str, peer_netns_fd: int, mtu: int) -> int:
        """Make a pair of virtual Ethernet ends, one here, one in another namespace. Returns this end's index."""
        size = _attr(_MTU, struct.pack("=I", mtu))
        other = _link() + _attr(_IFNAME, peer.encode() + b"\0") + size
        other += _attr(_NET_NS_FD, struct.pack("=I", peer_netns_fd))
        data = _attr(_INFO_KIND, b"veth") + _attr(_INFO_DATA, _attr(_VETH_PEER, other))
        body = _link() + _attr(_IFNAME, name.encode() + b"\0") + size + _attr(_LINKINFO, data)
        self._request(_NEWLINK, _ACK | _CREATE | _EXCL, body)
        return socket.if_nametoindex(name)

    def set_up(self, index: int, *, master: int = 0) -> None:
        """Switch a link on, as a port of the bridge `master` if that is given."""
        body = _link(index, _UP, _UP)
        if master:
            body += _attr(_MASTER, struct.pack("=I", master))
        self._request(_NEWLINK, _ACK, body)

    def delete_link(self, name: str) -> bool:
        """Remove a link by name. Returns whether there was one."""
        try:
            self._request(_DELLINK, _ACK, _link() + _attr(_IFNAME, name.encode() + b"\0"))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
        return True

    def add_address(self, index: int, address: IPv4Address, prefix: int) -> None:
        """Give a link an address; one that it has already is fine."""
        body = struct.pack("=BBBBI", socket.AF_INET, prefix, 0, 0, index)
        body += _attr(_LOCAL, address.packed) + _attr(_ADDRESS, address.packed)
        with _ignored(errno.EEXIST):
            self._request(_NEWADDR, _ACK | _CREATE | _EXCL, body)

    def add_default_route(self, gateway: IPv4Address) -> None:
        """Send everything that no other route takes to `gateway`."""
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, _MAIN_TABLE, 4, 0, 1, 0)
        self._request(_NEWROUTE, _ACK | _CREATE | _EXCL, body + _attr(_GATEWAY, gateway.packed))

    def addresses(self) -> list[tuple[int, IPv4Network]]:
        """All IPv4 addresses of the namespace as (link index, network that it lies in)."""
        found = []
        for _, payload in self._request(_GETADDR, _DUMP, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)):
            prefix, index = payload[1], struct.unpack_from("=I", payload, 4)[0]
            fields = dict(_attrs(payload[8:]))
            if _ADDRESS in fields:
                found.append((index, IPv4Network((fields[_ADDRESS], prefix), strict=False)))
        return found

    def routes(self) -> list[tuple[IPv4Network, int]]:
        """IPv4 routes of the main table as (destination, link index or 0)."""
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        found = []
        for _, payload in self._request(_GETROUTE, _DUMP, body):
            if payload[4] != _MAIN_TABLE:
                continue
            fields = dict(_attrs(payload[12:]))
            link = struct.unpack("=I", fields[_OIF])[0] if _OIF in fields else 0
            found.append((IPv4Network((fields.get(_DST, b"\0\0\0\0"), payload[1])), link))
        return found


@contextlib.contextmanager
def _ignored(number: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != number:
            raise
