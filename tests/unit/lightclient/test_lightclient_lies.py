"""Whatever a server says, the client believes only what genesis' validators signed and what is proven under it."""

import asyncio
import base64
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lying_server import LyingServer
from rpc_kit import OWNERS, TENANT, FakeDesk, desk_at, make_genesis, run, signed

from freehold.base.amounts import TOKEN
from freehold.base.errors import FreeholdError, NotVerifiedError, RefusedError, UnreachableError
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.strkey import encode_account
from freehold.ledger import keys
from freehold.ledger.records import Account
from freehold.ledger.transactions import Transfer, tx_id
from freehold.light.divergence import DivergedError
from freehold.lightclient import servers
from freehold.lightclient.client import MAX_KEYS
from freehold.lightclient.servers import MAX_RESPONSE_BYTES, StaleStateError

KEY = keys.account_key(TENANT.public)
OTHER = keys.account_key(OWNERS[0].public)
ABSENT = keys.account_key(b"?" * 32)


def with_server(work: Callable[[LyingServer], Awaitable[Any]], desk: FakeDesk | None = None, **settings_: Any) -> Any:
    async def go() -> Any:
        async with LyingServer(desk or desk_at(5), **settings_) as server, asyncio.timeout(20):
            return await work(server)

    return run(go())


def refused(
    twist: Callable[[str, Any], Any] | None,
    ask: Callable[[LyingServer], Awaitable[Any]],
    desk: FakeDesk | None = None,
    kind: type[FreeholdError] = NotVerifiedError,
) -> FreeholdError:
    async def work(server: LyingServer) -> None:
        server.twist = twist
        await ask(server)

    with pytest.raises(FreeholdError) as caught:
        with_server(work, desk)
    assert type(caught.value) is kind, repr(caught.value)
    return caught.value


def read(*wanted: bytes, height: int | None = None) -> Callable[[LyingServer], Awaitable[Any]]:
    return lambda server: server.client.read(wanted, height)


def test_an_honest_server_is_believed():
    async def work(server: LyingServer) -> Any:
        return await server.client.read([KEY, ABSENT, KEY]), await server.client.light_block(2)

    snapshot, block = with_server(work)
    account = snapshot.get(KEY, Account)
    assert account is not None and account.balance == 5_000 * TOKEN and snapshot.get(ABSENT, Account) is None
    assert snapshot.at.height == 5 and block.header.height == 2


def test_more_keys_than_one_request_may_have_are_read_at_one_height():
    desk = desk_at(3)
    wanted = [keys.account_key(n.to_bytes(32, "big")) for n in range(MAX_KEYS + 5)]

    async def work(server: LyingServer) -> Any:
        def meanwhile(path: str, answer: Any) -> Any:
            desk.make_block()
            return answer

        server.twist = meanwhile
        return await server.client.read(wanted)

    snapshot = with_server(work, desk)
    assert snapshot.at.height == 3 and list(snapshot.values) == wanted and desk.height == 5


def test_a_value_of_another_key():
    def twist(path: str, answer: Any) -> Any:
        answer["values"].reverse()
        return answer

    assert refused(twist, read(KEY, OTHER)).code == "wrong_key"

    def relabelled(path: str, answer: Any) -> Any:
        first, second = answer["values"]
        first["key"], second["key"] = second["key"], first["key"]
        answer["values"].reverse()
        return answer

    refused(relabelled, read(KEY, OTHER))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_values_left_out_or_added(count):
    def twist(path: str, answer: Any) -> Any:
        answer["values"] = (answer["values"] * 2)[:count]
        return answer

    assert refused(twist, read(KEY, OTHER)).code == "missing_value"


def test_a_forged_value_and_a_forged_absence():
    def richer(path: str, answer: Any) -> Any:
        answer["values"][0]["value"] = answer["values"][0]["value"].replace("00", "01", 1)
        return answer

    def gone(path: str, answer: Any) -> Any:
        answer["values"][0]["value"] = None
        return answer

    def made_up(path: str, answer: Any) -> Any:
        answer["values"][0]["value"] = "90"
        return answer

    refused(richer, read(KEY))
    refused(gone, read(KEY))
    refused(made_up, read(ABSENT))


def test_a_proof_of_another_state():
    """Value, proof and header of different heights: each signed or true by itself, never together."""
    desk = desk_at(3)
    desk.make_block({KEY: b"\x90"})
    desk.make_block()
    old = desk.prove(KEY, 3)

    def twist(path: str, answer: Any) -> Any:
        answer["values"][0] |= {"value": old[0].hex(), "proof": base64.b64encode(old[1]).decode()}
        return answer

    refused(twist, read(KEY), desk)


