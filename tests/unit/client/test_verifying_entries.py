"""Witness entries: only what stands under a proven report, signed, counts; a member's mailbox may hold anything."""

from collections.abc import Callable

import pytest
from ledger_grid import CHAIN, ZERO
from msgspec.structs import replace
from proof_grid import ProofGrid

from freehold.client.mailboxes import EPOCHS_PER_CALL
from freehold.client.proof_facts import encode_duty, encode_evidence
from freehold.ledger.records import Lease
from freehold.light.proof_file import parse_proof_file
from freehold.protocol.evidence import DutyLeaf, EvidenceLeaf, ProvenDuty, ProvenEvidence, prove_duties, prove_evidence
from freehold.protocol.messages import Mailbox


@pytest.fixture(scope="module")
def served() -> tuple[ProofGrid, bytes, int]:
    """A grid, a lease, and an epoch whose reports are in its proof."""
    grid = ProofGrid()
    grid.next_epoch()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 3]])
    for _ in range(3):
        grid.next_epoch()
    return grid, lease, grid.epoch - 2


def evidence_of(grid: ProofGrid, lease: bytes, epoch: int) -> ProvenEvidence:
    """The holder's own."""
    slot = grid.lease(lease).members[0].slot
    return next(p for p in grid.mail[epoch][0] if p.leaf.lease == lease and p.leaf.lease_slot == slot)


def duty_of(grid: ProofGrid, epoch: int) -> ProvenDuty:
    target = grid.node(grid.nodes[0].public).slot
    return next(p for p in grid.mail[epoch][1] if p.leaf.target_slot == target)


def with_entry(grid: ProofGrid, lease: bytes, entry: bytes) -> str:
    """Verify a proof to which one entry was added; gives the code of its refusal, or nothing."""
    data = grid.rewritten(grid.export(lease, with_mail=False), entries=[entry])
    problem = grid.verify(data).problem
    return problem.code if problem else ""


def test_honest_entries_stand(served: tuple[ProofGrid, bytes, int]) -> None:
    grid, lease, epoch = served
    assert with_entry(grid, lease, encode_evidence(evidence_of(grid, lease, epoch))) == ""
    assert with_entry(grid, lease, encode_duty(duty_of(grid, epoch))) == ""


EVIDENCE_CHANGES: dict[str, Callable[[EvidenceLeaf], EvidenceLeaf]] = {
    "restarts": lambda leaf: replace(leaf, restarts=7),
    "image": lambda leaf: replace(leaf, image_digest=b"x" * 32),
    "epoch": lambda leaf: replace(leaf, epoch=leaf.epoch - 1),
    "lease": lambda leaf: replace(leaf, lease=ZERO),
    "slot": lambda leaf: replace(leaf, lease_slot=leaf.lease_slot + 1),
    "version": lambda leaf: replace(leaf, version=2),
}


@pytest.mark.parametrize("change", EVIDENCE_CHANGES.values(), ids=EVIDENCE_CHANGES)
def test_changed_evidence_is_refused(
    served: tuple[ProofGrid, bytes, int], change: Callable[[EvidenceLeaf], EvidenceLeaf]
) -> None:
    grid, lease, epoch = served
    honest = evidence_of(grid, lease, epoch)
    leaf = change(honest.leaf)
    assert with_entry(grid, lease, encode_evidence(ProvenEvidence(leaf, honest.proof))) == "unproven_entry"
    assert with_entry(grid, lease, encode_evidence(prove_evidence([leaf])[0])) == "unproven_entry"


def with_answer(leaf: DutyLeaf, **changes: object) -> DutyLeaf:
    first = leaf.probes[0]
    return replace(leaf, probes=[replace(first, answer=replace(first.answer, **changes)), *leaf.probes[1:]])


DUTY_CHANGES: dict[str, tuple[Callable[[DutyLeaf], DutyLeaf], str]] = {
    "unsigned": (lambda leaf: with_answer(leaf, signature=bytes(64)), "unsigned_entry"),
    "no_signature": (lambda leaf: with_answer(leaf, signature=b""), "unsigned_entry"),
    "other_height": (lambda leaf: with_answer(leaf, height=9), "unsigned_entry"),
    "other_node": (lambda leaf: with_answer(leaf, node=ZERO), "unproven_entry"),
    "other_witness": (lambda leaf: with_answer(leaf, witness=ZERO), "unproven_entry"),
    "other_epoch": (lambda leaf: with_answer(leaf, epoch=0), "unproven_entry"),
    "one_answer": (lambda leaf: replace(leaf, probes=leaf.probes[:1]), "unproven_entry"),
    "no_answers": (lambda leaf: replace(leaf, probes=[]), "unproven_entry"),
    "one_twice": (lambda leaf: replace(leaf, probes=[leaf.probes[0]] * 3), "unproven_entry"),
    "many": (lambda leaf: replace(leaf, probes=leaf.probes * 2), "unproven_entry"),
    "version": (lambda leaf: replace(leaf, version=2), "unproven_entry"),
    "no_such_target": (lambda leaf: replace(leaf, target_slot=99), "unproven_entry"),
}


