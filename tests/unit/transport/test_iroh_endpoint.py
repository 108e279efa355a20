import asyncio
import os
import socket
from pathlib import Path

import pytest

from freehold.base.errors import InvalidInputError, LocalProtocolError
from freehold.transport import iroh_bind, iroh_endpoint
from freehold.transport.iroh_endpoint import Endpoint


def test_no_socket_listens_where_it_was_not_asked_to() -> None:
    async def scenario() -> None:
        endpoint = await Endpoint.create(os.urandom(32), ["127.0.0.1:0"], ["a"])
        hosts = sorted(text.rpartition(":")[0] for text in endpoint.sockets)
        assert hosts == ["127.0.0.1", "[::1]"], "the family not asked for is on loopback, never a wildcard"
        assert [text.rpartition(":")[0] for text in endpoint.addresses] == ["127.0.0.1"]
        await endpoint.close()

    asyncio.run(scenario())


def test_both_families_and_a_chosen_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def scenario() -> None:
        endpoint = await Endpoint.create(os.urandom(32), [f"127.0.0.1:{port}", "[::1]:0"], ["a"])
        assert f"127.0.0.1:{port}" in endpoint.addresses
        assert len(endpoint.addresses) == 2
        with pytest.raises(LocalProtocolError) as caught:
            await Endpoint.create(os.urandom(32), [f"127.0.0.1:{port}"], ["a"])
        assert caught.value.code == "bind_failed"
        await endpoint.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("bind", [[], ["127.0.0.1:0", "127.0.0.2:0"], ["localhost:0"], ["127.0.0.1"]])
def test_bad_bind_addresses(bind: list[str]) -> None:
    with pytest.raises(InvalidInputError):
        asyncio.run(Endpoint.create(os.urandom(32), bind, []))


def test_a_machine_without_loopback_is_told_and_one_without_ipv6_is_not_bothered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(iroh_bind, "_can_bind", lambda family, host: host in ("::", "0.0.0.0"))  # noqa: S104
    with pytest.raises(LocalProtocolError) as caught:
        asyncio.run(Endpoint.create(os.urandom(32), ["127.0.0.1:0"], []))
    assert caught.value.code == "no_loopback"
    monkeypatch.setattr(iroh_bind, "_is_ipv6_off", lambda: True)
    assert iroh_bind._loopback_for_missing({4: "127.0.0.1:0"}) == []
    monkeypatch.setattr(iroh_bind, "_is_ipv6_off", lambda: False)
    monkeypatch.setattr(iroh_bind, "_can_bind", lambda family, host: False)
    assert iroh_bind._loopback_for_missing({4: "127.0.0.1:0"}) == []


class Incoming:
    """A handshake that somebody began; `accept` never ends."""

    def __init__(self, validated: bool) -> None:
        self.validated = validated
        self.seen: list[str] = []

    async def remote_addr_validated(self) -> bool:
        return self.validated

    async def ignore(self) -> None:
        self.seen.append("ignore")

    async def retry(self) -> None:
        self.seen.append("retry")

    async def accept(self) -> None:
        self.seen.append("accept")
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("others", "validated", "outcome"),
    [
        (0, False, "accept"),
        (iroh_endpoint.RETRY_ABOVE_HANDSHAKES, False, "retry"),
        (iroh_endpoint.RETRY_ABOVE_HANDSHAKES, True, "accept"),
        (iroh_endpoint.MAX_HANDSHAKES, True, "ignore"),
    ],
)
def test_many_handshakes_at_a_time_must_prove_their_address_and_then_are_dropped(
    monkeypatch: pytest.MonkeyPatch, others: int, validated: bool, outcome: str
) -> None:
    monkeypatch.setattr(iroh_endpoint, "HANDSHAKE_TIMEOUT_MS", 20)
    incoming = Incoming(validated)

    async def scenario() -> None:
        endpoint = await Endpoint.create(os.urandom(32), ["127.0.0.1:0"], ["a"])
        await endpoint._handshake(incoming, others)  # type: ignore[arg-type]
        await endpoint.close()

    asyncio.run(scenario())
    assert incoming.seen == [outcome]


def test_more_endpoints_need_no_more_threads() -> None:
    async def scenario() -> None:
        first = await Endpoint.create(os.urandom(32), ["127.0.0.1:0"], ["a"])
        before = len(list(Path("/proc/self/task").iterdir()))
        more = [await Endpoint.create(os.urandom(32), ["127.0.0.1:0"], ["a"]) for _ in range(5)]
        assert len(list(Path("/proc/self/task").iterdir())) <= before + 2
        for endpoint in (first, *more):
            await endpoint.close()

    asyncio.run(scenario())
