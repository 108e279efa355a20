"""The engine's own files, made from the operator's home: configuration, genesis, keys, the last-signed record.

The configuration is written anew at each start, so that the home is its only source. The last-signed record is made
once, for a folder without blocks, and belongs to the engine from then on: a validator whose record is gone while its
blocks are there is refused, for it could sign against itself.

The pace: our application hash changes with every block, and CometBFT follows such a block with the next one at once,
whatever `create_empty_blocks_interval` says. What spaces blocks is `timeout_commit`, here half of the preset's tick:
no tick stays without a block while rounds succeed, and no block comes sooner than `min_block_gap_ms`. A round whose
proposer is dead costs 3/4 of a tick for its proposal and 1/5 for its votes, so one dead validator of four leaves no gap
of two ticks: epochs do not become void by it.
Spec: docs/spec/comet-engine.md. Source: CometBFT v0.38.25 config/config.go, consensus/state.go (`needProofBlock`).
"""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from freehold.base.errors import InvalidInputError
from freehold.base.limits import MAX_TX_BYTES, MIB
from freehold.base.presets import Preset
from freehold.consensus.abci.waiting import QUEUE
from freehold.consensus.comet.addresses import check_server, check_state_sync
from freehold.consensus.comet.operators import OperatorHome, Settings
from freehold.consensus.errors import StorageDamagedError, StorageError
from freehold.consensus.snapshot_format import MAX_CHUNKS
from freehold.consensus.storage import write_file
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import sha256
from freehold.light.genesis import TrustedGenesis
from freehold.light.trust import trust_period_ms

MAX_BLOCK_BYTES: Final = 4 * MIB  # of genesis; a request with a block must fit into a frame
ENGINE_ROUTE: Final = "/v1/engine"  # of the HTTP face: the few calls that a restoring engine makes
CHUNKS: Final = "chunks"  # its temporary files; this release does not read `temp_dir` (statesync/reactor.go)
SIGNER_RECORD: Final = "priv_validator_state.json"
LAST_STEP: Final = 3  # a precommit
KEY_TYPE: Final = "tendermint/PubKeyEd25519"
PRIVATE_KEY_TYPE: Final = "tendermint/PrivKeyEd25519"
MIN_PROPOSE_MS, MAX_PROPOSE_MS = 500, 3_000
MIN_VOTE_MS, MAX_VOTE_MS = 100, 1_000


