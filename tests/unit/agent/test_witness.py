"""A witness's probe: what it asks of whom, and what is its own trouble rather than the node's."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from lease_kit import BLANK
from msgspec.structs import replace

from freehold.agent.failover import Failover
from freehold.agent.witness import Witness
from freehold.base.errors import UnreachableError
from freehold.base.presets import MINIMAL
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger.keys import lease_key, node_key, node_lease_key
from freehold.ledger.records import Lease, Member, NodeLease, Term
from freehold.ledger.transactions import Probe, ProbeKind
from freehold.protocol.evidence import IdentityAnswer, IdentityQuestion, sign_identity

CHAIN, NOW = "freehold-test", 1_000_000
TARGET, ME = PrivateKey.from_seed(bytes(32)), PrivateKey.from_seed(bytes([1]) * 32)
WEB, OLD = b"w" * 32, b"o" * 32


def _lease(prepaid_ms: int) -> Lease:
    return replace(
        BLANK,
        members=[Member(TARGET.public, 3, 1, bytes(32), False)],
        terms=[Term(0, 1, 1)],
        probe=Probe(ProbeKind.TCP, 80, ""),
        prepaid_ms=prepaid_ms,
        started_ms=1,
    )


class FakeLedger:
    """Verified reads, or none."""

    chain_id = CHAIN

    def __init__(self, records: dict[bytes, Any] | None) -> None:
        self.records = records

    async def read(self, keys: list[bytes]) -> Any:
        if self.records is None:
            raise UnreachableError("the ledger does not answer", code="ledger_unreachable")
        records = self.records
        return SimpleNamespace(get=lambda key, kind: records.get(key))


class FakePeers:
    """The target, which answers for itself and serves nothing."""

    def __init__(self) -> None:
        self.pool: Any = SimpleNamespace(drop=lambda *_: None)

    async def call(self, node: bytes, method: str, request: IdentityQuestion, kind: type, **_: int) -> IdentityAnswer:
        assert (node, method) == (TARGET.public, "probe.identity")
        return sign_identity(CHAIN, TARGET, ME.public, request, 10, bytes(32))

    async def splice(self, *_: object) -> Any:
        raise UnreachableError("not running", code="not_running")


def _witness(records: dict[bytes, Any] | None) -> Witness:
    chain: Any = SimpleNamespace(
        ledger=FakeLedger(records),
        node_id=ME.public,
        preset=MINIMAL,
        header=SimpleNamespace(height=10),
        header_ms=NOW,
        totals=SimpleNamespace(void_ms=0),
    )
    peers: Any = FakePeers()
    slots: Any = None
    return Witness(chain, peers, slots, lambda _: None)


def _grid(web: Lease, old: Lease) -> dict[bytes, Any]:
    node = SimpleNamespace(lease_slots=bytes([0b11]) + bytes(31))
    return {
        node_key(TARGET.public): node,
        node_lease_key(TARGET.public, 0): NodeLease(1, WEB),
        node_lease_key(TARGET.public, 1): NodeLease(1, OLD),
        lease_key(WEB): web,
        lease_key(OLD): old,
    }


def test_a_lease_that_has_ended_is_not_asked_for() -> None:
    witness = _witness(_grid(_lease(NOW + 1_000), _lease(1_000)))
    seen, lease_slots = asyncio.run(witness.probe(TARGET.public, 3))
    assert [(workload.lease, workload.ok) for workload in seen.workloads] == [(WEB, False)]
    assert lease_slots == {WEB: 3}


def test_a_witness_without_the_ledger_still_counts_the_node_s_answer() -> None:
    seen, _ = asyncio.run(_witness(None).probe(TARGET.public, 3))
    assert seen.answer.node == TARGET.public
    assert seen.workloads == []


@pytest.mark.parametrize("is_known", [True, False])
def test_a_verdict_rests_on_the_node_s_answer_and_not_on_the_ledger_s(*, is_known: bool) -> None:
    witness = _witness(None)

    async def any_node(node: bytes) -> object:
        if not is_known:
            raise UnreachableError("the ledger does not answer", code="ledger_unreachable")
        return object()

    chain: Any = SimpleNamespace(preset=MINIMAL, any_node=any_node)
    peers: Any = FakePeers()
    rest: Any = None
    failover = Failover(chain, peers, rest, rest, witness, rest, rest)
    record: Any = SimpleNamespace(epoch=3)
    if is_known:
        assert asyncio.run(failover._serves(TARGET.public, record))
    else:
        with pytest.raises(UnreachableError):
            asyncio.run(failover._serves(TARGET.public, record))
