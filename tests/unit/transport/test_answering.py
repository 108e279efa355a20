"""Serving calls, with callers that keep the rules and callers that do not."""

import asyncio
import random

import pytest
from transport_rig import TIMEOUT_MS, Blob, Number, method, refusal, rig, still_serves, until

from freehold.base.codec import encode
from freehold.base.errors import (
    FreeholdError,
    InvalidInputError,
    InvariantError,
    NotVerifiedError,
    RefusedError,
    RemoteProtocolError,
    UnreachableError,
    check,
)
from freehold.transport.errors import (
    RemoteAnswer,
    RemoteFailedError,
    RemoteInvalidError,
    RemoteNotVerifiedError,
    RemoteRefusedError,
    RemoteUnreachableError,
    StreamResetError,
)
from freehold.transport.methods import CallContext, ServerLimits
from freehold.transport.server import Server
from freehold.transport.wire import RequestHead, read_response, request_bytes


def test_a_call() -> None:
    async def scenario() -> None:
        async with rig() as it:
            await still_serves(it)
            await until(lambda: it.server.load == (1, 0, 0))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (FreeholdError("m", code="c", hint="h"), RemoteFailedError),
        (InvalidInputError("m", code="c", hint="h"), RemoteInvalidError),
        (RefusedError("m", code="c", hint="h"), RemoteRefusedError),
        (UnreachableError("m", code="c", hint="h"), RemoteUnreachableError),
        (NotVerifiedError("m", code="c", hint="h"), RemoteNotVerifiedError),
    ],
)
def test_a_handlers_error_keeps_its_kind(raised: FreeholdError, kind: type[RemoteAnswer]) -> None:
    async def fail(context: CallContext, request: Number) -> Number:
        raise raised

    async def scenario() -> None:
        async with rig([method("fail", fail)]) as it:
            with pytest.raises(kind) as caught:
                await it.peer.call("fail", Number(1), Number, TIMEOUT_MS)
            assert (caught.value.code, caught.value.message, caught.value.hint) == ("c", "m", "h")
            assert caught.value.exit_code == raised.exit_code

    asyncio.run(scenario())


def test_a_defect_is_told_as_internal_and_its_words_stay_here(caplog: pytest.LogCaptureFixture) -> None:
    async def defect(context: CallContext, request: Number) -> Number:
        raise KeyError("a secret of ours")

    async def scenario() -> None:
        async with rig([method("defect", defect)]) as it:
            with pytest.raises(RemoteFailedError) as caught:
                await it.peer.call("defect", Number(1), Number, TIMEOUT_MS)
            assert caught.value.code == "internal"
            assert "secret" not in caught.value.message
            await still_serves(it)

    asyncio.run(scenario())
    assert "a secret of ours" in caplog.text


def test_a_broken_invariant_halts_the_server() -> None:
    async def broken(context: CallContext, request: Number) -> Number:
        check(False, "the_sky_holds")
        return request

    async def scenario() -> None:
        async with rig([method("broken", broken)]) as it:
            with pytest.raises(FreeholdError):
                await it.peer.call("broken", Number(1), Number, TIMEOUT_MS)
            with pytest.raises(InvariantError):
                await it.serving

    asyncio.run(scenario())


def test_a_handler_that_takes_too_long_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def stuck(context: CallContext, request: Number) -> Number:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return request

    async def scenario() -> None:
        async with rig([method("stuck", stuck, timeout_ms=50)]) as it:
            with pytest.raises(RemoteUnreachableError) as caught:
                await it.peer.call("stuck", Number(1), Number, TIMEOUT_MS)
            assert caught.value.code == "timed_out"
            assert cancelled.is_set()
            await still_serves(it)

    asyncio.run(scenario())


def test_handlers_of_a_lost_connection_are_cancelled() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def stuck(context: CallContext, request: Number) -> Number:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return request

    async def scenario() -> None:
        async with rig([method("stuck", stuck, timeout_ms=60_000)]) as it:
            calling = asyncio.ensure_future(it.peer.call("stuck", Number(1), Number, TIMEOUT_MS))
            await started.wait()
            it.pool.drop(it.server_endpoint.node_id, "test")
            with pytest.raises(UnreachableError):
                await calling
            await asyncio.wait_for(cancelled.wait(), 5)
            await until(lambda: it.server.load == (0, 0, 0))

    asyncio.run(scenario())


def test_calls_that_are_refused_before_their_body_is_read() -> None:
    async def scenario() -> None:
        methods = [
            method("closed", lambda context, request: request, who=lambda remote_id: False),
            method("small", lambda context, request: request, max_request_bytes=8, request_type=Blob),
        ]
        async with rig(methods) as it:
            with pytest.raises(RemoteInvalidError) as invalid:
                await it.peer.call("nothing.here", Number(1), Number, TIMEOUT_MS)
            assert invalid.value.code == "unknown_method"
            with pytest.raises(RemoteRefusedError) as refused:
                await it.peer.call("closed", Number(1), Number, TIMEOUT_MS)
            assert refused.value.code == "not_allowed"
            with pytest.raises(RemoteAnswer) as large:
                await it.peer.call("small", Blob(bytes(200_000)), Number, TIMEOUT_MS)
            assert large.value.code == "oversized"
            with pytest.raises(RemoteInvalidError) as wrong:
                await it.peer.call("double", Blob(b"not a number"), Number, TIMEOUT_MS)
            assert wrong.value.code == "undecodable"
            stream = await it.raw(request_bytes("double", b"\x91\xcc\x01"))
            assert (await refusal(stream)).code == "not_canonical"
            await still_serves(it)

    asyncio.run(scenario())


