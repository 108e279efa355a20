"""What the members of a lease keep for its tenant: evidence and signed answers, asked of all at once."""

import asyncio
from collections.abc import Callable

from freehold.base.errors import FreeholdError
from freehold.client.nodes import NodeClient
from freehold.ledger.records import Lease
from freehold.protocol.messages import Mailbox, MailboxRequest

CALL_MS = 3_000
EPOCHS_PER_CALL = 4  # so that an answer fits into a frame


async def ask_mailboxes(
    nodes: NodeClient, tell: Callable[[str], None], lease_id: bytes, lease: Lease, first_epoch: int, last_epoch: int
) -> list[Mailbox]:
    """Ask every member; whoever does not answer is told and left out.

    Args:
        nodes: open, with the tenant's endpoint key.
        tell: gets one line for each member that did not answer.
        lease_id: which lease.
        lease: its record.
        first_epoch: of the span that is asked for.
        last_epoch: of the span, included.
    """

    async def ask(node: bytes) -> list[Mailbox]:
        found: list[Mailbox] = []
        try:
            peer = await nodes.peer(node)
            for first in range(first_epoch, last_epoch + 1, EPOCHS_PER_CALL):
                request = MailboxRequest(lease_id, first, min(first + EPOCHS_PER_CALL - 1, last_epoch))
                found.append(await peer.call("mailbox.read", request, Mailbox, CALL_MS))
        except FreeholdError as error:
            tell(f"node {node.hex()[:12]} gave no mailbox: {error.message}")
        return found

    answers = await asyncio.gather(*(ask(member.node) for member in lease.members))
    return [mailbox for answer in answers for mailbox in answer]
