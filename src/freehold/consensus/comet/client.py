"""The engine's own RPC, over the unix socket in the home: JSON-RPC 2.0, the few calls that are needed.

What it says is as trusted as the child process is; who trusts nobody verifies light blocks.
Source: CometBFT v0.38.25 rpc/core, rpc/jsonrpc.
"""

import base64
import binascii
from pathlib import Path
from typing import Any, Final, Self

import httpx2
import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import FreeholdError, RemoteProtocolError, UnreachableError
from freehold.consensus.abci.following import FinalBlock
from freehold.consensus.abci.service import ABSENT, EVENT_KEY, STORE_PATH
from freehold.consensus.application import Event, TxResult
from freehold.light.genesis import TrustedGenesis, parse_time
from freehold.light.headers import make_validator, make_validator_set
from freehold.light.types import (
    MAX_VALIDATORS,
    BlockID,
    BlockIDFlag,
    Commit,
    CommitSig,
    Header,
    LightBlock,
    PartSetHeader,
    SignedHeader,
    ValidatorSet,
    Version,
)

TIMEOUT_S: Final = 10.0
MAX_ANSWER_BYTES: Final = 16 << 20
MAX_CONNECTIONS: Final = 32  # the engine's own limit is 64
IDLE_S: Final = 5.0  # the engine closes what is idle for ten
PAGE: Final = 100
_STATUS: Final = ("status", "net_info", "num_unconfirmed_txs")


class RpcError(FreeholdError):
    """The engine refused a call; `code` is `rpc_refused`, the message its own."""


class EngineStatus(msgspec.Struct, frozen=True):
    """Where the engine stands: its newest and oldest block, whether it still fetches old ones, peers, what waits."""

    height: int
    lowest_height: int
    app_hash: bytes
    catching_up: bool
    peers: int
    waiting_txs: int = 0
    waiting_bytes: int = 0


