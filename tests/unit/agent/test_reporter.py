"""Claims of a node: one that is refused is tried again."""

import asyncio
from types import SimpleNamespace
from typing import Any

from freehold.agent.core.desired import Want
from freehold.agent.reporter import Reporter
from freehold.base.errors import RefusedError
from freehold.base.presets import MINIMAL
from freehold.ledger.transactions import Refund

ME, LEASE = bytes(32), bytes([1]) * 32


class FakeSender:
    """Refuses while `code` is set; keeps what it was asked to send."""

    def __init__(self) -> None:
        self.code = ""
        self.sent: list[Any] = []

    async def send(self, body: Any) -> None:
        self.sent.append(body)
        if self.code:
            raise RefusedError("not now", code=self.code)


def _reporter(sender: FakeSender) -> tuple[Reporter, Any]:
    lease = SimpleNamespace(
        terms=[SimpleNamespace(member=0)], members=[SimpleNamespace(node=ME)], settled_epoch=3, challenge=b""
    )
    chain: Any = SimpleNamespace(
        leases={LEASE: lease},
        node_id=ME,
        preset=MINIMAL,
        genesis_ms=0,
        header_ms=100_000,
        desired=lambda _: SimpleNamespace(want=Want.SEAL),
    )
    rest: Any = None
    sending: Any = sender
    return Reporter(chain, rest, sending, rest, rest, lambda: []), chain


def test_a_claim_refused_for_an_open_challenge_is_made_again() -> None:
    sender = FakeSender()
    sender.code = "challenge_open"
    reporter, chain = _reporter(sender)
    asyncio.run(reporter.claim_when_due())
    asyncio.run(reporter.claim_when_due())
    assert len(sender.sent) == 1  # not at once
    sender.code = ""
    chain.header_ms += MINIMAL.verdict_window_ms + 2 * MINIMAL.tick_ms
    asyncio.run(reporter.claim_when_due())
    assert [claim.first_epoch for claim in sender.sent] == [3, 3]
    asyncio.run(reporter.claim_when_due())
    assert len(sender.sent) == 2  # it is on its way: its effect is waited for


def test_leases_that_are_gone_are_forgotten() -> None:
    sender = FakeSender()
    reporter, chain = _reporter(sender)
    asyncio.run(reporter.claim_when_due())
    chain.leases.clear()
    asyncio.run(reporter.claim_when_due())
    assert not reporter._claimed


def test_a_lease_that_never_started_is_ended_by_its_members_in_turn() -> None:
    sender = FakeSender()
    reporter, chain = _reporter(sender)
    other = SimpleNamespace(node=bytes([7]) * 32)
    lease = SimpleNamespace(
        started_ms=0, closed_ms=0, accept_by_ms=100_000, members=[other, SimpleNamespace(node=ME)], terms=[]
    )
    chain.leases[LEASE] = lease
    due = lease.accept_by_ms + MINIMAL.tick_ms + MINIMAL.verdict_window_ms  # the second in turn
    chain.header_ms = due - 1
    asyncio.run(reporter.refund_expired())
    assert sender.sent == []
    chain.header_ms = due
    sender.code = "unknown_lease"  # the first was as quick
    asyncio.run(reporter.refund_expired())
    asyncio.run(reporter.refund_expired())
    assert sender.sent == [Refund(LEASE)]
    lease.started_ms = 1
    chain.header_ms += 1_000_000
    asyncio.run(reporter.refund_expired())
    assert len(sender.sent) == 1
