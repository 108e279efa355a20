"""A validator's key behind the engine's remote signer protocol, with a clock that is far off.

The engine listens on a unix socket, the signer dials it and answers: public key, votes, proposals, pings. Every vote's
time is shifted; proposals, heights, rounds and blocks are signed as asked.
Source: CometBFT v0.38.25 privval/, proto/tendermint/privval/types.proto, types/canonical.go.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from freehold.crypto.ed25519 import PrivateKey
from freehold.light.blocks import Vote
from freehold.light.headers import vote_sign_bytes
from freehold.light.types import NIL_BLOCK_ID, ZERO_TIME, BlockID, PublicKey, SignedMsgType, Timestamp
from freehold.light.wire import Field, Kind, Message, decode_varint, encode_varint, length_delimited

PROPOSAL = 32
CHAIN_BYTES = 64


class SignVote(Message, frozen=True):
    """Please sign this vote."""

    vote: Vote
    chain_id: str = ""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "vote", Kind.MESSAGE, Vote),
        Field(2, "chain_id", Kind.STRING, limit=CHAIN_BYTES),
    )


class Proposal(Message, frozen=True):
    """A proposer's signed word for a block."""

    type: int = PROPOSAL
    height: int = 0
    round: int = 0
    pol_round: int = 0
    block_id: BlockID = NIL_BLOCK_ID
    timestamp: Timestamp = ZERO_TIME
    signature: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "type", Kind.ENUM),
        Field(2, "height", Kind.INT64),
        Field(3, "round", Kind.INT32),
        Field(4, "pol_round", Kind.INT32),
        Field(5, "block_id", Kind.MESSAGE, BlockID),
        Field(6, "timestamp", Kind.MESSAGE, Timestamp),
        Field(7, "signature", Kind.BYTES, limit=64),
    )


class SignProposal(Message, frozen=True):
    """Please sign this proposal."""

    proposal: Proposal
    chain_id: str = ""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "proposal", Kind.MESSAGE, Proposal),
        Field(2, "chain_id", Kind.STRING, limit=CHAIN_BYTES),
    )


class CanonicalProposal(Message, frozen=True):
    """What a proposer signs."""

    type: int
    height: int
    round: int
    pol_round: int
    block_id: BlockID
    timestamp: Timestamp
    chain_id: str

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "type", Kind.ENUM),
        Field(2, "height", Kind.SFIXED64),
        Field(3, "round", Kind.SFIXED64),
        Field(4, "pol_round", Kind.INT64),
        Field(5, "block_id", Kind.OPTIONAL, BlockID),
        Field(6, "timestamp", Kind.MESSAGE, Timestamp),
        Field(7, "chain_id", Kind.STRING, limit=CHAIN_BYTES),
    )


class CanonicalExtension(Message, frozen=True):
    """What a validator signs of its vote extension."""

    extension: bytes
    height: int
    round: int
    chain_id: str

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "extension", Kind.BYTES, limit=1 << 20),
        Field(2, "height", Kind.SFIXED64),
        Field(3, "round", Kind.SFIXED64),
        Field(4, "chain_id", Kind.STRING, limit=CHAIN_BYTES),
    )


class ShiftedSigner:
    """Answers requests; see the module."""

    def __init__(self, key: PrivateKey, shift_ms: int) -> None:
        self._key = key
        self._shift_ms = shift_ms

    def answer(self, number: int, body: bytes) -> tuple[int, bytes]:
        """The number and body of the answer to a request."""
        match number:
            case 1:
                return 2, length_field(1, PublicKey(self._key.public).encode())
            case 3:
                return 4, length_field(1, self._vote(SignVote.decode(body)).encode())
            case 5:
                return 6, length_field(1, self._proposal(SignProposal.decode(body)).encode())
        return 8, b""

    def _shifted(self, time: Timestamp) -> Timestamp:
        return Timestamp(time.seconds + self._shift_ms // 1_000, time.nanos)

    def _vote(self, request: SignVote) -> Vote:
        vote, at = request.vote, self._shifted(request.vote.timestamp)
        signed = vote_sign_bytes(request.chain_id, vote.type, vote.height, vote.round, vote.block_id, at)
        extension_signature = b""
        if vote.type == SignedMsgType.PRECOMMIT and not vote.block_id.is_nil:
            extension = CanonicalExtension(vote.extension, vote.height, vote.round, request.chain_id)
            extension_signature = self._key.sign(length_delimited(extension.encode()))
        fields = {field.name: getattr(vote, field.name) for field in Vote.FIELDS}
        return Vote(
            **fields
            | {"timestamp": at, "signature": self._key.sign(signed), "extension_signature": extension_signature}
        )

    def _proposal(self, request: SignProposal) -> Proposal:
        """Sign a proposal at its own time: the engine takes a signer's time for votes alone (consensus/state.go)."""
        plain = request.proposal
        signed = CanonicalProposal(
            PROPOSAL, plain.height, plain.round, plain.pol_round, plain.block_id, plain.timestamp, request.chain_id
        )
        fields = {field.name: getattr(plain, field.name) for field in Proposal.FIELDS}
        return Proposal(**fields | {"signature": self._key.sign(length_delimited(signed.encode()))})


def length_field(number: int, data: bytes) -> bytes:
    return encode_varint(number << 3 | 2) + length_delimited(data)


def serve_signer(path: Path, key: PrivateKey, shift_ms: int) -> None:
    """Dial the engine as long as this process lives, on a thread of its own."""
    signer = ShiftedSigner(key, shift_ms)

    def body() -> None:
        while True:
            with contextlib.suppress(OSError, EOFError), socket.socket(socket.AF_UNIX) as engine:
                engine.connect(str(path))
                stream = engine.makefile("rb")
                while True:
                    frame = stream.read(read_length(stream.read))
                    tag, start = decode_varint(frame, 0, len(frame))
                    size, start = decode_varint(frame, start, len(frame))
                    number, answered = signer.answer(tag >> 3, frame[start : start + size])
                    engine.sendall(length_delimited(length_field(number, answered)))
            time.sleep(0.1)

    threading.Thread(target=body, daemon=True).start()


def read_length(read: Callable[[int], bytes]) -> int:
    length, shift = 0, 0
    while True:
        byte = read(1)
        if not byte:
            raise EOFError
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return length