class CometClient:
    """Calls one engine; used from one event loop."""

    def __init__(self, socket: Path) -> None:
        self._http = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(
                uds=str(socket),
                limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=IDLE_S),
            ),
            base_url="http://engine",
            timeout=TIMEOUT_S,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def status(self) -> EngineStatus:
        """Ask where the engine stands, in one request."""
        calls = [{"jsonrpc": "2.0", "id": at, "method": method, "params": {}} for at, method in enumerate(_STATUS)]
        try:
            answers = decode_json(await self.relay(msgspec.json.encode(calls)), list[dict[str, Any]])
            status, net, waiting = (_result(one) for one in sorted(answers, key=lambda one: int(one["id"])))
            sync = status["sync_info"]
            return EngineStatus(
                height=int(sync["latest_block_height"]),
                lowest_height=int(sync["earliest_block_height"]),
                app_hash=bytes.fromhex(sync["latest_app_hash"]),
                catching_up=bool(sync["catching_up"]),
                peers=int(net["n_peers"]),
                waiting_txs=int(waiting["total"]),
                waiting_bytes=int(waiting["total_bytes"]),
            )
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise _malformed("status", error) from None

    async def submit(self, tx: bytes) -> tuple[int, str]:
        """Offer a transaction.

        Returns:
            The application's code and text.

        Raises:
            RpcError: the engine refused it itself: it waits already, is too long, or there is no room.
        """
        answer = await self._call("broadcast_tx_sync", tx=base64.b64encode(tx).decode())
        return int(answer["code"]), str(answer["log"])

    async def final_block(self, height: int) -> FinalBlock:
        """Get a block of the past with what it did.

        Raises:
            RpcError: that block is not kept any more, or not made yet.
        """
        block = await self._call("block", height=str(height))
        done = await self._call("block_results", height=str(height))
        try:
            header = block["block"]["header"]
            return FinalBlock(
                height=height,
                time_ms=parse_time(header["time"]).ms,
                hash=bytes.fromhex(block["block_id"]["hash"]),
                txs=tuple(_base64(tx) for tx in block["block"]["data"]["txs"] or ()),
                results=tuple(_tx_result(result) for result in done["txs_results"] or ()),
                app_hash=_base64(done["app_hash"] or ""),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed("block", error) from None

    async def kept_heights(self) -> tuple[int, int]:
        """Find the lowest and the newest block of an engine that may be merely inspected; (0, 0) without blocks."""
        try:
            newest = int((await self._call("blockchain"))["last_height"])
        except RpcError:  # as it answers for an empty store
            return 0, 0
        first, last = 1, newest
        while first < last:
            middle = (first + last) // 2
            try:
                await self._call("header", height=str(middle))
            except RpcError:
                first = middle + 1
            else:
                last = middle
        return first, newest

    async def state_value(self, key: bytes, height: int) -> bytes | None:
        """Get the value at a key of the application's state after a height; None where it has none.

        Raises:
            RpcError: that state is not kept, or not made yet.
        """
        answer = await self._call("abci_query", path=STORE_PATH.decode(), data=key.hex(), height=str(height))
        try:
            response = answer["response"]
            if int(response.get("code") or 0):
                raise RpcError(f"the application refused: {response.get('log')}", code="rpc_refused")
            return None if response.get("log") == ABSENT else _base64(response.get("value") or "")
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed("abci_query", error) from None

    async def validators(self, height: int) -> ValidatorSet:
        """Get the validators who sign the block of a height.

        Raises:
            RpcError: that height is not kept any more, or too far ahead.
        """
        members: list[tuple[bytes, int]] = []
        for page in range(1, -(-MAX_VALIDATORS // PAGE) + 1):
            answer = await self._call("validators", height=str(height), page=str(page), per_page=str(PAGE))
            try:
                members += [
                    (_base64(one["pub_key"]["value"]), int(one["voting_power"])) for one in answer["validators"]
                ]
                if len(members) >= int(answer["total"]):
                    break
            except (KeyError, TypeError, ValueError) as error:
                raise _malformed("validators", error) from None
        return make_validator_set([make_validator(key, power) for key, power in members])

    async def light_block(self, height: int, genesis: TrustedGenesis) -> LightBlock:
        """Get the light block of a height.

        Args:
            height: of the block.
            genesis: its validators need not be asked for, where the header names them.

        Raises:
            RpcError: that block is not kept any more, or not made yet.
        """
        answer = await self._call("commit", height=str(height))
        try:
            signed = SignedHeader(
                _header(answer["signed_header"]["header"]), _commit(answer["signed_header"]["commit"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed("commit", error) from None
        if signed.header.validators_hash == genesis.validators_hash:
            return LightBlock(signed, genesis.validators)
        return LightBlock(signed, await self.validators(height))

    async def relay(self, body: bytes) -> bytes:
        """Hand a JSON-RPC request to the engine as it is, and give its answer as it is.

        Raises:
            UnreachableError: it does not answer.
        """
        try:
            response = await self._http.post("/", content=body, headers={"content-type": "application/json"})
            data = response.content
        except (httpx2.HTTPError, OSError) as error:
            raise _unreachable(error) from None
        if len(data) > MAX_ANSWER_BYTES:
            raise _malformed("a call", "too long")
        return data

    async def _call(self, method: str, **params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            response = await self._http.post("/", json=body)
            data = response.content
        except (httpx2.HTTPError, OSError) as error:
            raise _unreachable(error) from None
        if len(data) > MAX_ANSWER_BYTES:
            raise _malformed(method, "too long")
        try:
            answer = decode_json(data, dict[str, Any])
        except msgspec.MsgspecError as error:
            raise _malformed(method, error) from None
        return _result(answer)


def _result(answer: dict[str, Any]) -> Any:
    if answer.get("error"):
        refused = answer["error"]
        raise RpcError(f"{refused.get('message')}: {refused.get('data')}", code="rpc_refused")
    return answer.get("result")


def _header(value: dict[str, Any]) -> Header:
    return Header(
        version=Version(int(value["version"]["block"]), int(value["version"].get("app", 0))),
        chain_id=value["chain_id"],
        height=int(value["height"]),
        time=parse_time(value["time"]),
        last_block_id=_block_id(value["last_block_id"]),
        last_commit_hash=bytes.fromhex(value["last_commit_hash"]),
        data_hash=bytes.fromhex(value["data_hash"]),
        validators_hash=bytes.fromhex(value["validators_hash"]),
        next_validators_hash=bytes.fromhex(value["next_validators_hash"]),
        consensus_hash=bytes.fromhex(value["consensus_hash"]),
        app_hash=bytes.fromhex(value["app_hash"]),
        last_results_hash=bytes.fromhex(value["last_results_hash"]),
        evidence_hash=bytes.fromhex(value["evidence_hash"]),
        proposer_address=bytes.fromhex(value["proposer_address"]),
    )


def _commit(value: dict[str, Any]) -> Commit:
    return Commit(
        int(value["height"]),
        int(value["round"]),
        _block_id(value["block_id"]),
        tuple(_commit_sig(entry) for entry in value["signatures"]),
    )


def _commit_sig(value: dict[str, Any]) -> CommitSig:
    if int(value["block_id_flag"]) == BlockIDFlag.ABSENT:
        return CommitSig()
    return CommitSig(
        int(value["block_id_flag"]),
        bytes.fromhex(value["validator_address"]),
        parse_time(value["timestamp"]),
        _base64(value["signature"] or ""),
    )


def _tx_result(value: dict[str, Any]) -> TxResult:
    events = tuple(
        Event(event["type"], bytes.fromhex(attribute["value"]))
        for event in value["events"] or ()
        for attribute in event["attributes"]
        if attribute["key"] == EVENT_KEY
    )
    return TxResult(int(value["code"]), _base64(value.get("data") or ""), events)


def _block_id(value: dict[str, Any]) -> BlockID:
    parts = value["parts"]
    return BlockID(bytes.fromhex(value["hash"]), PartSetHeader(int(parts["total"]), bytes.fromhex(parts["hash"])))


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise _malformed("base64", error) from None


def _unreachable(error: Exception) -> UnreachableError:
    return UnreachableError(
        f"the engine does not answer: {type(error).__name__} {error}",
        code="engine_unreachable",
        hint="start it with `freehold ledger run`, or read engine/engine.log",
    )


def _malformed(what: str, why: object) -> RemoteProtocolError:
    return RemoteProtocolError(f"the engine's answer to {what} is malformed: {why}", code="bad_engine_answer")
