"""Evidence and duty leaves, their roots, and the signed answers that a witness collects (docs/spec/witnesses.md)."""

from freehold.base.codec import Record, encode
from freehold.crypto import merkle
from freehold.crypto.ed25519 import PrivateKey, verify_strict
from freehold.crypto.hashing import Purpose, signing_bytes, tagged_hash

LEAF_VERSION = 1


class EvidenceLeaf(Record):
    """What a node says about one lease in one epoch: `claimed`, never more.

    `counter` grows with every start of this node's agent and every leaf: two copies of a node key contradict each
    other. Times in ms of block time; `exit_reason` is the last one (`""` none, `exit 1`, `oom`, `fenced`, ...).
    """

    version: int
    lease: bytes
    lease_slot: int
    term: int
    epoch: int
    image_digest: bytes
    erofs_digest: bytes
    served_ms: int
    restarts: int
    health: str
    exit_reason: str
    counter: int


class IdentityQuestion(Record):
    """A witness asks a node to show its key and how fresh its view of the chain is."""

    epoch: int
    nonce: bytes


class IdentityAnswer(Record):
    """Signed by the node, tag PROBE_SIGN: who asked, what, and the newest verified header."""

    node: bytes
    witness: bytes
    epoch: int
    nonce: bytes
    height: int
    header_hash: bytes
    signature: bytes


class WorkloadSeen(Record):
    """A witness spoke to a container's probe port through the node, itself."""

    lease: bytes
    term: int
    ok: bool


class ProbeSeen(Record):
    """One of the probes of a duty, at a block time: the node's signed answer and the workloads spoken to."""

    time_ms: int
    answer: IdentityAnswer
    workloads: list[WorkloadSeen]


class DutyLeaf(Record):
    """What a witness saw of one target in one epoch; a leaf of the witness's duty root, ordered by target slot."""

    version: int
    epoch: int
    witness: bytes
    target_slot: int
    probes: list[ProbeSeen]


class ProvenEvidence(Record):
    """A leaf with its path to the evidence root of the node's report."""

    leaf: EvidenceLeaf
    proof: merkle.Proof


class ProvenDuty(Record):
    """A leaf with its path to the duty root of the witness's report."""

    leaf: DutyLeaf
    proof: merkle.Proof


def evidence_root(leaves: list[EvidenceLeaf]) -> bytes:
    """RFC 6962 root over the encoded leaves, ordered by lease slot; of nothing: the hash of nothing."""
    return merkle.hash_from_byte_slices([_leaf(Purpose.EVIDENCE_LEAF, leaf) for leaf in leaves])


def duty_root(leaves: list[DutyLeaf]) -> bytes:
    """RFC 6962 root over the encoded leaves, ordered by target slot."""
    return merkle.hash_from_byte_slices([_leaf(Purpose.DUTY_LEAF, leaf) for leaf in leaves])


def prove_evidence(leaves: list[EvidenceLeaf]) -> list[ProvenEvidence]:
    """Each leaf with its path."""
    items = [_leaf(Purpose.EVIDENCE_LEAF, leaf) for leaf in leaves]
    return [ProvenEvidence(leaf, merkle.prove(items, index)) for index, leaf in enumerate(leaves)]


def prove_duties(leaves: list[DutyLeaf]) -> list[ProvenDuty]:
    """Each leaf with its path."""
    items = [_leaf(Purpose.DUTY_LEAF, leaf) for leaf in leaves]
    return [ProvenDuty(leaf, merkle.prove(items, index)) for index, leaf in enumerate(leaves)]


def is_evidence_under(root: bytes, proven: ProvenEvidence) -> bool:
    """Whether a leaf stands under an evidence root."""
    return merkle.verify(root, proven.proof, _leaf(Purpose.EVIDENCE_LEAF, proven.leaf))


def is_duty_under(root: bytes, proven: ProvenDuty) -> bool:
    """Whether a leaf stands under a duty root."""
    return merkle.verify(root, proven.proof, _leaf(Purpose.DUTY_LEAF, proven.leaf))


def sign_identity(
    chain_id: str, key: PrivateKey, witness: bytes, question: IdentityQuestion, height: int, header_hash: bytes
) -> IdentityAnswer:
    """Answer a witness."""
    answer = IdentityAnswer(key.public, witness, question.epoch, question.nonce, height, header_hash, b"")
    return IdentityAnswer(
        key.public, witness, question.epoch, question.nonce, height, header_hash, key.sign(_message(chain_id, answer))
    )


def is_identity_answer(
    chain_id: str, answer: IdentityAnswer, node: bytes, witness: bytes, question: IdentityQuestion
) -> bool:
    """Whether the answer is signed by the node, for this witness and this question."""
    return (
        (answer.node, answer.witness, answer.epoch, answer.nonce) == (node, witness, question.epoch, question.nonce)
    ) and is_signed_identity(chain_id, answer)


def is_signed_identity(chain_id: str, answer: IdentityAnswer) -> bool:
    """Whether the answer carries its node's signature."""
    return verify_strict(answer.node, _message(chain_id, answer), answer.signature)


def _message(chain_id: str, answer: IdentityAnswer) -> bytes:
    unsigned = IdentityAnswer(
        answer.node, answer.witness, answer.epoch, answer.nonce, answer.height, answer.header_hash, b""
    )
    return signing_bytes(Purpose.PROBE_SIGN, chain_id, encode(unsigned))


def _leaf(purpose: Purpose, leaf: Record) -> bytes:
    return tagged_hash(purpose, encode(leaf))