def test_an_older_state_than_was_seen(monkeypatch):
    monkeypatch.setattr(servers, "CATCH_UP_S", 0.2)
    desk = desk_at(5)

    async def ask(server: LyingServer) -> None:
        server.twist = None
        await server.client.refresh()
        honest = await server.face.post("/v1/state", {"keys": [KEY.hex()], "height": 3})
        server.twist = lambda path, answer: honest.json()
        await server.client.read([KEY])

    error = refused(None, ask, desk, StaleStateError)
    assert error.code == "stale_state" and "stands at block 3, 2 below" in error.message


def test_an_older_header_renews_nothing():
    """The fence counts from the request for the newest header: an old one must not move it."""
    desk = desk_at(5)

    async def work(server: LyingServer) -> Any:
        first = await server.client.refresh()
        old = (await server.face.get("/v1/light_block?height=2")).json()
        server.twist = lambda path, answer: old
        with pytest.raises(StaleStateError):
            await server.client.refresh(timeout_s=0.3)
        return first, server.client.newest

    first, newest = with_server(work, desk)
    assert newest is first and newest.height == 5


def test_the_same_header_renews_nothing():
    async def work(server: LyingServer) -> Any:
        first = await server.client.refresh()
        return first, await server.client.refresh()

    first, second = with_server(work)
    assert second.asked_boottime_ms == first.asked_boottime_ms


@pytest.mark.parametrize("ask", [read(KEY, height=4), lambda server: server.client.light_block(4)])
def test_another_height_than_asked(ask):
    desk = desk_at(5)

    async def go(server: LyingServer) -> None:
        other = (await server.face.get("/v1/light_block?height=3")).json()
        state = (await server.face.post("/v1/state", {"keys": [KEY.hex()], "height": 3})).json()
        server.twist = lambda path, answer: state if path == "/v1/state" else other
        await ask(server)

    assert refused(None, go, desk).code == "wrong_height"


def test_the_heights_in_the_json_count_for_nothing():
    def twist(path: str, answer: Any) -> Any:
        answer["height"] = 999
        return answer

    async def work(server: LyingServer) -> Any:
        server.twist = twist
        return (await server.client.read([KEY])).at.height

    assert with_server(work) == 5


def foreign(chain_id: str, validator: PrivateKey) -> FakeDesk:
    return desk_at(6, FakeDesk(make_genesis(chain_id, validator), validator))


@pytest.mark.parametrize(
    ("desk", "code"),
    [
        (foreign("another-chain", PrivateKey.from_seed(b"v" * 32)), "wrong_chain"),
        (foreign("rpc-test", PrivateKey.from_seed(b"w" * 32)), "validator_set_mismatch"),  # at height 1, by bisection
    ],
)
def test_a_foreign_chain(desk, code):
    for ask in (lambda server: server.client.refresh(), read(KEY)):

        async def work(server: LyingServer, ask: Any = ask) -> None:
            await ask(server)

        with pytest.raises(NotVerifiedError) as caught:
            with_server(work, desk, trusted=desk_at(1).trusted)
        assert caught.value.code == code


def test_two_signed_blocks_at_one_height_are_told_as_equivocation():
    desk = desk_at(5)
    desk.salt = b"other"
    twin = base64.b64encode(desk.sign(desk.header(5)).encode()).decode()

    async def ask(server: LyingServer) -> None:
        await server.client.refresh()
        server.twist = lambda path, answer: {**answer, "light_block": twin}
        await server.client.refresh()

    error = refused(None, ask, desk, DivergedError)
    assert error.code == "diverged" and "equivocation" in error.message and "evidence" in error.hint


def test_an_answer_for_another_transaction():
    data = signed(Transfer(OWNERS[0].public, 1))

    def twist(path: str, answer: Any) -> Any:
        return {**answer, "tx_id": "00" * 32}

    assert refused(twist, lambda server: server.client.submit(data)).code == "wrong_tx"


def test_a_refused_transaction_carries_the_ledgers_word():
    def twist(path: str, answer: Any) -> Any:
        return {**answer, "code": 9, "code_name": "WRONG_NONCE"}

    data = signed(Transfer(OWNERS[0].public, 1))
    error = refused(twist, lambda server: server.client.submit(data), kind=RefusedError)
    assert error.code == "wrong_nonce" and error.exit_code == 3


def test_a_transaction_is_waited_for_until_the_newest_header_proves_it():
    data = signed(Transfer(OWNERS[0].public, TOKEN))

    async def work(server: LyingServer) -> Any:
        outcome = await server.client.submit(data)
        return outcome, (await server.client.read([KEY])).get(KEY, Account)

    outcome, account = with_server(work)
    assert outcome.height == 6 and outcome.tx_id == tx_id(data)
    assert account is not None and account.nonce == 1


def test_a_transaction_that_is_never_committed_ends_with_what_to_do():
    desk = desk_at(3)

    def twist(path: str, answer: Any) -> Any:
        return {**answer, "height": 0}

    data = signed(Transfer(OWNERS[0].public, 1))
    error = refused(twist, lambda server: server.client.submit(data, timeout_s=0.3), desk, kind=UnreachableError)
    assert error.code == "not_committed_yet" and "sign" in error.hint


