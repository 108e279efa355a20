"""Image blobs from the other members of a lease: manifest first, then what it names, resumed where it broke off."""

import asyncio

from freehold.agent.peers import Peers
from freehold.base.errors import FreeholdError, UnreachableError
from freehold.protocol.messages import BlobSize, GetBlob
from freehold.runtime.images.blobs import BlobStore
from freehold.runtime.images.manifest import MAX_DOCUMENT_BYTES, parse_manifest

TIMEOUT_MS = 10_000


async def fetch_blobs(blobs: BlobStore, peers: Peers, lease_id: bytes, members: list[bytes], manifest: str) -> None:
    """Make an image's blobs complete.

    Args:
        blobs: the node's own store.
        peers: calls to other nodes.
        lease_id: what entitles this node to them.
        members: other members of the lease, asked in order.
        manifest: digest text.

    Raises:
        UnreachableError: some are missing and no member has them; the tenant may be sending them.
        ImageError: the manifest is not acceptable.
    """
    if not blobs.has(manifest):
        await _from_any(blobs, peers, lease_id, members, manifest, MAX_DOCUMENT_BYTES)
    parsed = parse_manifest(await asyncio.to_thread(blobs.read, manifest))
    for descriptor in (parsed.config, *parsed.layers):
        if not blobs.has(descriptor.digest):
            await _from_any(blobs, peers, lease_id, members, descriptor.digest, descriptor.size)


async def _from_any(
    blobs: BlobStore, peers: Peers, lease_id: bytes, members: list[bytes], digest: str, max_bytes: int
) -> None:
    for node in members:
        try:
            await _from_one(blobs, peers, lease_id, node, digest, max_bytes)
        except FreeholdError:
            continue
        return
    raise UnreachableError(f"blob {digest[:19]} has not arrived yet", code="no_blob")


async def _from_one(blobs: BlobStore, peers: Peers, lease_id: bytes, node: bytes, digest: str, max_bytes: int) -> None:
    peer = await peers.peer(node)
    raw = bytes.fromhex(digest.removeprefix("sha256:"))
    request = GetBlob(lease_id, raw, blobs.offset(digest))
    async with await peer.download("blob.get", request, BlobSize, TIMEOUT_MS) as download:
        if download.response.size > max_bytes:
            raise UnreachableError(f"blob {digest[:19]} is larger than it may be", code="oversized")
        with blobs.writer(digest, download.response.size) as writer:
            if writer.offset != request.offset:
                raise UnreachableError("the blob is being written by another transfer", code="busy")
            async for chunk in download:
                await asyncio.to_thread(writer.write, chunk)
            await asyncio.to_thread(writer.finish)