def test_an_answer_of_another_type_is_the_peers_fault() -> None:
    async def lie(context: CallContext, request: Number) -> Blob:
        return Blob(b"x")

    async def scenario() -> None:
        async with rig([method("lie", lie)]) as it:
            with pytest.raises(RemoteProtocolError) as caught:
                await it.peer.call("lie", Number(1), Number, TIMEOUT_MS)
            assert caught.value.code == "undecodable"
            with pytest.raises(RemoteProtocolError) as long:
                await it.peer.call("double", Number(1 << 60), Number, TIMEOUT_MS, max_response_bytes=4)
            assert long.value.code == "oversized"

    asyncio.run(scenario())


def test_an_answer_that_is_too_long_is_our_defect() -> None:
    async def much(context: CallContext, request: Number) -> Blob:
        return Blob(bytes(100))

    async def scenario() -> None:
        async with rig([method("much", much, max_response_bytes=50)]) as it:
            with pytest.raises(RemoteFailedError) as caught:
                await it.peer.call("much", Number(1), Blob, TIMEOUT_MS)
            assert caught.value.code == "internal"

    asyncio.run(scenario())


@pytest.mark.parametrize("sent", [b"", b"\0", request_bytes("double", bytes(9))[:-5]])
def test_slow_senders_are_cut_off(sent: bytes) -> None:
    async def scenario() -> None:
        slow = method("slow", lambda context, request: request, timeout_ms=50)
        async with rig([slow], ServerLimits(head_timeout_ms=50)) as it:
            data = sent.replace(b"\xa6double", b"\xa4slow").replace(b"\x00\x0a", b"\x00\x08")
            stream = await it.raw(data or b"\0")
            assert (await refusal(stream)).code == "too_slow"
            with pytest.raises(StreamResetError):
                for _ in range(1_000):
                    await stream.write(bytes(65_536))
            await until(lambda: it.server.load[1] == 0)
            await still_serves(it)

    asyncio.run(scenario())


def test_garbage_harms_nobody_else() -> None:
    randomness = random.Random(7)

    async def scenario() -> None:
        async with rig() as it:
            connection = await it.connect()
            for round_number in range(60):
                stream = await connection.open()
                garbage = randomness.randbytes(randomness.randrange(1, 400))
                if round_number % 3 == 0:
                    garbage = b"\0\x08" + garbage
                if round_number % 5 == 0:
                    garbage = bytearray(request_bytes("double", encode(Number(5))))
                    garbage[randomness.randrange(len(garbage))] ^= 1 << randomness.randrange(8)
                await stream.write(bytes(garbage))
                match round_number % 4:
                    case 0:
                        await stream.finish()
                    case 1:
                        await stream.reset(round_number)
                    case 2:
                        await stream.stop(1)
                        await stream.finish()
                    case _:
                        with pytest.raises((RemoteAnswer, StreamResetError)):
                            await stream.finish()
                            await read_response(stream, 100)
            await until(lambda: it.server.load[1] == 0)
            await still_serves(it)

    asyncio.run(scenario())


def test_too_many_calls_at_a_time_are_told_busy_and_pings_stay_signs_of_life() -> None:
    gate = asyncio.Event()

    async def wait(context: CallContext, request: Number) -> Number:
        await gate.wait()
        return request

    async def scenario() -> None:
        async with rig([method("wait", wait)], ServerLimits(calls_per_peer=3)) as it:
            calls = [asyncio.ensure_future(it.peer.call("wait", Number(n), Number, TIMEOUT_MS)) for n in range(3)]
            await until(lambda: it.server.load[1] == 3)
            with pytest.raises(RemoteRefusedError) as caught:
                await it.peer.call("double", Number(1), Number, TIMEOUT_MS)
            assert caught.value.code == "busy"
            link = it.pool.existing(it.server_endpoint.node_id)
            assert link is not None
            assert await link.ping(1_000) > 0
            gate.set()
            assert await asyncio.gather(*calls) == [Number(0), Number(1), Number(2)]
            await still_serves(it)

    asyncio.run(scenario())


def test_a_flood_ends_with_its_connection_and_is_not_let_in_at_once() -> None:
    async def scenario() -> None:
        limits = ServerLimits(calls_burst=1, calls_per_second=0)
        async with rig([], limits) as it:
            connection = await it.connect()
            closed = asyncio.ensure_future(connection.closed())

            async def flood() -> None:
                while not closed.done():
                    stream = await connection.open()
                    await stream.write(b"\0")
                    await stream.reset(0)

            flooding = [asyncio.ensure_future(flood()) for _ in range(8)]
            assert "too many calls" in await asyncio.wait_for(closed, 20)
            await asyncio.wait(flooding)
            for task in flooding:
                task.exception()
            again = await it.connect()
            assert "too many calls" in await asyncio.wait_for(again.closed(), 5)
            assert not it.serving.done()

    asyncio.run(scenario())


def test_who_is_not_admitted_cannot_connect() -> None:
    async def scenario() -> None:
        async with rig(admit=lambda remote_id: False) as it:
            connection = await it.connect()
            assert "not admitted" in await asyncio.wait_for(connection.closed(), 5)

    asyncio.run(scenario())


def test_one_name_cannot_have_two_methods() -> None:
    async def scenario() -> None:
        async with rig() as it:
            with pytest.raises(FreeholdError):
                Server(it.server_endpoint, [method("ping", lambda context, request: request)])

    asyncio.run(scenario())


def test_a_head_of_another_version() -> None:
    async def scenario() -> None:
        async with rig() as it:
            head = encode(RequestHead(2, "double", 0))
            stream = await it.raw(len(head).to_bytes(2, "big") + head)
            assert (await refusal(stream)).code == "bad_version"

    asyncio.run(scenario())
