"""Requests and responses between tenant, node and witness over the transport's RPC (docs/spec/p2p.md).

One record per request and response; the transport frames them. Who may call a method is said beside it: `tenant` is
an endpoint id in the deployment's access keys, `member` a node of the lease, `sibling` a node that holds the current
term of a lease of the same deployment, `witness` anyone (the answer is for that witness alone).
"""

from freehold.base.codec import Record
from freehold.protocol.evidence import ProvenDuty, ProvenEvidence


class Empty(Record):
    """Nothing to say."""


class DeliverSpec(Record):
    """`spec.deliver` (tenant): the sealed boxes of all members of a lease, so that each can help another."""

    lease: bytes
    boxes: list[tuple[bytes, bytes]]  # (member node id, sealed box)


class FetchSpec(Record):
    """`spec.fetch` (member): the caller's own box, from a member that keeps it."""

    lease: bytes


class SealedSpec(Record):
    """A box."""

    box: bytes


class BlobsWanted(Record):
    """`blob.wanted` (tenant, member): which of the image's digests the node lacks, and from which offset."""

    lease: bytes
    digests: list[bytes]


class BlobOffsets(Record):
    """For each digest asked: bytes already held; -1 when complete."""

    offsets: list[int]


class PutBlob(Record):
    """`blob.put` (tenant), body: the blob's bytes from `offset` on."""

    lease: bytes
    digest: bytes
    size: int
    offset: int


class GetBlob(Record):
    """`blob.get` (member): the blob's bytes from `offset` on, as the response's body."""

    lease: bytes
    digest: bytes
    offset: int


class BlobSize(Record):
    """The size of a blob."""

    size: int


class LeaseStatusRequest(Record):
    """`lease.status` (tenant, member, sibling)."""

    lease: bytes


class LeaseStatus(Record):
    """What the node says of its part in a lease: `claimed`.

    `phase`: a word of the agent's transition table; `detail` explains it; `progress_permill` of the image transfer.
    """

    lease: bytes
    member: bytes
    term: int
    phase: str
    detail: str
    health: str
    restarts: int
    exit_reason: str
    pid: int
    started_ms: int
    progress_permill: int
    memory_bytes: int
    cpu_usec: int


class LogsRequest(Record):
    """`lease.logs` (tenant): the last `tail` lines, then, with `follow`, new ones as they come, as the body."""

    lease: bytes
    tail: int
    follow: bool


class OpenTunnel(Record):
    """`tunnel.open` (tenant, sibling): a byte stream to a container's port; a stale term is refused."""

    lease: bytes
    term: int
    port: int


class TunnelOpen(Record):
    """The stream is open; raw bytes follow both ways."""

    term: int


class OpenProbe(Record):
    """`probe.open` (witness, member): a byte stream to a container's probe port."""

    lease: bytes
    term: int


class InviteWitness(Record):
    """`witness.invite` (node): the caller drew the callee for an epoch; the callee checks the draw itself."""

    epoch: int
    slot: int
    witnesses: list[int]


class InviteVerdict(Record):
    """`verdict.invite` (anyone): a challenge for whose verdict the callee may be drawn; it looks itself."""

    challenge: bytes


class EvidencePush(Record):
    """`mailbox.push` (member, witness): leaves for the tenant, kept by each member for R epochs."""

    lease: bytes
    evidence: list[ProvenEvidence]
    duties: list[ProvenDuty]


class MailboxRequest(Record):
    """`mailbox.read` (tenant, member): the leaves of a span of epochs."""

    lease: bytes
    first_epoch: int
    last_epoch: int


class Mailbox(Record):
    """Leaves kept for a tenant."""

    evidence: list[ProvenEvidence]
    duties: list[ProvenDuty]
