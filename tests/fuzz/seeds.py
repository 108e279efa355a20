"""Where each target begins: inputs that get past the front door, then everything that was ever found."""

import io
import json
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from worlds import CAPACITY, CHAIN, OFFER, TESTS, ZERO, Key, Tree, chain, ledger, signed_blocks

from freehold.base.amounts import TOKEN
from freehold.base.codec import encode
from freehold.base.errors import InvalidInputError
from freehold.base.presets import MINIMAL
from freehold.consensus.abci.framing import encode_request
from freehold.consensus.abci.messages import RequestCheckTx, RequestFlush
from freehold.consensus.snapshot_format import encode_metadata
from freehold.consensus.snapshot_store import SnapshotFolder
from freehold.consensus.snapshot_writer import take_snapshot
from freehold.consensus.state_store import StateStore
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.strkey import encode_account
from freehold.indexer.cursors import Place, encode_cursor
from freehold.ledger import transactions as txs
from freehold.ledger.genesis import app_state_document
from freehold.ledger.keys import challenge_key, lease_key
from freehold.light.genesis import genesis_document
from freehold.light.proof_file import write_proof_file
from freehold.light.types import Timestamp
from freehold.light.wire import length_delimited
from freehold.protocol.spec import HealthSpec, PeerSpec, RestartSpec, SecretSpec, ServiceSpec, TmpfsSpec, VolumeSpec
from freehold.transport.wire import chunk_bytes, end_bytes, error_bytes, failed_bytes, request_bytes, response_bytes

FINDINGS: Final = Path(__file__).parent / "findings"
VECTORS: Final = TESTS / "vectors"
KEY: Final = PrivateKey.from_seed(b"fuzz" + bytes(28))


def seeds(name: str) -> Iterable[bytes]:
    """Where a target begins: well-formed inputs, then what was found before."""
    yield from _SEEDS.get(name, ())
    yield from (path.read_bytes() for path in sorted((FINDINGS / name).glob("*")))


def _make_seeds() -> dict[str, list[bytes]]:
    golden = json.loads((VECTORS / "light_cometbft_v0_38_25.json").read_text())
    frames = json.loads((VECTORS / "abci_cometbft_v0_38_25.json").read_text())["requests"]
    requests = [length_delimited(bytes.fromhex(frame)) for frame in frames.values()]
    genesis = genesis_document(
        chain_id="chain",
        genesis_time=Timestamp.from_ms(1_700_000_000_000),
        validators=[(KEY.public, 10, "v")],
        app_state=app_state_document(MINIMAL, [], [], accounts={KEY.public: 5}),
    )
    transactions = _transactions()
    blocks = [block.encode() for block in signed_blocks()]
    chunk, metadata = _snapshot()
    return {
        "tx": transactions,
        "rules": transactions,
        "abci": [
            *requests,
            b"".join(requests),
            encode_request(RequestFlush()) * 3,
            length_delimited(b"\x22\x00"),
            encode_request(RequestCheckTx(transactions[0])),
        ],
        "light_block": [bytes.fromhex(golden["light_block"]), *blocks],
        "light_hop": blocks,
        "commitment": _proofs(),
        "genesis": [genesis, chain().document, _ledger_genesis()],
        "proof_file": _proof_files(),
        "rpc": [
            b'{"keys":["00"],"height":1}',
            b'{"tx":"AAAA","wait":"committed"}',
            b'{"account":"%s"}' % encode_account(KEY.public).encode(),
            b'{"jsonrpc":"2.0","id":1,"method":"commit","params":{"height":"7"}}',
        ],
        "query": [
            urlencode(values).encode()
            for values in (
                {"height": 7},
                {"after_height": 3, "limit": 10},
                {"subject": f"{encode_account(KEY.public)},{'ab' * 32}", "since_ms": 5, "limit": 1},
                {"cursor": encode_cursor(Place(9, 2))},
            )
        ],
        "snapshot": [metadata],
        "snapshot_chunk": [chunk],
        "call": _calls(),
        "spec": [encode(_SPEC)],
        "compose": _compose_files(),
        "image": _image_documents(),
        "layer": _layers(),
        "account": [encode_account(KEY.public).encode()],
    }


