"""Requests as a CometBFT v0.38.25 process wrote them: each is read, and says what is known of that run."""

import json
from pathlib import Path

from freehold.consensus.abci import messages as wire
from freehold.consensus.abci.framing import FrameBuffer, decode_request
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import sha256
from freehold.light.types import Timestamp
from freehold.light.wire import length_delimited

VECTORS = json.loads((Path(__file__).parent / "abci_cometbft_v0_38_25.json").read_text())["requests"]
VALIDATOR = PrivateKey.from_seed(b"v" * 32).public
TX = b"u|a|0|1|1099511627776|x|1"


def test_the_engines_requests_are_read() -> None:
    read = {name: decode_request(bytes.fromhex(frame)) for name, frame in VECTORS.items()}
    assert {name: type(request).__name__ for name, request in read.items()} == {name: name for name in VECTORS}
    assert read["RequestInfo"] == wire.RequestInfo("0.38.25", "2.0.0")
    begin = read["RequestInitChain"]
    assert isinstance(begin, wire.RequestInitChain)
    assert (begin.chain_id, begin.initial_height, begin.app_state_bytes) == ("kv-1", 1, b"{}")
    assert begin.time == Timestamp.from_ms(1_790_000_000_000)
    assert [(one.pub_key.ed25519, one.power) for one in begin.validators] == [(VALIDATOR, 10)]
    assert read["RequestCheckTx"] == wire.RequestCheckTx(TX)
    assert read["RequestQuery"] == wire.RequestQuery(b"kv/x", b"/store", 3, prove=True)
    prepare, process = read["RequestPrepareProposal"], read["RequestProcessProposal"]
    final = read["RequestFinalizeBlock"]
    assert isinstance(prepare, wire.RequestPrepareProposal)
    assert isinstance(process, wire.RequestProcessProposal)
    assert isinstance(final, wire.RequestFinalizeBlock)
    assert prepare.txs == (TX,)
    assert 1_000_000 < prepare.max_tx_bytes < 1 << 20
    assert process.txs == final.txs == (b"!proposer 6", TX)
    assert process.height == final.height == prepare.height == 6
    assert process.time == final.time == prepare.time
    assert len(final.hash) == 32
    assert {one.proposer_address for one in (prepare, process, final)} == {sha256(VALIDATOR)[:20]}


def test_a_stream_of_them_is_cut_into_the_same_frames() -> None:
    contents = [bytes.fromhex(frame) for frame in VECTORS.values()]
    assert list(FrameBuffer().feed(b"".join(map(length_delimited, contents)))) == contents
