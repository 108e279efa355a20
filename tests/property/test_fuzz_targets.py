"""The fuzzer's targets without the fuzzer: seeds, everything that was ever found, and small damage to both."""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
from seeds import seeds
from targets import TARGETS
from worlds import ledger

from freehold.ledger.codes import Code
from freehold.ledger.transactions import Body, decode_tx

PAIRS = [(name, seed) for name in TARGETS for seed in seeds(name)]


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_findings_are_read_or_refused(name: str) -> None:
    for seed in seeds(name):
        TARGETS[name](seed)
        for cut in range(min(len(seed), 64)):
            TARGETS[name](seed[:cut])


@given(st.sampled_from(PAIRS), st.data())
@settings(max_examples=300)
def test_damaged_input_is_read_or_refused(pair: tuple[str, bytes], data: st.DataObject) -> None:
    name, seed = pair
    damaged = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(damaged) - 1)))
        damaged[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    TARGETS[name](bytes(damaged))


def test_the_ledgers_seeds_are_of_every_kind_and_most_get_through() -> None:
    sent = list(seeds("rules"))
    assert {type(decode_tx(data).body) for data in sent} == set(Body.__args__)
    done = [data for data in sent if ledger().check(data) == Code.OK]
    assert len(done) >= len(sent) / 2
