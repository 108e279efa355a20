"""`kill -9` while an index is written: nothing is lost, nothing stands twice; a build that tears it is caught."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from index_kit import database, make_blocks, sqlite_index

from freehold.indexer.schema import TABLES

SEED = 20_261_126
CHILD = Path(__file__).with_name("index_child.py")


def kill_many(folder: Path, kills: int, seed: int, *mode: str) -> int:
    """Kill at random numbers of batches; the heights after each kill must be whole. Returns kills amid writing."""
    dice = random.Random(seed)
    amid = 0
    for number in range(kills):
        child = subprocess.Popen(
            [sys.executable, str(CHILD), str(folder), str(seed), *mode], stdout=subprocess.PIPE, text=True
        )
        with child:
            lines = wait_for_batches(child, dice.randrange(1, 5))
            delay_s = dice.uniform(0.0, 0.004)
            time.sleep(delay_s)  # the point of the kill, by chance: not a synchronisation
            child.kill()
            lines += [line.split() for line in child.stdout if line.endswith("\n")]
        seen = max((int(height) for word, height in lines if word == "indexed"), default=0)
        writing = lines[-1][0] == "adding"
        amid += writing
        stood = check_whole(folder, seed)
        assert stood >= seen, f"kill {number}: {seen} was told as indexed, {stood} stands"
        print(f"seed {seed} kill {number}: after {delay_s * 1e3:.1f} ms, {seen} told, {stood} stands, {writing=}")
    return amid


def wait_for_batches(child: subprocess.Popen[str], batches: int) -> list[list[str]]:
    """Read on until a batch begins after so many."""
    lines: list[list[str]] = []
    for line in child.stdout or ():
        lines.append(line.split())
        assert lines[-1][0] in ("adding", "indexed"), line
        batches -= lines[-1][0] == "adding"
        if batches < 0:
            return lines
    raise AssertionError("the child ended by itself")


def check_whole(folder: Path, seed: int) -> int:
    """Every row of every counted block is there, once, and no other; returns the newest height."""
    index = sqlite_index(folder)
    newest = index.open()
    assert index.spans() == [(1, newest)]
    index.close()
    anew = sqlite_index(folder / "anew")
    anew.open()
    anew.add(make_blocks(range(1, newest + 1), seed))
    anew.close()
    with database(folder).read() as one, database(folder / "anew").read() as other:
        for table in TABLES:
            select = f"SELECT * FROM {table}"  # noqa: S608
            assert sorted(one.rows(select)) == sorted(other.rows(select)), f"{table} is torn at {newest}"
    database(folder / "anew").clear()
    return newest


def test_kills_lose_and_double_nothing(tmp_path):
    assert kill_many(tmp_path, 4, SEED) >= 2, "no write was in flight"


def test_canary_an_index_that_counts_before_it_writes_is_caught(tmp_path):
    with pytest.raises(AssertionError, match=r"is torn at|stands"):
        kill_many(tmp_path, 40, SEED, "torn")


@pytest.mark.long
def test_twenty_kills_lose_and_double_nothing(tmp_path):
    seed = random.SystemRandom().randrange(1 << 32)
    # in folders of their own, since what is checked after each kill is all that stands
    amid = sum(kill_many(tmp_path / str(number), 5, seed + number) for number in range(4))
    assert amid >= 10, f"writing at {amid} of 20 kills"
