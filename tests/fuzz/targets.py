"""What is fuzzed: every reader of bytes from outside, with what must hold whatever the bytes are.

A target returns when the bytes were read or properly refused. Anything else, a wrong kind of error or a value that does
not encode to what was read, is a finding; keep its input under `tests/fuzz/findings/TARGET/`.
"""

import io
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request as HttpRequest
from worlds import CHAIN, chain, ledger, signed_headers

from freehold.base.codec import decode, encode
from freehold.base.errors import FreeholdError, InvalidInputError, NotVerifiedError, RemoteProtocolError
from freehold.client.compose.checking import check_compose
from freehold.consensus.abci.framing import FrameBuffer, decode_request, encode_request
from freehold.consensus.snapshot_format import decode_chunk, decode_metadata, encode_metadata, encode_record
from freehold.crypto.strkey import decode_account, encode_account
from freehold.ledger.codes import Code
from freehold.ledger.execute import BlockInput, beacon_tx, execute_block
from freehold.ledger.invariants import check_state
from freehold.ledger.transactions import FREE_BODIES, beacon_signing_bytes, decode_tx, tx_signing_bytes
from freehold.light.genesis import parse_genesis
from freehold.light.headers import header_hash
from freehold.light.ics23 import SMT, CommitmentProof, verify_absence, verify_existence
from freehold.light.proof_file import parse_proof_file
from freehold.light.skipping import TrustBounds, verify_hop
from freehold.light.trust import trust_genesis
from freehold.light.types import LightBlock
from freehold.protocol.spec import ServiceSpec, check_spec
from freehold.rpc.requests import read_body, read_query
from freehold.rpc.routes import ROUTES
from freehold.runtime.images.manifest import parse_archive_manifest, parse_config, parse_index, parse_manifest
from freehold.runtime.images.tarstream import BLOCK, Kind, TarReader
from freehold.runtime.images.tree import Tree
from freehold.transport.wire import read_chunk, read_request_head, read_response

T = TypeVar("T")
Target = Callable[[bytes], None]

_BODIES: Final = [route.body for route in ROUTES if route.body is not None]
_QUERIES: Final = [None, *(route.query for route in ROUTES if route.query is not None)]
_BOUNDS: Final = TrustBounds(trust_period_ms=3_600_000, clock_drift_ms=10_000)


def read_tx(data: bytes) -> None:
    """A transaction has one form."""
    try:
        tx = decode_tx(data)
    except InvalidInputError:
        return
    assert encode(tx) == data


def apply_tx(data: bytes) -> None:
    """A transaction that its sender signed does what the rules allow: the state keeps every invariant."""
    grid = ledger()
    try:
        tx = decode_tx(data)
    except InvalidInputError:
        return
    if tx.sender not in grid.key:
        return
    height, now_ms = grid.height + 1, grid.now + 100
    nonce = 0 if isinstance(tx.body, FREE_BODIES) else grid.nonce(tx.sender)
    tx = msgspec.structs.replace(tx, nonce=nonce, signatures=[])
    signed = [(tx.sender, grid.key[tx.sender].sign(tx_signing_bytes(tx)))]
    proposer = grid.key[grid.engine.proposer(height)]
    beacon = beacon_tx(height, proposer.sign(beacon_signing_bytes(CHAIN, height)))
    block = BlockInput(
        height, now_ms, proposer.public, [beacon, encode(msgspec.structs.replace(tx, signatures=signed))]
    )
    result = execute_block(grid.state, block, grid.check_signature)
    assert [Code(one.code) for one in result.results]
    check_state(_changed(grid.state, result.changes))


def read_abci(data: bytes) -> None:
    """Frames come out whole or not at all; a request that is read says the same when it is written again."""
    buffer = FrameBuffer(max_bytes=1 << 16)
    try:
        for frame in buffer.feed(data):
            request = decode_request(frame)
            (again,) = FrameBuffer().feed(encode_request(request))
            assert decode_request(again) == request
    except InvalidInputError:
        return


def read_light_block(data: bytes) -> None:
    """A light block has one form."""
    try:
        block = LightBlock.decode(data)
    except InvalidInputError:
        return
    assert block.encode() == data


def verify_light_block(data: bytes) -> None:
    """Only what the validators signed is verified, adjacent or not."""
    try:
        block = LightBlock.decode(data)
        state = verify_hop(trust_genesis(chain().trusted), block, _BOUNDS, None)
    except (InvalidInputError, NotVerifiedError):
        return
    assert header_hash(block.header) in signed_headers() and state.hash == header_hash(block.header)


def read_commitment(data: bytes) -> None:
    """A proof has one form, and proves nothing of a root that it was not made for."""
    try:
        proof = CommitmentProof.decode(data)
    except InvalidInputError:
        return
    assert proof.encode() == data
    for verify in (
        lambda: verify_existence(SMT, bytes(32), b"key", b"value", proof),
        lambda: verify_absence(SMT, bytes(32), b"key", proof),
    ):
        try:
            verify()
        except (InvalidInputError, NotVerifiedError):
            continue
        raise AssertionError("a proof of the empty root was accepted")


def read_genesis(data: bytes) -> None:
    """A genesis document is read or refused."""
    _read_or_refuse(parse_genesis, data)


