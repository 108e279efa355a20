"""Who gets what from a node's handlers: blobs, boxes, mailboxes; driven without a network."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lease_kit import BLANK
from msgspec.structs import replace

from freehold.agent.actions import Actions
from freehold.agent.boxes import BoxStore
from freehold.agent.mailbox import Mailboxes
from freehold.agent.services import NodeServices
from freehold.base.errors import FreeholdError, RefusedError
from freehold.base.presets import MINIMAL
from freehold.crypto import merkle
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger.records import Deployment, Lease, Member
from freehold.protocol import messages
from freehold.protocol.evidence import (
    DutyLeaf,
    EvidenceLeaf,
    IdentityQuestion,
    ProbeSeen,
    ProvenDuty,
    ProvenEvidence,
    sign_identity,
)
from freehold.protocol.spec import image_proof
from freehold.runtime.images.manifest import MEDIA_CONFIG, MEDIA_MANIFEST, MEDIA_TAR
from freehold.runtime.images.store import ImageStore

CHAIN = "freehold-test"
EPOCH = 10
ACCOUNT = bytes([9]) * 32
TENANT, ME, SIBLING, STRANGER = (PrivateKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3, 4))
LEASE, DEPLOYMENT = bytes([5]) * 32, bytes([6]) * 32
LAYER, CONFIG = b"layer " * 10, b"{}"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _raw(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _manifest(layer: bytes = LAYER) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": {"mediaType": MEDIA_CONFIG, "digest": _digest(CONFIG), "size": len(CONFIG)},
            "layers": [{"mediaType": MEDIA_TAR, "digest": _digest(layer), "size": len(layer)}],
        }
    ).encode()


def _lease(image: bytes) -> Lease:
    return replace(
        BLANK,
        tenant=ACCOUNT,
        deployment=DEPLOYMENT,
        members=[Member(ME.public, 0, 1, bytes(32), False), Member(SIBLING.public, 0, 1, bytes(32), False)],
        image_digest=_raw(image),
    )


@dataclass
class FakeChain:
    """Verified records as a test states them."""

    leases: dict[bytes, Lease]
    deployments: dict[bytes, Deployment]
    slots: dict[bytes, int]
    epoch: int = EPOCH
    preset: Any = MINIMAL
    ledger: Any = field(default_factory=lambda: SimpleNamespace(chain_id=CHAIN))

    def lease(self, lease_id: bytes) -> Lease:
        return self.leases[lease_id]

    async def any_node(self, node: bytes) -> Any:
        return SimpleNamespace(slot=self.slots[node]) if node in self.slots else None


class FakeWitness:
    """The draw names whom the test says."""

    def __init__(self, drawn: list[int]) -> None:
        self.drawn = drawn

    async def draw_for(self, node: bytes, epoch: int) -> list[int]:
        return self.drawn


class Call:
    """A call's context."""

    def __init__(self, caller: PrivateKey, body: bytes = b"") -> None:
        self.remote_id = caller.public
        self._body = body
        self.chunks: AsyncIterator[bytes] | None = None

    async def body(self) -> AsyncIterator[bytes]:
        yield self._body

    def download(self, chunks: AsyncIterator[bytes]) -> None:
        self.chunks = chunks


class Node:
    """A node with one lease, and the handlers to call."""

    def __init__(self, folder: Path, image: bytes) -> None:
        self.spawned: list[Any] = []
        self.looks: list[tuple[bytes, bytes]] = []
        deployment = Deployment(1, ACCOUNT, "app", [TENANT.public], [LEASE], 0, 0)
        slots = {ME.public: 0, SIBLING.public: 1, STRANGER.public: 7}
        self.chain = FakeChain({LEASE: _lease(image)}, {DEPLOYMENT: deployment}, slots)
        self.shared: Any = SimpleNamespace(
            chain=self.chain,
            boxes=BoxStore(folder / "boxes"),
            images=ImageStore(folder / "images"),
            mailboxes=Mailboxes(folder / "mailbox", MINIMAL.report_epochs),
            spawn=self.spawned.append,
        )
        failover: Any = SimpleNamespace(give_verdict_quietly=lambda *call: self.looks.append(call))
        witness: Any = FakeWitness([3, 7])
        self.services = NodeServices(self.shared, witness, failover, lambda _: None)

    def run(self, handler: Callable[..., Any], call: Call, request: Any) -> Any:
        return asyncio.run(handler(call, request))

    def put(self, data: bytes, *, size: int | None = None) -> None:
        request = messages.PutBlob(LEASE, _raw(data), len(data) if size is None else size, 0)
        self.run(self.services.put_blob, Call(TENANT, data), request)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, _manifest())


def _code(call: Callable[[], Any]) -> str:
    with pytest.raises(FreeholdError) as caught:
        call()
    return caught.value.code


def test_blobs_of_the_image_arrive_manifest_first_and_are_handed_to_members(node: Node) -> None:
    assert _code(lambda: node.put(LAYER)) == "manifest_first"
    for data in (_manifest(), CONFIG, LAYER):
        node.put(data)
    wanted = messages.BlobsWanted(LEASE, [_raw(_manifest()), _raw(CONFIG), _raw(LAYER)])
    assert node.run(node.services.blobs_wanted, Call(TENANT), wanted).offsets == [-1, -1, -1]
    call = Call(SIBLING)
    assert node.run(node.services.get_blob, call, messages.GetBlob(LEASE, _raw(LAYER), 0)).size == len(LAYER)