def _transactions() -> list[bytes]:
    """One of each kind, as somebody of the target's ledger would send it."""
    grid = ledger()
    a, b = grid.nodes[0].public, grid.nodes[2].public
    farm, tenant, operator = grid.farms[0], grid.tenants[0], grid.operators[0]
    lease = next(key[1:] for key in grid.state if key[:1] == lease_key(b""))
    challenge = next(key[1:] for key in grid.state if key[:1] == challenge_key(b""))
    validator, epoch = grid.validators[0].public, grid.epoch
    sent = [
        (tenant, txs.Transfer(farm.public, TOKEN)),
        (tenant, txs.SetSigners([(farm.public, 1), (tenant.public, 2)], 2)),
        (tenant, txs.RegisterFarm("new-farm", txs.Place("BE", "Gent"))),
        (farm, txs.UpdateNode(a, ["192.0.2.7:7000"], CAPACITY, OFFER)),
        (farm, txs.AddStake(a, TOKEN)),
        (farm, txs.RetireNode(a)),
        (farm, txs.ReleaseNode(a)),
        (tenant, txs.Deploy("second", [], [grid.order([1, 3])])),
        (grid.nodes[4], txs.Accept(lease, ZERO)),
        (tenant, txs.Refund(lease)),
        (tenant, txs.TopUp(lease, 3_600_000)),
        (tenant, txs.Close(lease, "moving")),
        (farm, txs.Claim(lease, 0, epoch - 1)),
        (grid.nodes[0], grid.report_body(a, epoch - 1)),
        (grid.nodes[2], txs.Challenge(lease, 1)),
        (grid.nodes[2], txs.Verdict(challenge, True)),
        (farm, txs.Resolve(challenge)),
        (operator, grid.bond_body(operator, Key("another validator"), 100 * TOKEN)),
        (operator, txs.AddBond(validator, TOKEN)),
        (operator, txs.WithdrawBond(validator, TOKEN)),
        (operator, txs.ReleaseBond(validator)),
        (operator, txs.ClaimFees(validator)),
        (operator, txs.Rejoin(validator)),
        (operator, grid.upgrade_body(grid.height + 50, 4, [1], grid.validators[:3])),
        (farm, txs.RegisterNode(b, b, bytes(64), ["192.0.2.1:7000"], CAPACITY, OFFER, 100 * TOKEN, 10 * TOKEN)),
    ]
    return [grid.tx(key, body) for key, body in sent]


def _ledger_genesis() -> bytes:
    return genesis_document(
        chain_id=CHAIN,
        genesis_time=Timestamp.from_ms(1_700_000_000_000),
        validators=[(key.public, 10, "v") for key in (KEY, PrivateKey.from_seed(b"2" * 32))],
        app_state=ledger().document,
    )


def _proof_files() -> list[bytes]:
    tree = Tree({bytes([number]) * 8: bytes([number]) for number in range(1, 20)})
    statements = [tree.statement(2, key) for key in (b"\x07" * 8, b"absent")]
    return [write_proof_file(chain().trusted, [chain().light_block(2, tree.root)], statements)]


def _snapshot() -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with StateStore.open(folder / "state", 4) as store:
            store.stage(1, {bytes([number]) * 8: bytes([number]) for number in range(40)})
            store.commit()
        snapshots = SnapshotFolder(folder / "snapshots")
        metadata = take_snapshot(folder / "state", snapshots, "chain", keep=1)
        return snapshots.load(metadata.height, metadata.format, 0) or b"", encode_metadata(metadata)


def _calls() -> list[bytes]:
    refused = InvalidInputError("no such lease", code="unknown_lease", hint="see the list")
    return [
        request_bytes("spec/fetch", b"body"),
        response_bytes(b"body"),
        error_bytes(refused),
        chunk_bytes(b"data") + end_bytes(),
        failed_bytes(refused),
    ]


