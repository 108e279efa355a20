"""Opens and closes the binding's endpoint, with no socket that was not asked for."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import iroh

from freehold.base.errors import LocalProtocolError
from freehold.transport.addresses import bind_addresses, family
from freehold.transport.iroh_faults import FAULTS, words

CLOSE_TIMEOUT_MS = 500
TAKE_PAUSE_S = 0.02
# IP_FREEBIND and IPV6_FREEBIND (linux/in.h, linux/in6.h), which the standard library does not name.
_FREEBIND = {4: (socket.AF_INET, socket.IPPROTO_IP, 15), 6: (socket.AF_INET6, socket.IPPROTO_IPV6, 78)}


async def open_endpoint(seed: bytes, bind: list[str], alpns: list[str]) -> iroh.Endpoint:
    """Open an endpoint of the binding; arguments and errors as of `iroh_endpoint.Endpoint.create`."""
    wanted = bind_addresses(bind)
    builder: Any = iroh.EndpointBuilder()  # type: ignore[no-untyped-call]
    builder.apply_minimal()
    builder.relay_mode(iroh.RelayMode.disabled())
    builder.secret_key(bytes(seed))
    builder.alpns([alpn.encode("ascii") for alpn in alpns])
    try:
        for address in [*wanted.values(), *_loopback_for_missing(wanted)]:
            builder.bind_addr(address)
        inner: iroh.Endpoint = await builder.bind()
        return inner
    except FAULTS as error:
        raise LocalProtocolError(
            f"cannot bind {', '.join(bind)}: {words(error).splitlines()[0]}",
            code="bind_failed",
            hint="is another process on that port, or is the address not on this machine?",
        ) from None


async def close_endpoint(inner: iroh.Endpoint, timeout_ms: int = CLOSE_TIMEOUT_MS) -> None:
    """Close an endpoint of the binding; it is given up after `timeout_ms`.

    The binding waits up to 3 s for peers that are gone, which a program that ends need not: they learn of it by their
    own heartbeat. Only one that was waited for has let go of its port.
    """
    with contextlib.suppress(TimeoutError, *FAULTS):
        async with asyncio.timeout(timeout_ms / 1000):
            await inner.close()


@contextlib.asynccontextmanager
async def holding_ports(addresses: list[str]) -> AsyncIterator[None]:
    """Meanwhile take the ports of `ip:port` addresses as they get free, also where the address is away (ip(7)).

    An endpoint that is being closed still follows the machine's links: when its address comes back before it has
    ended, it binds its socket anew, and nothing closes that one until the last of its connections is forgotten.
    """
    with contextlib.ExitStack() as held:
        tasks = [asyncio.ensure_future(_take_port(address, held)) for address in addresses]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _take_port(address: str, held: contextlib.ExitStack) -> None:
    host, _, port = address.rpartition(":")
    kind, level, option = _FREEBIND[family(address)]
    taken = held.enter_context(socket.socket(kind, socket.SOCK_DGRAM))
    taken.setsockopt(level, option, 1)
    if kind == socket.AF_INET6:
        taken.setsockopt(level, socket.IPV6_V6ONLY, 1)
    while True:
        try:
            taken.bind((host.strip("[]"), int(port)))
        except OSError:
            await asyncio.sleep(TAKE_PAUSE_S)
        else:
            return


def is_bound(address: str) -> bool:
    """Whether any socket of this network namespace is bound to an `ip:port`, as the kernel lists them (proc(5)).

    Reading the list disturbs nobody: a socket bound for a look would hold the port at the wrong moment.
    """
    host, _, port = address.rpartition(":")
    packed = ip_address(host.strip("[]")).packed
    # Each 32-bit word of the address is printed as a number of this machine's byte order.
    words_of = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    local = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words_of) + f":{int(port):04X}"
    table = Path("/proc/self/net/udp6" if len(packed) == 16 else "/proc/self/net/udp")
    return any(line.split(maxsplit=2)[1] == local for line in table.read_text().splitlines()[1:])


def _loopback_for_missing(wanted: dict[int, str]) -> list[str]:
    """Loopback addresses for the families that were not named; without them the binding opens a wildcard socket."""
    families = {4: (socket.AF_INET, "127.0.0.1", "0.0.0.0"), 6: (socket.AF_INET6, "::1", "::")}  # noqa: S104
    result = []
    for version, (kind, loopback, wildcard) in families.items():
        if version in wanted:
            continue
        if _can_bind(kind, loopback):
            result.append(f"[{loopback}]:0" if version == 6 else f"{loopback}:0")
        elif _can_bind(kind, wildcard) and not (version == 6 and _is_ipv6_off()):
            raise LocalProtocolError(
                f"{loopback} is not there, and without it a wildcard socket would be opened",
                code="no_loopback",
                hint="bring the loopback interface up: ip link set lo up",
            )
    return result


def _can_bind(kind: socket.AddressFamily, host: str) -> bool:
    try:
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _is_ipv6_off() -> bool:
    """Whether the machine has IPv6 switched off: a wildcard socket can be opened, but nobody reaches it."""
    switch = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    return switch.exists() and switch.read_text().strip() == "1"