def read_proof_file(data: bytes) -> None:
    """A proof file is read or refused."""
    _read_or_refuse(parse_proof_file, data)


def read_rpc(data: bytes) -> None:
    """The bodies of the ledger's HTTP face: one has one meaning."""
    for kind in _BODIES:
        try:
            value = _run(read_body(_http(body=data), kind))
        except FreeholdError as error:
            assert error.code and error.message
            continue
        assert msgspec.json.decode(msgspec.json.encode(value), type=kind) == value


def read_query_string(data: bytes) -> None:
    """The queries of the ledger's HTTP face."""
    for kind in _QUERIES:
        try:
            value = read_query(_http(query=data), kind)
        except FreeholdError as error:
            assert error.code and error.message
            continue
        assert (value is None) == (kind is None)


def read_snapshot(data: bytes) -> None:
    """A snapshot's metadata has one form; its nodes lead to its app hash or are refused."""
    try:
        metadata = decode_metadata(data)
        metadata.nodes()
    except (InvalidInputError, RemoteProtocolError):
        return
    assert encode_metadata(metadata) == data


def read_snapshot_chunk(data: bytes) -> None:
    """A chunk is its records, whole, and nothing else."""
    try:
        records = list(decode_chunk(data))
    except RemoteProtocolError:
        return
    assert b"".join(encode_record(key, value) for key, value in records) == data


def read_call(data: bytes) -> None:
    """A peer's call or answer is read, refused, or ends before its time."""
    for read in (read_request_head, lambda stream: read_response(stream, 1 << 16), read_chunk):
        _read_or_refuse(lambda raw, read=read: _run(read(_Stream(raw))), data)


def read_spec(data: bytes) -> None:
    """What a tenant seals for a node."""
    try:
        spec = decode(data, ServiceSpec)
        check_spec(spec)
    except (InvalidInputError, RemoteProtocolError):
        return
    assert encode(spec) == data


def read_compose(data: bytes) -> None:
    """Every problem of a compose file is told; none is an exception."""
    result = check_compose(data, environment={"A": "b"})
    assert result.ok == (result.model is not None)


def read_image(data: bytes) -> None:
    """The documents of an image."""
    for parse in (parse_index, parse_manifest, parse_archive_manifest, lambda raw: parse_config(raw, 1)):
        _read_or_refuse(parse, data)


def read_layer(data: bytes) -> None:
    """A layer's entries become a tree, or are refused; also when its checksums are right."""
    _read_or_refuse(_lay, data)
    _read_or_refuse(_lay, _summed(data))


def read_account(data: bytes) -> None:
    """An account's text has one form."""
    try:
        account = decode_account(data.decode("latin-1"))
    except InvalidInputError:
        return
    assert encode_account(account).encode() == data


def _read_or_refuse(parse: Callable[[bytes], object], data: bytes) -> None:
    try:
        parse(data)
    except FreeholdError as error:
        assert error.code and error.message


def _lay(data: bytes) -> None:
    tree = Tree()
    tree.begin_layer()
    reader = TarReader(io.BytesIO(data), max_entries=100)
    for entry in reader:
        tree.apply(entry)
        while reader.read(4_096):
            pass
    for path, node in tree.walk():
        assert not {b"..", b"."} & set(path.split(b"/")), path
        assert node.kind is Kind.SYMLINK or tree.lookup(path) is node, path


def _summed(data: bytes) -> bytes:
    """Put the right checksum into each header of a tar, as far as they can be told."""
    raw, at = bytearray(data), 0
    while at + BLOCK <= len(raw):
        raw[at + 148 : at + 156] = b" " * 8
        raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + BLOCK])
        digits = bytes(raw[at + 124 : at + 136]).strip(b" \0")
        size = int(digits, 8) if digits and not digits.strip(b"01234567") else 0
        at += BLOCK * (1 + -(-size // BLOCK))
    return bytes(raw)


class _Stream:
    """A stream that has all its bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read_exactly(self, count: int) -> bytes:
        found, self._data = self._data[:count], self._data[count:]
        if len(found) < count:
            raise RemoteProtocolError("the stream ended", code="truncated")
        return found


def _http(*, query: bytes = b"", body: bytes = b"") -> HttpRequest:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", b"application/json")]
    return HttpRequest({"type": "http", "query_string": query, "headers": headers}, receive)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run what never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise AssertionError("it waits")


def _changed(state: Mapping[bytes, bytes], changes: Mapping[bytes, bytes | None]) -> dict[bytes, bytes]:
    return {key: value for key, value in {**state, **changes}.items() if value is not None}


TARGETS: Final[dict[str, Target]] = {
    "tx": read_tx,
    "rules": apply_tx,
    "abci": read_abci,
    "light_block": read_light_block,
    "light_hop": verify_light_block,
    "commitment": read_commitment,
    "genesis": read_genesis,
    "proof_file": read_proof_file,
    "rpc": read_rpc,
    "query": read_query_string,
    "snapshot": read_snapshot,
    "snapshot_chunk": read_snapshot_chunk,
    "call": read_call,
    "spec": read_spec,
    "compose": read_compose,
    "image": read_image,
    "layer": read_layer,
    "account": read_account,
}