def commit_pause_ms(preset: Preset) -> int:
    """How long the engine waits after a block: half a tick, and no less than the shortest gap."""
    return max(preset.min_block_gap_ms, preset.tick_ms // 2)


def prepare(home: OperatorHome, preset: Preset) -> None:
    """Write the engine's files for a start.

    Raises:
        InvalidInputError: the home is incomplete, or the engine's folder belongs to another genesis.
        StorageDamagedError: the engine has blocks and no last-signed record.
        StorageError: a file cannot be written.
    """
    genesis, settings, key = home.genesis(), home.settings(), home.validator_key()
    _check_genesis(genesis)
    config, data = home.engine / "config", home.engine / "data"
    try:
        for folder in (config, data, home.engine / CHUNKS):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(f"{home.engine} cannot be made: {error.strerror}", code="storage_failed") from error
    _keep(config / "genesis.json", home.genesis_path.read_bytes(), "other_genesis")
    _keep(config / "priv_validator_key.json", _json(_validator_key(key)), "other_key")
    _keep(config / "node_key.json", _json({"priv_key": _private(home.peer_key())}), "other_key")
    state = data / SIGNER_RECORD
    if not state.exists():
        if (data / "blockstore.db").exists():
            raise StorageDamagedError(
                f"the engine has blocks, and {state.name} is gone",
                code="signer_record_missing",
                hint="restore it; without it this validator could sign against itself. Else take a new validator key",
            )
        # A key that signed before its home was lost signs nothing up to the height that its operator trusts.
        trusted, _ = check_state_sync(settings.state_sync, settings.trust)
        write_file(state, _signer_record(trusted))
    write_file(config / "config.toml", config_text(home, settings, preset).encode())


def begin_signing(home: OperatorHome, height: int) -> None:
    """See to it that the engine signs nothing up to a height; a record that says more stays.

    Args:
        home: of a validator that is stopped and has no blocks.
        height: that the ledger had reached, as far as is known.

    Raises:
        StorageDamagedError: there is a record, and it cannot be read.
        StorageError: it cannot be written.
    """
    data = home.engine / "data"
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(f"{data} cannot be made: {error.strerror}", code="storage_failed") from error
    path = data / SIGNER_RECORD
    try:
        signed = int(json.loads(path.read_bytes())["height"]) if path.exists() else -1
    except (OSError, ValueError, KeyError, TypeError):
        raise StorageDamagedError(
            f"{path} cannot be read",
            code="signer_record_damaged",
            hint="restore it; without it this validator could sign against itself. Else take a new validator key",
        ) from None
    if signed < height:
        write_file(path, _signer_record(height))


def held_data(home: OperatorHome) -> list[Path]:
    """What a home holds of its chain beside the record of what it signed: state, snapshots, blocks, history."""
    return [path for path in _data_of(home) if path.exists()]


def remove_data(home: OperatorHome) -> None:
    """Remove what `held_data` names, the state last: what a crash leaves is removed by a second call.

    The record of what the validator signed stays, so that it cannot sign against itself.

    Raises:
        StorageError: something cannot be removed.
    """
    for path in held_data(home):
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            raise StorageError(f"{path} cannot be removed: {error.strerror}", code="storage_failed") from error


def _data_of(home: OperatorHome) -> Iterator[Path]:
    data = home.engine / "data"
    for name in ("blockstore.db", "state.db", "evidence.db", "tx_index.db", "cs.wal"):
        yield data / name
    yield home.folder / "index"
    for name in ("snapshots", "state.restoring", "state.old", "state"):
        yield home.data / name


def _signer_record(height: int) -> bytes:
    return _json({"height": str(height), "round": 0, "step": LAST_STEP if height else 0})


def config_text(home: OperatorHome, settings: Settings, preset: Preset) -> str:
    """The engine's config.toml; what is not in it has the release's default."""
    propose = max(MIN_PROPOSE_MS, min(preset.tick_ms * 3 // 4, MAX_PROPOSE_MS))
    vote = max(MIN_VOTE_MS, min(preset.tick_ms // 5, MAX_VOTE_MS))
    sections: dict[str, dict[str, Any]] = {
        "": {
            "proxy_app": f"unix://{home.socket}",
            "abci": "socket",
            "moniker": settings.name,
            "db_backend": "goleveldb",
            "log_level": "info",
            "log_format": "json",
        },
        "rpc": {
            "laddr": f"unix://{home.rpc_socket}",
            "grpc_laddr": "",
            "pprof_laddr": "",
            "max_body_bytes": 4 * MAX_TX_BYTES,
            "max_open_connections": 64,
        },
        "p2p": {
            "laddr": f"tcp://{settings.listen}",
            "external_address": settings.listen,
            "persistent_peers": ",".join(settings.peers),
            "addr_book_strict": False,
            "allow_duplicate_ip": True,
            "pex": True,
            "flush_throttle_timeout": "10ms",
        },
        "mempool": {
            "type": "flood",
            "recheck": True,
            "broadcast": True,
            "size": QUEUE.txs,
            "max_txs_bytes": QUEUE.bytes,
            "max_tx_bytes": MAX_TX_BYTES,
            "cache_size": 2 * QUEUE.txs,
            "keep-invalid-txs-in-cache": False,
        },
        "statesync": _state_sync(home, settings),
        "consensus": {
            "timeout_propose": f"{propose}ms",
            "timeout_propose_delta": "500ms",
            "timeout_prevote": f"{vote}ms",
            "timeout_prevote_delta": "250ms",
            "timeout_precommit": f"{vote}ms",
            "timeout_precommit_delta": "250ms",
            "timeout_commit": f"{commit_pause_ms(preset)}ms",
            "skip_timeout_commit": False,
            "create_empty_blocks": True,
            "peer_gossip_sleep_duration": "20ms",
        },
        "storage": {"discard_abci_responses": False},
        "tx_index": {"indexer": "null"},
        "instrumentation": {"prometheus": bool(settings.metrics), "prometheus_listen_addr": settings.metrics},
    }
    lines = ["# Written by Freehold at each start; change validator.toml instead."]
    for name, values in sections.items():
        lines += [f"\n[{name}]"] if name else []
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _state_sync(home: OperatorHome, settings: Settings) -> dict[str, Any]:
    height, digest = check_state_sync(settings.state_sync, settings.trust)
    if not height:
        return {"enable": False}
    return {
        "enable": True,  # the engine looks at it only while it has no block
        "rpc_servers": ",".join(check_server(server) + ENGINE_ROUTE for server in settings.state_sync),
        "trust_height": height,
        "trust_hash": digest,
        "trust_period": f"{trust_period_ms(home.genesis())}ms",
        "discovery_time": "5s",
        "chunk_request_timeout": "10s",
        "chunk_fetchers": "4",
        "max_snapshot_chunks": MAX_CHUNKS,
    }


def _check_genesis(genesis: TrustedGenesis) -> None:
    size, extensions = genesis.params.max_block_bytes, genesis.params.vote_extensions_enable_height
    if not 1 <= size <= MAX_BLOCK_BYTES:
        raise InvalidInputError(
            f"genesis allows blocks of {size} bytes, this node takes 1 to {MAX_BLOCK_BYTES}", code="bad_genesis"
        )
    if extensions != (1 if "vrf" in genesis.app_state else 0):
        raise InvalidInputError(
            "votes carry extensions, from the first height on, exactly where genesis has VRF keys: not so here",
            code="bad_genesis",
            hint="make it with `freehold ledger init`",
        )


def _keep(path: Path, data: bytes, code: str) -> None:
    """Write a file that is missing; refuse one that holds something else."""
    if not path.exists():
        write_file(path, data)
    elif path.read_bytes() != data:
        raise InvalidInputError(
            f"{path} is not that of this home",
            code=code,
            hint="the engine's folder was begun from something else: restore the home, or start in a new folder",
        )


def _validator_key(key: PrivateKey) -> dict[str, Any]:
    return {
        "address": sha256(key.public)[:20].hex().upper(),
        "pub_key": {"type": KEY_TYPE, "value": base64.b64encode(key.public).decode()},
        "priv_key": _private(key),
    }


def _private(key: PrivateKey) -> dict[str, str]:
    return {"type": PRIVATE_KEY_TYPE, "value": base64.b64encode(key.export_seed() + key.public).decode()}


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode()
