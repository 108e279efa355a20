"""Every byte of a proof file: changed, it is refused or says exactly the same; with parts left out, never more."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proof_grid import ProofGrid

from freehold.client.epoch_evidence import Word
from freehold.client.proof_statements import Statement
from freehold.client.verifying import Verdict


def make(epochs: int) -> tuple[ProofGrid, bytes]:
    grid = ProofGrid()
    grid.next_epoch()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 3]])
    for _ in range(epochs):
        grid.next_epoch()
    grid.claim_all(lease)
    grid.next_epoch()
    return grid, grid.export(lease)


GRID, DATA = make(4)
MEANING = GRID.verify(DATA).document()


def check_flip(at: int, mask: int) -> None:
    changed = bytearray(DATA)
    changed[at] ^= mask
    verdict = GRID.verify(bytes(changed))
    if verdict.problem is None:
        assert verdict.document() == MEANING, f"byte {at} ^ {mask:#x} changed the meaning"
    else:
        assert verdict.exit_code == 5
        assert verdict.statements == []


@settings(deadline=None)
@given(at=st.integers(0, len(DATA) - 1), mask=st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_says_the_same(at: int, mask: int) -> None:
    check_flip(at, mask)


def test_bytes_flipped_all_over_the_file() -> None:
    for at in range(0, len(DATA), 211):
        check_flip(at, 1)


@pytest.mark.long
def test_every_byte_flipped() -> None:
    for at in range(len(DATA)):
        check_flip(at, 1)  # the bit that most often leaves hex, base64 and JSON well formed


@pytest.mark.parametrize("cut", [0, 1, 1000, len(DATA) - 1])
def test_a_file_cut_short_or_with_more_is_refused(cut: int) -> None:
    assert GRID.verify(DATA[:cut]).exit_code == 5
    assert GRID.verify(DATA + DATA[:cut] + b"\n").exit_code == 5


def spoken(verdict: Verdict) -> dict[str, Statement]:
    return {statement.subject: statement for statement in verdict.statements if statement.is_epoch}


def seen(statement: Statement) -> int:
    return int(statement.word.split(" ")[1].split("/")[0]) if statement.level is Word.OBSERVED else 0


@settings(deadline=None)
@given(data=st.data())
def test_leaving_parts_out_never_says_more(data: st.DataObject) -> None:
    document: dict[str, Any] = json.loads(DATA)
    for part in ("proofs", "witness"):
        count = len(document[part])
        gone = data.draw(st.sets(st.integers(0, count - 1), max_size=count), label=part)
        document[part] = [entry for at, entry in enumerate(document[part]) if at not in gone]
    verdict = GRID.verify(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())
    if verdict.problem is not None:
        return
    whole, less = spoken(GRID.verify(DATA)), spoken(verdict)
    names = {subject.split("/")[-1]: statement for subject, statement in whole.items()}
    for subject, statement in less.items():
        # Without the deployment's record the service has no first name; the epoch is the same.
        full = names[subject.split("/")[-1]]
        assert full.level.is_at_least(statement.level)
        assert seen(statement) <= seen(full)
