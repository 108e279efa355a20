"""Proofs of service: what they say, on whose word, and that they never say more than their evidence."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from ledger_grid import GENESIS_MS, ZERO
from msgspec.structs import replace
from proof_grid import ProofGrid

from freehold.base.codec import encode
from freehold.base.errors import InvalidInputError
from freehold.base.limits import MAX_PROOF_FILE_BYTES
from freehold.base.presets import MINIMAL
from freehold.client.epoch_evidence import Word
from freehold.client.forgers import beacon_line
from freehold.client.verifying import Verdict, verify_proof
from freehold.ledger import keys
from freehold.ledger.records import Lease
from freehold.ledger.transactions import Challenge, Probe, ProbeKind
from freehold.ledger.transactions import Verdict as VerdictBody
from freehold.light.genesis import genesis_document, parse_genesis
from freehold.light.types import Timestamp
from freehold.protocol.messages import Mailbox


def served_grid(epochs: int, **fields: Any) -> tuple[ProofGrid, bytes]:
    """A grid in which node 0 holds a lease with node 3 standing by, for some epochs that were claimed, and one more."""
    order = fields.pop("order", {})
    grid = ProofGrid(fields.pop("preset", MINIMAL), **fields)
    grid.next_epoch()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 3]], **order)
    for _ in range(epochs):
        grid.next_epoch()
    grid.claim_all(lease)
    grid.next_epoch()
    return grid, lease


@pytest.fixture(scope="module")
def day() -> tuple[ProofGrid, bytes, bytes]:
    grid, lease = served_grid(26)
    return grid, lease, grid.export(lease)


@pytest.fixture
def two() -> Iterator[tuple[ProofGrid, bytes]]:
    yield served_grid(3)


def epochs(verdict: Verdict) -> dict[int, tuple[str, str]]:
    """Word and detail of each epoch."""
    found = [statement for statement in verdict.statements if statement.is_epoch]
    return {int(s.subject.split(" ")[2]): (s.word, s.detail) for s in found}


def gap_texts(verdict: Verdict) -> list[str]:
    return [f"{line.subject}: {line.detail}" for line in verdict.gaps]


def test_a_day_of_service_is_observed(day: tuple[ProofGrid, bytes, bytes]) -> None:
    grid, _, data = day
    verdict = grid.verify(data, require=Word.OBSERVED)
    assert verdict.problem is None
    said = epochs(verdict)
    assert list(said) == list(range(2, 27))
    assert {word for word, _ in said.values()} == {"observed 3/3"}
    assert "counted by the ledger" in said[2][1]
    assert "reports in this proof; draw recomputed; 9 signed answers" in said[26][1]
    assert "paid" in said[25][1]
    assert "paid" not in said[26][1]  # not settled yet
    assert not verdict.gaps
    first = verdict.statements[0]
    assert first.subject == "shop/web-0 epoch 2 (2023-11-14 22:13:40-22:13:50 UTC)"
    assert f"node {grid.nodes[0].public.hex()[:12]}, term 1" in first.detail


def test_what_a_node_says_of_itself_is_only_claimed(day: tuple[ProofGrid, bytes, bytes]) -> None:
    grid, _, data = day
    others = [statement for statement in grid.verify(data).statements if not statement.is_epoch]
    assert [statement.subject for statement in others] == [
        "shop/web-0 image",
        "shop/web-0 running",
        "shop/web-0 restarts",
        "shop/web-0 health",
    ]
    assert {statement.word for statement in others} == {"claimed"}


def test_the_document_names_who_could_have_forged_it(day: tuple[ProofGrid, bytes, bytes]) -> None:
    grid, _, data = day
    document = grid.verify(data).document()
    assert document["verdict"] == "verified"
    assert document["validators"] == 1
    assert "validators: 1: its operator can rewrite this ledger" in document["assumes"]
    assert "the validator can choose the witnesses" in document["assumes"]
    assert any(line.startswith("trust: genesis") for line in document["assumes"])
    assert any(line.startswith("observed: something answered") for line in document["assumes"])
    assert {tuple(sorted(entry)) for entry in document["statements"]} == {("detail", "subject", "word")}
    subjects = [entry["subject"] for entry in document["contract"]]
    assert {"shop/web-0 price", "shop/web-0 state", "shop/web-0 term 1", "shop/web-0 member 2"} <= set(subjects)


def test_four_validators_are_named() -> None:
    grid, lease = served_grid(2, powers=(10, 10, 10, 10))
    verdict = grid.verify(grid.export(lease))
    assert (verdict.problem, verdict.validators) == (None, 4)
    assert "validators: 4; 3 of them together could have forged it" in verdict.assumes
    assert "the validator can choose the witnesses" not in verdict.assumes
    assert "the validator that proposes an epoch's first block can choose the epoch's witnesses" in verdict.assumes


@pytest.mark.parametrize(
    ("powers", "line"),
    [
        ((10,), "the validator knows the witnesses of every epoch in advance"),
        ((10, 10, 10, 10), "at most 2 draws with the validators that signed this, more with several turns"),
        ((10,) * 10, "at most 4 draws"),
        ((6, 1, 1, 1), "at most 3 draws"),
    ],
)
def test_what_is_assumed_of_the_beacon_follows_its_form(powers: tuple[int, ...], line: str) -> None:
    document = genesis_document(
        chain_id="c",
        genesis_time=Timestamp.from_ms(GENESIS_MS),
        validators=[(bytes([at + 1]) * 32, power, f"v{at}") for at, power in enumerate(powers)],
        app_state={"vrf": []},
    )
    trusted = parse_genesis(document)
    said = beacon_line(trusted, trusted.validators)
    assert line in said and "can choose the witnesses" not in said


def test_a_refused_file_says_nothing_about_who_signed() -> None:
    refused = verify_proof(b"", ProofGrid(powers=(10, 10)).chain.trusted).document()
    assert (refused["validators"], [line[:6] for line in refused["assumes"]]) == (0, ["trust:"])
    assert "signers" not in refused and "forgers" not in refused


@pytest.mark.parametrize(("witnesses", "threshold", "farms"), [(3, 2, 5), (15, 10, 17)])
def test_a_day_with_two_members_fits(witnesses: int, threshold: int, farms: int) -> None:
    preset = replace(MINIMAL, witnesses=witnesses, threshold=threshold)
    grid, lease = served_grid(25, preset=preset, farms=farms, nodes_per_farm=1 if witnesses > 3 else 2)
    for data in (grid.export(lease), grid.export(lease, with_mail=False)):
        assert len(data) <= MAX_PROOF_FILE_BYTES
        said = epochs(grid.verify(data, require=Word.OBSERVED))
        assert len(said) >= 24
        assert {word for word, _ in said.values()} == {f"observed {witnesses}/{witnesses}"}


def test_without_mailboxes_there_are_no_answers_and_it_still_verifies(two: tuple[ProofGrid, bytes]) -> None:
    grid, lease = two
    verdict = grid.verify(grid.export(lease, with_mail=False), require=Word.OBSERVED)
    assert verdict.problem is None
    assert not any("signed answers" in detail for _, detail in epochs(verdict).values())
    assert [statement.subject for statement in verdict.statements if not statement.is_epoch] == ["shop/web-0 image"]


def test_another_genesis_is_refused(day: tuple[ProofGrid, bytes, bytes]) -> None:
    _, _, data = day
    stranger = ProofGrid(powers=(10, 10))
    assert verify_proof(data, stranger.chain.trusted).document()["verdict"] == "not verified"
    changed = replace(day[0].chain.trusted, chain_id="another")
    refused = verify_proof(data, changed)
    assert (refused.problem and refused.problem.code, refused.exit_code) == ("wrong_chain", 5)
    assert refused.statements == []


def test_a_genesis_with_other_rules_is_refused(day: tuple[ProofGrid, bytes, bytes]) -> None:
    grid, _, data = day
    state = grid.chain.trusted.app_state
    other = replace(grid.chain.trusted, app_state={**state, "values": {**state["values"], "threshold": 3}})
    refused = verify_proof(data, other)
    assert refused.problem is not None
    assert refused.problem.code == "wrong_params"
    nothing = verify_proof(data, replace(grid.chain.trusted, app_state={}))
    assert nothing.problem is not None
    assert nothing.problem.code == "bad_genesis"


# -- less than observed ---------------------------------------------------------------------------------------------


def test_too_few_witnesses_are_told_as_claimed() -> None:
    grid, lease = served_grid(3)
    holder, epoch = grid.nodes[0].public, grid.epoch
    drawn = [grid.node_of_slot(number).public for number in grid.witnesses(holder, epoch)]
    grid.silent = {(witness, holder) for witness in drawn[1:]}
    grid.next_epoch()
    grid.silent = set()
    grid.next_epoch()
    before = epochs(grid.verify(grid.export(lease)))[epoch]
    grid.claim_all(lease)
    after = epochs(grid.verify(grid.export(lease)))[epoch]
    for word, detail in (before, after):
        assert word == "claimed"
        assert "1 of 3 witnesses, 2 are needed" in detail
    assert "refunded" in after[1]
    strict = grid.verify(grid.export(lease), require=Word.OBSERVED)
    assert strict.problem is not None
    assert (strict.problem.code, strict.exit_code) == ("requirement_not_met", 5)
    assert f"epoch {epoch}" in strict.problem.message
    assert grid.verify(grid.export(lease), require=Word.CLAIMED).problem is None


def test_epochs_that_nobody_claims_are_shown_as_gaps() -> None:
    grid, lease = served_grid(2)
    grid.down = {grid.nodes[0].public}
    epoch = grid.epoch
    grid.next_epoch()
    grid.next_epoch()
    for settle in (False, True):
        if settle:
            grid.claim_all(lease)
        verdict = grid.verify(grid.export(lease))
        assert verdict.problem is None
        assert epoch not in epochs(verdict)
        assert any(f"epoch {epoch} " in text and "did not report it" in text for text in gap_texts(verdict))
        assert grid.verify(grid.export(lease), require=Word.CLAIMED).exit_code == 5


def test_void_epochs_are_named_and_fail_nothing() -> None:
    grid, lease = served_grid(2)
    voided = grid.epoch
    grid.next_epoch(ticks=1)
    grid.next_epoch()
    grid.next_epoch()
    open_gaps = gap_texts(grid.verify(grid.export(lease)))
    grid.claim_all(lease)
    data = grid.export(lease)
    for gaps in (open_gaps, gap_texts(grid.verify(data))):
        assert any(f"epoch {voided} " in text and "void" in text for text in gaps)
    assert grid.verify(data, require=Word.OBSERVED).problem is None
    # Without the records that show it, nobody can tell: then it counts against the proof.
    document = json.loads(data)
    document["proofs"] = [entry for entry in document["proofs"] if entry["key"][:2] != "65"]
    bare = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert grid.verify(bare).problem is None
    assert grid.verify(bare, require=Word.CLAIMED).exit_code == 5


def test_a_halt_of_whole_epochs_is_void() -> None:
    grid, lease = served_grid(2)
    halted = grid.epoch + 1
    while grid.now < GENESIS_MS + halted * MINIMAL.epoch_ms - 2 * MINIMAL.tick_ms:
        grid.block()
    grid.block(dt=3 * MINIMAL.epoch_ms)
    grid.next_epoch()
    grid.next_epoch()
    span = f"epochs {halted}-{halted + 2} "
    assert any(span in text and "void" in text for text in gap_texts(grid.verify(grid.export(lease))))
    grid.claim_all(lease)
    assert any(span in text and "void" in text for text in gap_texts(grid.verify(grid.export(lease))))


def test_without_a_probe_nobody_saw_the_service() -> None:
    grid, lease = served_grid(3, order={"probe": Probe(ProbeKind.NONE, 0, "")})
    verdict = grid.verify(grid.export(lease))
    assert {word for word, _ in epochs(verdict).values()} == {"claimed"}
    assert all("no probe" in detail for _, detail in epochs(verdict).values())


def test_answers_without_the_service_take_a_witness_away() -> None:
    grid, lease = served_grid(2)
    grid.unspoken = {grid.nodes[0].public}
    epoch = grid.epoch
    grid.next_epoch()
    grid.unspoken = set()
    grid.next_epoch()

    async def all_leaves(lease_id: bytes, lease: Lease, first: int, last: int) -> list[Mailbox]:
        return [Mailbox(*grid.mail[number]) for number in range(first, last + 1) if number in grid.mail]

    word, detail = epochs(grid.verify(grid.export(lease, ask=all_leaves)))[epoch]
    assert word == "claimed"
    assert "3 of 3 witnesses saw the node, 0 of them the service" in detail


def test_few_owners_are_told() -> None:
    grid, lease = served_grid(2, farms=3)
    words = {word for word, _ in epochs(grid.verify(grid.export(lease))).values()}
    assert "observed 3/3, 2 owners" in words


def test_require_needs_an_epoch_and_stronger_words_than_there_are() -> None:
    grid = ProofGrid()
    grid.next_epoch()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 3]], accept=False)
    data = grid.export(lease)
    assert grid.verify(data).problem is None
    none = grid.verify(data, require=Word.CLAIMED)
    assert none.problem is not None
    assert "no epoch of service" in none.problem.message
    grid, lease = served_grid(2)
    for word in (Word.ATTESTED, Word.REPRODUCED):
        assert grid.verify(grid.export(lease), require=word).exit_code == 5


def test_epochs_of_a_dead_node_stay_proven_after_failover() -> None:
    grid, lease = served_grid(3)
    dead = grid.epoch
    grid.down = {grid.nodes[0].public}
    challenge = grid.ok(grid.nodes[3], Challenge(lease, 1))
    grid.block(dt=100)
    for number in grid.challenge_witnesses(challenge):
        grid.ok(grid.node_of_slot(number), VerdictBody(challenge, True))
    for _ in range(3):
        grid.next_epoch()
    grid.claim_all(lease)
    verdict = grid.verify(grid.export(lease))
    assert verdict.problem is None
    said = epochs(verdict)
    first, second = (f"node {grid.nodes[number].public.hex()[:12]}" for number in (0, 3))
    assert said[dead - 1][0] == "observed 3/3"
    assert first in said[dead - 1][1]
    assert f"{second}, term 2" in said[dead + 1][1]
    assert said[dead + 1][0].startswith("observed")
    terms = [line for line in verdict.contract if " term " in line.subject]
    assert [first in terms[0].detail, second in terms[1].detail] == [True, True]


# -- a ledger that contradicts itself -------------------------------------------------------------------------------


def code_of(grid: ProofGrid, data: bytes) -> str:
    verdict = grid.verify(data)
    assert verdict.document()["verdict"] == "not verified"
    assert (verdict.exit_code, verdict.statements) == (5, [])
    assert verdict.problem is not None
    return verdict.problem.code


def test_a_settlement_against_its_own_reports_is_refused(two: tuple[ProofGrid, bytes]) -> None:
    grid, lease = two
    record = grid.lease(lease)
    settled = [*record.settlements[:-1], replace(record.settlements[-1], seen=2)]
    grid.state[keys.lease_key(lease)] = encode(replace(record, settlements=settled))
    assert code_of(grid, grid.export(lease)) == "bad_settlement"


def test_witnesses_against_the_draw_are_refused(two: tuple[ProofGrid, bytes]) -> None:
    grid, lease = two
    holder, epoch = grid.nodes[0].public, grid.epoch - 2
    data = grid.export(lease)
    rows = {entry["key"] for entry in json.loads(data)["proofs"]}
    report = grid.report(holder, epoch)
    assert report is not None
    key = keys.report_key(holder, epoch, MINIMAL.report_epochs)
    grid.state[key] = encode(replace(report, witnesses=report.witnesses[::-1]))
    forged = grid.export(lease)
    # An honest exporter leaves the draw of such an epoch out; a liar who puts the record in is found out.
    assert "draw checked by the ledger" in epochs(grid.verify(forged))[epoch][1]
    assert keys.epoch_key(epoch, MINIMAL.report_epochs).hex() in rows
    assert (
        code_of(grid, grid.rewritten(forged, extra=[keys.epoch_key(epoch, MINIMAL.report_epochs)], entries=[]))
        == "wrong_draw"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": b"short"},
        {"service": "\x1b[2J"},
        {"started_ms": 1 << 62},
        {"prepaid_ms": 1 << 62},
        {"started_ms": -5},
        {"terms": [(9, 0, 0)]},
        {"settled_epoch": 1 << 40},
    ],
)
def test_records_that_the_rules_never_write_are_refused(two: tuple[ProofGrid, bytes], change: dict[str, Any]) -> None:
    grid, lease = two
    data = grid.export(lease)
    record = grid.lease(lease)
    if "terms" in change:
        change = {"terms": [replace(record.terms[0], member=9)]}
    grid.state[keys.lease_key(lease)] = encode(replace(record, **change))
    assert code_of(grid, grid.rewritten(data)) == "bad_record"


def test_a_key_that_is_about_something_else_is_refused(two: tuple[ProofGrid, bytes]) -> None:
    grid, lease = two
    assert (
        code_of(
            grid, grid.rewritten(grid.export(lease, with_mail=False), extra=[keys.account_key(grid.tenants[0].public)])
        )
        == "unknown_key"
    )


def test_a_proof_of_no_lease_is_refused(two: tuple[ProofGrid, bytes]) -> None:
    grid, _ = two
    assert code_of(grid, grid.file_of([keys.PARAMS, keys.TOTALS])) == "no_lease"
    assert code_of(grid, grid.file_of([keys.PARAMS, keys.TOTALS, keys.lease_key(ZERO)])) == "absent_record"
    assert code_of(grid, grid.file_of([keys.PARAMS])) == "not_in_proof"


def test_epochs_that_nobody_claimed_in_time_count_against_the_proof() -> None:
    preset = replace(MINIMAL, report_epochs=4)
    grid = ProofGrid(preset)
    grid.next_epoch()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 3]])
    for _ in range(7):
        grid.next_epoch()
    for settled in (False, True):
        if settled:
            grid.claim_all(lease)
        verdict = grid.verify(grid.export(lease))
        assert verdict.problem is None
        assert grid.verify(grid.export(lease), require=Word.CLAIMED).exit_code == (0 if settled else 5)
    # Once the newest are claimed, the record of what was settled begins with them: it says nothing of what was before.
    assert min(epochs(verdict)) > 2


def test_with_less_room_a_proof_says_less_and_never_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, lease = served_grid(4)
    for _ in range(3):
        grid.next_epoch()  # not claimed: only their reports show them
    said = []
    for room in range(8_000, MAX_PROOF_FILE_BYTES + 1, 2_500):
        monkeypatch.setattr("freehold.client.proof_budget.MAX_PROOF_FILE_BYTES", room)
        try:
            data = grid.export(lease)
        except InvalidInputError as error:
            assert (error.code, said) == ("oversized", [])
            continue
        assert len(data) <= room
        verdict = grid.verify(data, require=Word.OBSERVED)
        assert verdict.problem is None
        said.append(len(epochs(verdict)))
    assert said == sorted(said)
    assert said[0] < said[-1] == 7
