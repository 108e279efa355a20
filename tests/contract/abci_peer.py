"""The engine's side of ABCI for tests: four connections on which requests are pipelined, as CometBFT's client does."""

import asyncio
import contextlib
from pathlib import Path
from typing import ClassVar

from engine_fixtures import GENESIS_MS, VALIDATOR

from freehold.consensus.abci import message_parts as parts
from freehold.consensus.abci import messages as wire
from freehold.consensus.abci.framing import FrameBuffer, decode_response, encode_request
from freehold.crypto.hashing import sha256
from freehold.light.types import PublicKey, Timestamp

ADDRESS = sha256(VALIDATOR.public)[:20]


class Connection:
    """One connection; `close_all` ends those that a test left open."""

    _opened: ClassVar[list["Connection"]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._opened.append(self)
        self._buffer = FrameBuffer()
        self._ready: list[wire.Response] = []

    @classmethod
    async def open(cls, path: Path) -> "Connection":
        return cls(*await asyncio.open_unix_connection(path))

    def send(self, *requests: wire.Request) -> None:
        self.writer.write(b"".join(map(encode_request, requests)))

    async def receive(self) -> wire.Response | None:
        """The next response; None when the server has closed."""
        while not self._ready:
            data = await self.reader.read(65_536)
            if not data:
                return None
            self._ready += map(decode_response, self._buffer.feed(data))
        return self._ready.pop(0)

    async def ask(self, request: wire.Request) -> wire.Response | None:
        """Ask and flush, as the engine's blocking calls do."""
        self.send(request, wire.RequestFlush())
        answer = await self.receive()
        if isinstance(answer, wire.ResponseException):
            return answer
        assert await self.receive() == wire.ResponseFlush()
        return answer

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    @classmethod
    async def close_all(cls) -> None:
        while cls._opened:
            await cls._opened.pop().close()


def init_chain(app_state: bytes = b"{}", chain_id: str = "kv-1") -> wire.RequestInitChain:
    validators = (parts.ValidatorUpdate(PublicKey(VALIDATOR.public), 10),)
    return wire.RequestInitChain(Timestamp.from_ms(GENESIS_MS), chain_id, validators, app_state, 1)


def time_of(height: int) -> Timestamp:
    return Timestamp.from_ms(GENESIS_MS + height * 1_000)


async def make_block(connection: Connection, height: int, *txs: bytes, time: Timestamp | None = None) -> bytes:
    """Propose, process, finalize and commit a block; gives the app hash."""
    moment = time or time_of(height)
    prepared = await connection.ask(wire.RequestPrepareProposal(1_000_000, txs, height, moment, ADDRESS))
    assert isinstance(prepared, wire.ResponsePrepareProposal), prepared
    processed = await connection.ask(wire.RequestProcessProposal(prepared.txs, height, moment, ADDRESS))
    assert processed == wire.ResponseProcessProposal(wire.Status.ACCEPT)
    final = await connection.ask(wire.RequestFinalizeBlock(prepared.txs, b"", height, moment, ADDRESS))
    assert isinstance(final, wire.ResponseFinalizeBlock), final
    assert isinstance(await connection.ask(wire.RequestCommit()), wire.ResponseCommit)
    return final.app_hash
