"""Bodies of calls: uploads, downloads and splices, whole, cut off, or never read."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from transport_rig import TIMEOUT_MS, Number, method, refusal, rig, still_serves, until

from freehold.base.codec import encode
from freehold.base.errors import (
    FreeholdError,
    RefusedError,
)
from freehold.transport.errors import (
    RemoteAnswer,
    RemoteRefusedError,
    StreamResetError,
)
from freehold.transport.methods import CallContext, Kind, ServerLimits
from freehold.transport.ports import StreamPort
from freehold.transport.wire import chunk_bytes, end_bytes, read_response, request_bytes


async def count(context: CallContext, request: Number) -> Number:
    total = 0
    async for chunk in context.body():
        total += len(chunk)
    return Number(total)


async def pieces(number: int, size: int = 1_000) -> AsyncIterator[bytes]:
    for _ in range(number):
        yield bytes(size)


def test_an_upload_arrives_whole_and_is_cut_to_chunks() -> None:
    async def scenario() -> None:
        async with rig([method("count", count, Kind.UPLOAD)]) as it:
            for number, size in ((0, 1), (3, 1_000), (2, 1_000_000)):
                answer = await it.peer.upload("count", Number(0), pieces(number, size), Number, TIMEOUT_MS)
                assert answer == Number(number * size)

    asyncio.run(scenario())


def test_uploads_are_bounded_in_size_and_slowness() -> None:
    async def scenario() -> None:
        methods = [
            method("count", count, Kind.UPLOAD, max_body_bytes=5_000, timeout_ms=100),
            method("fast", count, Kind.UPLOAD, timeout_ms=100, min_bytes_per_second=1 << 30),
            method("closed", count, Kind.UPLOAD, who=lambda remote_id: False),
        ]
        async with rig(methods) as it:
            for name, code, body in (
                ("count", "oversized", pieces(1_000, 100_000)),
                ("closed", "not_allowed", pieces(1_000, 100_000)),
            ):
                with pytest.raises(RemoteAnswer) as caught:
                    await it.peer.upload(name, Number(0), body, Number, TIMEOUT_MS)
                assert caught.value.code == code
            stream = await it.raw(request_bytes("count", encode(Number(0))) + chunk_bytes(b"x"))
            assert (await refusal(stream)).code == "too_slow", "a gap"

            async def drip() -> AsyncIterator[bytes]:
                while True:
                    await asyncio.sleep(0.02)
                    yield b"x"

            with pytest.raises(RemoteAnswer) as caught:
                await it.peer.upload("fast", Number(0), drip(), Number, TIMEOUT_MS)
            assert caught.value.code == "too_slow", "a trickle"
            await still_serves(it)

    asyncio.run(scenario())


def test_a_truncated_upload_is_never_taken_for_a_whole_one() -> None:
    async def scenario() -> None:
        async with rig([method("count", count, Kind.UPLOAD)]) as it:
            stream = await it.raw(request_bytes("count", encode(Number(0))) + chunk_bytes(b"x"))
            await stream.finish()
            assert (await refusal(stream)).code == "truncated"
            stream = await it.raw(request_bytes("count", encode(Number(0))) + chunk_bytes(b"x") + end_bytes())
            assert await read_response(stream, 100) == encode(Number(1))

    asyncio.run(scenario())


def test_a_body_that_fails_at_the_sender_resets_the_call() -> None:
    seen: list[str] = []
    started = asyncio.Event()

    async def keep(context: CallContext, request: Number) -> Number:
        try:
            async for _ in context.body():
                started.set()
        except FreeholdError as error:
            seen.append(error.code)
            raise
        return request

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        await started.wait()
        raise OSError("disk")

    async def scenario() -> None:
        async with rig([method("keep", keep, Kind.UPLOAD)]) as it:
            with pytest.raises(OSError, match="disk"):
                await it.peer.upload("keep", Number(0), broken(), Number, TIMEOUT_MS)
            await until(lambda: seen == ["stream_reset"])
            await still_serves(it)

    asyncio.run(scenario())


def test_downloads_whole_failing_and_left_early() -> None:
    ended = asyncio.Event()

    async def give(context: CallContext, request: Number) -> Number:
        async def endless() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def failing() -> AsyncIterator[bytes]:
            yield b"first"
            raise RefusedError("half way", code="gone")

        context.download({0: pieces(3, 300_000), 1: failing(), 2: endless()}[request.value])
        return request

    async def scenario() -> None:
        async with rig([method("give", give, Kind.DOWNLOAD)]) as it:
            async with await it.peer.download("give", Number(0), Number, TIMEOUT_MS) as download:
                assert download.response == Number(0)
                assert sum([len(chunk) async for chunk in download]) == 900_000
                assert [chunk async for chunk in download] == []
            failing = await it.peer.download("give", Number(1), Number, TIMEOUT_MS)
            assert await anext(failing) == b"first"
            with pytest.raises(RemoteRefusedError) as caught:
                await anext(failing)
            assert caught.value.code == "gone"
            await failing.aclose()
            async with await it.peer.download("give", Number(2), Number, TIMEOUT_MS) as download:
                assert await anext(download) == b"first"
            await asyncio.wait_for(ended.wait(), 5)
            await until(lambda: it.server.load == (1, 0, 0))

    asyncio.run(scenario())


def test_a_download_whose_caller_does_not_read_is_cut_off() -> None:
    async def give(context: CallContext, request: Number) -> Number:
        context.download(pieces(1_000, 100_000))
        return request

    async def scenario() -> None:
        async with rig([method("give", give, Kind.DOWNLOAD, timeout_ms=100)]) as it:
            download = await it.peer.download("give", Number(0), Number, TIMEOUT_MS)
            await until(lambda: it.server.load[1] == 0)
            with pytest.raises(StreamResetError):
                async for _ in download:
                    pass

    asyncio.run(scenario())


def test_splices() -> None:
    async def shout(context: CallContext, request: Number) -> Number:
        async def run(stream: StreamPort) -> None:
            while data := await stream.read(100):
                await stream.write(data.upper())
            if request.value == 0:
                await stream.finish()

        context.splice(run)
        return request

    async def scenario() -> None:
        async with rig([method("shout", shout, Kind.SPLICE)], ServerLimits(splices_per_peer=2)) as it:
            response, stream = await it.peer.splice("shout", Number(0), Number, TIMEOUT_MS)
            assert response == Number(0)
            await stream.write(b"hello")
            assert await stream.read_exactly(5) == b"HELLO"
            _, second = await it.peer.splice("shout", Number(1), Number, TIMEOUT_MS)
            with pytest.raises(RemoteRefusedError) as caught:
                await it.peer.splice("shout", Number(0), Number, TIMEOUT_MS)
            assert caught.value.code == "busy"
            assert it.server.load == (1, 0, 2)
            await stream.finish()
            assert await stream.read(1) == b""
            await second.finish()
            with pytest.raises(StreamResetError):  # the handler left it open
                await second.read(1)
            await until(lambda: it.server.load == (1, 0, 0))
            await still_serves(it)

    asyncio.run(scenario())