def test_the_faucet_by_way_of_the_client():
    account = encode_account(b"n" * 32)

    async def ask(server: LyingServer) -> None:
        await server.client.ask_faucet(account)
        assert (await server.client.read([keys.account_key(b"n" * 32)])).get(keys.account_key(b"n" * 32), Account)
        await server.client.ask_faucet(account)

    assert refused(None, ask, kind=RefusedError).code == "account_exists"


def test_a_pruned_height_is_no_lie():
    desk = desk_at(5)
    desk.pruned_below = 4
    assert refused(None, read(KEY, height=2), desk, kind=RefusedError).code == "height_pruned"


def answer_with(content: bytes, headers: bytes = b"", status: bytes = b"200 OK") -> Callable[[Any], Awaitable[None]]:
    async def raw(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 " + status + b"\r\n" + headers + b"connection: close\r\n\r\n" + content)
        await writer.drain()

    return raw


def raw_error(raw: Callable[[Any], Awaitable[None]], **settings_: Any) -> FreeholdError:
    async def work(server: LyingServer) -> None:
        server.raw = raw
        await server.client.read([KEY])

    with pytest.raises(FreeholdError) as caught:
        with_server(work, **settings_)
    return caught.value


def test_an_answer_without_end():
    async def raw(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        while True:
            writer.write(b" " * (1 << 20))
            await writer.drain()

    assert raw_error(raw).code == "oversized"


def test_a_compressed_bomb():
    bomb = zlib.compress(b" " * (4 * MAX_RESPONSE_BYTES))
    error = raw_error(answer_with(bomb, b"content-encoding: deflate\r\n"))
    assert isinstance(error, NotVerifiedError) and error.code == "bad_answer"


def test_an_answer_that_drips():
    """Each byte comes in time; the whole never does."""

    async def raw(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    error = raw_error(raw, timeout_s=0.2)
    assert isinstance(error, UnreachableError) and error.code == "ledger_unreachable"


def test_silence_and_a_closed_door():
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def closed(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    for raw in (silent, closed):
        assert isinstance(raw_error(raw, timeout_s=0.2), UnreachableError)


@pytest.mark.parametrize("status", [b"500 X", b"503 X", b"404 X", b"302 X\r\nlocation: http://127.0.0.1:1/"])
def test_errors_that_are_none_of_ours(status):
    assert isinstance(raw_error(answer_with(b"<html>", status=status)), UnreachableError)


@pytest.mark.parametrize(
    ("status", "kind"), [(b"429 X", UnreachableError), (b"503 X", UnreachableError), (b"409 X", RefusedError)]
)
def test_a_servers_words_cannot_write_on_the_terminal(status, kind):
    text = json.dumps({"code": "x\x1b[2J", "message": "hi\x1b]0;title\x07" + "a" * 100_000, "hint": "\u202e"})
    error = raw_error(answer_with(text.encode(), status=status))
    assert isinstance(error, kind) and len(error.message) <= 300
    assert all(char.isprintable() for char in error.code + error.message + error.hint)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"height":1,"light_block":"AA","values":[]}',
        b'{"height":1,"light_block":"","values":[]}',
        b'{"height":1,"light_block":"CgA=","values":[]}',
        b'{"height":"1","light_block":"","values":[]}',
    ],
)
def test_malformed_answers(content):
    error = raw_error(answer_with(content))
    assert isinstance(error, NotVerifiedError) and error.code == "bad_answer"


@pytest.mark.parametrize(
    ("field", "text"), [("value", "zz"), ("value", "9"), ("proof", "!"), ("proof", "AA=="), ("proof", "")]
)
def test_malformed_values(field, text):
    def twist(path: str, answer: Any) -> Any:
        answer["values"][0][field] = text
        return answer

    refused(twist, read(KEY))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_flipped_byte_of_an_answer_changes_what_is_believed(data):
    desk = desk_at(2)

    async def work(server: LyingServer) -> None:
        honest = (await server.face.post("/v1/state", {"keys": [KEY.hex(), ABSENT.hex()]})).content
        expected = {KEY: desk.states[1].values[KEY], ABSENT: None}
        at = data.draw(st.integers(0, len(honest) - 1))
        flipped = honest[:at] + bytes([honest[at] ^ data.draw(st.integers(1, 255))]) + honest[at + 1 :]
        server.raw = answer_with(flipped, b"content-length: %d\r\n" % len(flipped))
        try:
            snapshot = await server.client.read([KEY, ABSENT])
        except (NotVerifiedError, UnreachableError):
            return
        assert snapshot.values == expected and snapshot.at.height == 2

    with_server(work, desk)
