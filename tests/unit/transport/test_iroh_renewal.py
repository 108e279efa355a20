"""An endpoint outlives the death of the library's: a container's new link, and a process forked in that moment."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import iroh
import pytest
from iroh.iroh_ffi import InternalError

from freehold.transport import iroh_endpoint
from freehold.transport.errors import ConnectionLostError
from freehold.transport.iroh_bind import is_bound
from freehold.transport.iroh_endpoint import Endpoint
from freehold.transport.iroh_faults import connection_error, dial_error, stream_error


def run(how: str) -> dict[str, Any]:
    script = Path(__file__).with_name("changing_links.py")
    process = subprocess.run(
        ["unshare", "--net", sys.executable, "-X", "dev", "-W", "error", str(script), how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    answer: dict[str, Any] = json.loads(process.stdout)
    return answer


@pytest.mark.root
def test_an_endpoint_whose_port_was_held_is_opened_again() -> None:
    assert run("held") == {"heard": "?", "cut": True, "died": 2, "same": [True, True]}


@pytest.mark.root
@pytest.mark.parametrize("how", ["gone", "back"])
def test_an_endpoint_whose_address_was_gone_is_opened_again(how: str) -> None:
    assert run(how) == {"heard": "?", "cut": True, "died": 1, "same": [True, True]}


@pytest.mark.root
def test_a_change_of_links_alone_cuts_nothing() -> None:
    assert run("free") == {"heard": "?", "cut": False, "died": 0, "same": [True, True]}


@pytest.mark.parametrize(
    ("kind", "host"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "127.1.2.3"),
        (socket.AF_INET, "0.0.0.0"),  # noqa: S104
        (socket.AF_INET6, "::1"),
        (socket.AF_INET6, "::"),
    ],
)
def test_a_socket_is_seen_until_it_is_closed(kind: socket.AddressFamily, host: str) -> None:
    with socket.socket(kind, socket.SOCK_DGRAM) as one:
        one.bind((host, 0))
        port = one.getsockname()[1]
        address = f"[{host}]:{port}" if kind == socket.AF_INET6 else f"{host}:{port}"
        assert is_bound(address)
        assert not is_bound(address.replace(host, "127.0.0.9" if kind == socket.AF_INET else "::9"))
    assert not is_bound(address)


def test_closing_ends_a_renewal_and_whoever_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dial from a dead endpoint waits for the next one; closing in between tells it so."""

    async def scenario() -> None:
        endpoint = await Endpoint.create(os.urandom(32), ["127.0.0.1:0"], ["a"])
        peer = await Endpoint.create(os.urandom(32), ["127.0.0.1:0"], ["a"])
        monkeypatch.setattr(iroh_endpoint, "RENEWAL_PAUSE_S", 60.0)
        await endpoint._inner.close()
        dialling = asyncio.ensure_future(endpoint.dial(peer.node_id, peer.addresses, "a", 5_000))
        accepting = asyncio.ensure_future(endpoint.accept())
        await asyncio.sleep(0.1)
        assert not dialling.done()
        await endpoint.close()
        for waiting in (dialling, accepting):
            with pytest.raises(ConnectionLostError) as caught:
                await waiting
            assert caught.value.code == "endpoint_closed"
        await peer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("lost", "is_lost"), [("127.0.0.1", False), ("::1", False), ("", True)])
def test_an_endpoint_with_one_of_two_families_serves_on(
    monkeypatch: pytest.MonkeyPatch, lost: str, is_lost: bool
) -> None:
    monkeypatch.setattr(iroh_endpoint, "is_bound", lambda address: lost not in address)

    async def scenario() -> None:
        endpoint = await Endpoint.create(os.urandom(32), ["127.0.0.1:0", "[::1]:0"], ["a"])
        assert await endpoint._has_lost_sockets() == is_lost
        await endpoint.close()

    asyncio.run(scenario())


def test_what_is_left_of_a_panic_in_the_library_is_an_error_of_the_connection() -> None:
    panic = InternalError("one path exists")
    for error in (connection_error(panic), stream_error(panic), dial_error(panic, "ab" * 32)):
        assert error.exit_code == 4
        assert "one path exists" in error.message
    assert "failed" in connection_error(InternalError()).message
    assert issubclass(iroh.IrohError, Exception)
    assert not issubclass(iroh.IrohError, InternalError), "both have to be caught"