@pytest.mark.parametrize(("change", "code"), DUTY_CHANGES.values(), ids=DUTY_CHANGES)
def test_answers_are_checked_even_under_a_reported_root(
    change: Callable[[DutyLeaf], DutyLeaf], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The witness itself lies: it reports the root of what it made up."""
    grid = ProofGrid()
    honest = ProofGrid._duty
    target = grid.node(grid.nodes[0].public).slot

    def lie(self: ProofGrid, witness: bytes, number: int, epoch: int) -> DutyLeaf:
        leaf = honest(self, witness, number, epoch)
        return change(leaf) if number == target else leaf

    monkeypatch.setattr(ProofGrid, "_duty", lie)
    grid.next_epoch()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 3]])
    for _ in range(3):
        grid.next_epoch()
    made_up = [p for p in grid.mail[grid.epoch - 2][1] if p.leaf.target_slot in (target, 99)]
    assert {with_entry(grid, lease, encode_duty(proven)) for proven in made_up} == {code}
    # An exporter that finds such leaves in a mailbox leaves them out, so a liar spoils no proof.
    assert grid.verify(grid.export(lease)).problem is None
    assert all(entry[:1] == b"\x01" for entry in parse_proof_file(grid.export(lease)).witness)


def test_a_path_has_one_form(served: tuple[ProofGrid, bytes, int]) -> None:
    grid, lease, epoch = served
    for honest in (evidence_of(grid, lease, epoch), duty_of(grid, epoch)):
        for change in ({"total": honest.proof.total + 1}, {"index": honest.proof.index + 1}):
            proof = replace(honest.proof, **change)
            entry = (
                encode_evidence(ProvenEvidence(honest.leaf, proof))
                if isinstance(honest, ProvenEvidence)
                else encode_duty(ProvenDuty(honest.leaf, proof))
            )
            assert with_entry(grid, lease, entry) == "unproven_entry"


def test_unknown_broken_and_unordered_entries_are_refused(served: tuple[ProofGrid, bytes, int]) -> None:
    grid, lease, epoch = served
    evidence, duty = encode_evidence(evidence_of(grid, lease, epoch)), encode_duty(duty_of(grid, epoch))
    assert with_entry(grid, lease, b"\x03" + evidence[1:]) == "unknown_entry"
    assert with_entry(grid, lease, b"\x01") == "undecodable"
    assert with_entry(grid, lease, evidence + b"\x00") == "undecodable"
    assert with_entry(grid, lease, b"\x02" + evidence[1:]) == "undecodable"
    file = grid.rewritten(grid.export(lease, with_mail=False), entries=[evidence, duty])
    twice = grid.rewritten(file, entries=[evidence, evidence])
    problem = grid.verify(twice).problem
    assert problem is not None
    assert problem.code == "not_canonical"


def test_answers_to_a_stranger_are_refused(served: tuple[ProofGrid, bytes, int]) -> None:
    grid, lease, epoch = served
    stranger = prove_duties([replace(duty_of(grid, epoch).leaf, witness=grid.tenants[0].public)])[0]
    assert with_entry(grid, lease, encode_duty(stranger)) == "unproven_entry"


def test_hostile_mailboxes_change_nothing(served: tuple[ProofGrid, bytes, int]) -> None:
    grid, lease, epoch = served
    good_evidence, good_duty = evidence_of(grid, lease, epoch), duty_of(grid, epoch)
    garbage = Mailbox(
        [ProvenEvidence(replace(good_evidence.leaf, restarts=9), good_evidence.proof)],
        [ProvenDuty(with_answer(good_duty.leaf, signature=bytes(64)), good_duty.proof)],
    )

    async def both(lease_id: bytes, record: Lease, first: int, last: int) -> list[Mailbox]:
        assert last - first < 2 * EPOCHS_PER_CALL
        return [garbage, *await grid.ask(lease_id, record, first, last), garbage]

    assert grid.export(lease, ask=both) == grid.export(lease)
    assert grid.chain.trusted.chain_id == CHAIN
