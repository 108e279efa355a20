"""What is fuzzed: every reader of bytes from outside, with what must hold whatever the bytes are.

A target returns when the bytes were read or properly refused. Anything else, a wrong kind of error or a value that does
not encode to what was read, is a finding; keep its input under `tests/fuzz/findings/TARGET/`.
"""

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from freehold.base.codec import Record, decode, encode
from freehold.base.errors import FreeholdError, InvalidInputError, NotVerifiedError
from freehold.base.presets import MINIMAL
from freehold.client.compose.checking import check_compose
from freehold.consensus.abci import messages as wire
from freehold.consensus.abci.framing import FrameBuffer, decode_request, encode_request
from freehold.consensus.state_store import StateStore
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.strkey import decode_account, encode_account
from freehold.ledger.genesis import app_state_document
from freehold.ledger.transactions import TX_VERSION, Transfer, Tx, decode_tx
from freehold.light.genesis import genesis_document, parse_genesis
from freehold.light.ics23 import SMT, CommitmentProof, verify_absence, verify_existence
from freehold.light.proof_file import parse_proof_file
from freehold.light.types import LightBlock, Timestamp
from freehold.light.wire import length_delimited
from freehold.protocol.spec import ServiceSpec
from freehold.rpc.answers import StateRequest, TxRequest
from freehold.runtime.images.manifest import parse_archive_manifest, parse_config, parse_index, parse_manifest

FINDINGS: Final = Path(__file__).parent / "findings"
VECTORS: Final = Path(__file__).parents[1] / "vectors"
KEY: Final = PrivateKey.from_seed(b"fuzz" + bytes(28))

Target = Callable[[bytes], None]


def read_tx(data: bytes) -> None:
    """A transaction has one form."""
    try:
        tx = decode_tx(data)
    except InvalidInputError:
        return
    assert encode(tx) == data


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
    """The bodies of the ledger's HTTP face."""
    for kind in (StateRequest, TxRequest):
        try:
            msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, ValueError):
            continue


def read_spec(data: bytes) -> None:
    """What a tenant seals for a node."""
    _one_form(ServiceSpec, data)


def read_compose(data: bytes) -> None:
    """Every problem of a compose file is told; none is an exception."""
    result = check_compose(data, environment={"A": "b"})
    assert result.ok == (result.model is not None)


def read_image(data: bytes) -> None:
    """The documents of an image."""
    for parse in (parse_index, parse_manifest, parse_archive_manifest, lambda raw: parse_config(raw, 1)):
        _read_or_refuse(parse, data)


def read_account(data: bytes) -> None:
    """An account's text has one form."""
    try:
        account = decode_account(data.decode("latin-1"))
    except InvalidInputError:
        return
    assert encode_account(account).encode() == data


def _one_form(kind: type[Record], data: bytes) -> None:
    try:
        value = decode(data, kind)
    except InvalidInputError:
        return
    assert encode(value) == data


def _read_or_refuse(parse: Callable[[bytes], object], data: bytes) -> None:
    try:
        parse(data)
    except FreeholdError as error:
        assert error.code and error.message


TARGETS: Final[dict[str, Target]] = {
    target.__name__.removeprefix("read_"): target
    for target in (
        read_tx,
        read_abci,
        read_light_block,
        read_commitment,
        read_genesis,
        read_proof_file,
        read_rpc,
        read_spec,
        read_compose,
        read_image,
        read_account,
    )
}


def seeds(name: str) -> Iterable[bytes]:
    """Where a target begins: well-formed inputs, then what was found before."""
    yield from _SEEDS.get(name, ())
    yield from (path.read_bytes() for path in sorted((FINDINGS / name).glob("*")))


def _make_seeds() -> dict[str, list[bytes]]:
    transfer = Tx(TX_VERSION, "chain", KEY.public, 1, 10_000, 50, Transfer(KEY.public, 7), [(KEY.public, bytes(64))])
    requests: list[wire.Request] = [
        wire.RequestFlush(),
        wire.RequestCheckTx(encode(transfer)),
        wire.RequestQuery(b"key", b"/store", 3, prove=True),
        wire.RequestPrepareProposal(1_000, (b"a", b"", b"b"), 7, Timestamp(1), bytes(20)),
        wire.RequestVerifyVoteExtension(bytes(32), bytes(20), 9, b"ext"),
    ]
    golden = json.loads((VECTORS / "light_cometbft_v0_38_25.json").read_text())
    genesis = genesis_document(
        chain_id="chain",
        genesis_time=Timestamp.from_ms(1_700_000_000_000),
        validators=[(KEY.public, 10, "v")],
        app_state=app_state_document(MINIMAL, [], [], accounts={KEY.public: 5}),
    )
    compose = (Path(__file__).parents[2] / "examples/guestbook/compose.yaml").read_bytes()
    digest = "sha256:" + "ab" * 32
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": 3},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": 9}],
    }
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest]}}
    return {
        "tx": [encode(transfer)],
        "abci": [b"".join(map(encode_request, requests)), length_delimited(b"\x22\x00")],
        "light_block": [bytes.fromhex(text) for text in _hex_strings(golden)][:20],
        "commitment": _proofs(),
        "genesis": [genesis],
        "proof_file": [b'{"chain_id":"c","format":"freehold-proof/1","light_blocks":[],"proofs":[],"witness":[]}'],
        "rpc": [b'{"keys":["00"],"height":1}', b'{"tx":"AAAA","wait":"committed"}'],
        "compose": [compose, b"services: {web: {image: a:1, ports: ['80'], environment: {A: '${A:-x}'}}}"],
        "image": [json.dumps(manifest).encode(), json.dumps(config).encode()],
        "account": [encode_account(KEY.public).encode()],
    }


def _proofs() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        store = StateStore.open(Path(folder) / "state", 4)
        store.stage(1, {bytes([number]) * 8: bytes([number]) for number in range(40)})
        store.commit()
        found = [store.prove(key, 1)[1] for key in (b"\x07" * 8, b"\x09" * 8, b"absent")]
        store.close()
    return found


def _hex_strings(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _hex_strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _hex_strings(item)
    elif isinstance(value, str) and len(value) > 64 and not set(value) - set("0123456789abcdef"):
        yield value


_SEEDS: Final = _make_seeds()