def _compose_files() -> list[bytes]:
    examples = sorted((TESTS.parent / "examples").glob("*/compose.y*ml"))
    return [path.read_bytes() for path in examples] + [
        b"services: {web: {image: a:1, ports: ['80'], environment: {A: '${A:-x}'}}}",
        _COMPOSE.encode(),
    ]


def _image_documents() -> list[bytes]:
    digest = "sha256:" + "ab" * 32
    oci = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{oci}.manifest.v1+json",
        "config": {"mediaType": f"{oci}.config.v1+json", "digest": "sha256:" + "cd" * 32, "size": 3},
        "layers": [{"mediaType": f"{oci}.layer.v1.tar+gzip", "digest": digest, "size": 9}],
    }
    platform = {"architecture": "amd64", "os": "linux"}
    index = {
        "schemaVersion": 2,
        "mediaType": f"{oci}.index.v1+json",
        "manifests": [{"mediaType": f"{oci}.manifest.v1+json", "digest": digest, "size": 3, "platform": platform}],
    }
    run = {"Cmd": ["sh"], "Env": ["A=b"], "User": "1:1", "WorkingDir": "/", "ExposedPorts": {"80/tcp": {}}}
    config = platform | {"config": run, "rootfs": {"type": "layers", "diff_ids": [digest]}}
    archive = [{"Config": "blobs/sha256/" + "ab" * 32, "RepoTags": ["a:1"], "Layers": ["x/layer.tar"]}]
    return [json.dumps(document).encode() for document in (manifest, index, config, archive)]


def _layers() -> list[bytes]:
    members = [("a", tarfile.DIRTYPE, ""), ("a/f", tarfile.REGTYPE, ""), ("a/l", tarfile.SYMTYPE, "f")]
    members += [("a/h", tarfile.LNKTYPE, "a/f"), ("a/.wh.f", tarfile.REGTYPE, ""), ("n" * 120, tarfile.REGTYPE, "")]
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=form) as archive:
            for name, kind, target in members[: None if form != tarfile.USTAR_FORMAT else -1]:
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = kind, target
                entry.size = 3 if kind == tarfile.REGTYPE and ".wh." not in name else 0
                entry.pax_headers = {"SCHILY.xattr.user.a": "b", "mtime": "1.5"} if form == tarfile.PAX_FORMAT else {}
                archive.addfile(entry, io.BytesIO(b"abc"))
        found.append(raw.getvalue()[: 512 * (2 * len(members) + 8)])
    return found


_COMPOSE: Final = """
x-a: &a {restart: always}
services:
  web:
    <<: *a
    image: a:1
    depends_on: {b: {condition: service_healthy}}
  b:
    image: b:1
    healthcheck: {test: [CMD, x], interval: 1m30s}
    expose: ['5432']
    deploy: {resources: {limits: {cpus: '0.5', memory: 64m}}}
    volumes: ['d:/d:ro']
    secrets: [s]
volumes: {d: {}}
secrets: {s: {environment: A}}
"""

_SPEC: Final = ServiceSpec(
    version=1,
    deployment="shop",
    service="web",
    replica=0,
    image="web:1",
    image_proof=bytes(32),
    entrypoint=["/bin/sh"],
    command=["-c", "true"],
    environment=[("A", "b")],
    working_dir="/srv",
    user="1000",
    hostname="web",
    pids=64,
    scratch_mib=256,
    read_only=True,
    volumes=[VolumeSpec("data", "/data", 64, False)],
    tmpfs=[TmpfsSpec("/tmp", 16, 0o1777)],
    secrets=[SecretSpec("token", b"secret")],
    health=HealthSpec(["true"], 1_000, 1_000, 3, 0),
    restart=RestartSpec("always", 0),
    stop_signal="SIGTERM",
    stop_grace_ms=1_000,
    peers=[PeerSpec("db", [bytes(32)], [5432], "healthy")],
)


def _proofs() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        store = StateStore.open(Path(folder) / "state", 4)
        store.stage(1, {bytes([number]) * 8: bytes([number]) for number in range(40)})
        store.commit()
        found = [store.prove(key, 1)[1] for key in (b"\x07" * 8, b"\x09" * 8, b"absent")]
        store.close()
    return found


_SEEDS: Final = _make_seeds()