def test_blobs_of_other_tenants_are_neither_given_nor_told(node: Node) -> None:
    node.put(_manifest())
    secret = b"a layer of another tenant"
    node.shared.images.blobs.put_bytes(secret)
    get = messages.GetBlob(LEASE, _raw(secret), 0)
    assert _code(lambda: node.run(node.services.get_blob, Call(SIBLING), get)) == "not_in_image"
    wanted = messages.BlobsWanted(LEASE, [_raw(secret)])
    assert _code(lambda: node.run(node.services.blobs_wanted, Call(TENANT), wanted)) == "not_in_image"


def test_blobs_that_the_image_does_not_name_are_refused(node: Node) -> None:
    node.put(_manifest())
    assert _code(lambda: node.put(b"rubbish for the disk")) == "not_in_image"


def test_blobs_are_no_larger_than_the_manifest_says(node: Node) -> None:
    node.put(_manifest())
    assert _code(lambda: node.put(LAYER, size=4 << 30)) == "oversized"


def test_an_image_runs_only_for_a_tenant_who_has_it(node: Node) -> None:
    node.shared.images.blobs.put_bytes(_manifest())  # another tenant's, on the same node
    actions = Actions(node.shared, LEASE, lambda *_: None)

    def check(proof: bytes) -> None:
        spec: Any = SimpleNamespace(image_proof=proof)
        actions.spec = spec
        asyncio.run(actions._require_possession(_digest(_manifest())))

    check(image_proof(ACCOUNT, _manifest()))
    assert _code(lambda: check(bytes(32))) == "bad_image_proof"
    assert _code(lambda: check(image_proof(bytes(32), _manifest()))) == "bad_image_proof"  # copied from another


def test_only_the_tenant_delivers_specs(node: Node) -> None:
    box = messages.DeliverSpec(LEASE, [(ME.public, b"spoilt")])
    for caller in (SIBLING, STRANGER):
        assert _code(lambda caller=caller: node.run(node.services.deliver_spec, Call(caller), box)) == "not_allowed"
    node.run(node.services.deliver_spec, Call(TENANT), box)
    assert node.shared.boxes.get(LEASE, ME.public) == b"spoilt"


def _duty(witness: PrivateKey, *, target: PrivateKey = ME, slot: int = 0, epoch: int = EPOCH - 1) -> ProvenDuty:
    question = IdentityQuestion(epoch, b"nonce")
    answer = sign_identity(CHAIN, target, witness.public, question, 5, bytes(32))
    leaf = DutyLeaf(1, epoch, witness.public, slot, [ProbeSeen(1, answer, [])])
    return ProvenDuty(leaf, merkle.Proof(1, 0, bytes(32), []))


def _pushed(node: Node, caller: PrivateKey, duty: ProvenDuty) -> int:
    push = messages.EvidencePush(LEASE, [], [duty])
    node.run(node.services.push, Call(caller), push)
    return len(node.shared.mailboxes.read(LEASE, duty.leaf.epoch, duty.leaf.epoch)[1])


def test_mailboxes_take_leaves_from_drawn_witnesses_alone(node: Node) -> None:
    unknown = PrivateKey.from_seed(bytes([8]) * 32)
    assert _code(lambda: _pushed(node, unknown, _duty(unknown))) == "not_allowed"
    assert _code(lambda: _pushed(node, SIBLING, _duty(SIBLING))) == "not_allowed"  # a node, but not drawn
    assert _code(lambda: _pushed(node, STRANGER, _duty(SIBLING))) == "not_allowed"  # another's leaf
    assert _code(lambda: _pushed(node, STRANGER, _duty(STRANGER, slot=5))) == "not_allowed"  # not about a member
    assert _code(lambda: _pushed(node, STRANGER, _duty(STRANGER, epoch=EPOCH - 5))) == "not_allowed"
    assert _pushed(node, STRANGER, _duty(STRANGER)) == 1  # slot 7 is drawn


def test_a_witness_has_one_leaf_a_target_and_epoch(node: Node) -> None:
    assert _pushed(node, STRANGER, _duty(STRANGER)) == 1
    other = _duty(STRANGER)
    twice = ProvenDuty(DutyLeaf(1, EPOCH - 1, STRANGER.public, 0, other.leaf.probes * 2), other.proof)
    assert _pushed(node, STRANGER, twice) == 1


def test_a_leaf_is_small(node: Node) -> None:
    leaf = EvidenceLeaf(1, LEASE, 0, 1, EPOCH - 1, bytes(32), bytes(32), 1, 0, "healthy" * 700, "", 1)
    push = messages.EvidencePush(LEASE, [ProvenEvidence(leaf, merkle.Proof(1, 0, bytes(32), []))], [])
    assert _code(lambda: node.run(node.services.push, Call(SIBLING), push)) == "not_allowed"
    long_path = ProvenDuty(_duty(STRANGER).leaf, merkle.Proof(1, 0, bytes(32), [bytes(32)] * 200))
    assert _code(lambda: _pushed(node, STRANGER, long_path)) == "not_allowed"


def test_a_leaf_without_answers_is_refused(node: Node) -> None:
    empty = ProvenDuty(DutyLeaf(1, EPOCH - 1, STRANGER.public, 0, []), merkle.Proof(1, 0, bytes(32), []))
    assert _code(lambda: _pushed(node, STRANGER, empty)) == "not_allowed"


def test_verdicts_are_asked_for_by_nodes_alone(node: Node) -> None:
    invite = messages.InviteVerdict(bytes(32))
    unknown = PrivateKey.from_seed(bytes([8]) * 32)
    with pytest.raises(RefusedError):
        node.run(node.services.invite_verdict, Call(unknown), invite)
    with pytest.raises(RefusedError):
        node.run(node.services.invite_verdict, Call(STRANGER), messages.InviteVerdict(b"short"))
    assert not node.looks
    node.run(node.services.invite_verdict, Call(STRANGER), invite)
    assert node.looks == [(STRANGER.public, bytes(32))]
