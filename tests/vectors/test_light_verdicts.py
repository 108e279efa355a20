"""Hops as CometBFT v0.38.25 judges them: its recorded verdicts on random cases, and its own code on fresh ones.

`light_hops_cometbft_v0_38_25.json` holds recipes and the verdicts that `light.Verify` gave (light_oracle.go). The long
tests build that program with the machine's Go, judge the recorded and new cases, and let it verify our evidence.
"""

import base64
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "light"))

from light_history import History, key, make_set, now_at, pinned, run, sign

from freehold.base.errors import FreeholdError
from freehold.light.bisection import Bisection
from freehold.light.divergence import Divergence, WitnessCheck
from freehold.light.headers import address_of, precommit_sign_bytes
from freehold.light.skipping import NotEnoughTrustError, TrustBounds, TrustedState, TrustExpiredError, verify_hop
from freehold.light.types import BlockIDFlag, CommitSig, LightBlock, SignedHeader, Timestamp
from freehold.light.wire import Message

HERE = Path(__file__).parent
RECORDED = HERE / "light_hops_cometbft_v0_38_25.json"
MODULE = "module oracle\n\ngo 1.22.11\n\nrequire github.com/cometbft/cometbft v0.38.25\n"
BOUNDS = TrustBounds(trust_period_ms=100_000, clock_drift_ms=1_000)
LONG = TrustBounds(trust_period_ms=10**12, clock_drift_ms=1_000)
Recipe = dict[str, Any]

replace = msgspec.structs.replace


def random_powers(random: Random, near: dict[int, int] | None = None) -> dict[int, int]:
    """A set of up to six of eight keys, or one a few changes away."""
    if near is None:
        return {number: random.choice([1, 1, 1, 2, 3]) for number in random.sample(range(8), random.randint(1, 6))}
    powers = dict(near)
    for _ in range(random.randint(0, 3)):
        if random.random() < 0.5 and len(powers) > 1:
            powers.pop(random.choice(sorted(powers)))
        else:
            powers[random.randrange(8)] = random.choice([1, 1, 2, 3])
    return powers


def make_recipe(random: Random) -> Recipe:
    """What a case is made of; most are nearly right."""
    sets = [random_powers(random)]
    sets += [random_powers(random, sets[-1]) for _ in range(2)]
    sets[2] = random_powers(random, sets[1])
    height = random.choice([2, 3, 3, 5, 9])
    own = sets[min(height, 3) - 1]
    share = random.choice([0.3, 0.8, 1.0])
    time_ms = now_at(height) - 500 if random.random() < 0.9 else now_at(1) - 500 + random.choice([-1, 0, 1])
    return {
        "sets": [sorted(powers.items()) for powers in sets],
        "height": height,
        "time_ms": time_ms,
        "next_vouches": height != 2 and random.random() < 0.5,
        "shown": sorted(random_powers(random, own).items()) if random.random() < 0.08 else None,
        "signers": [number for number in sorted(own) if random.random() < share],
        "nil": [number for number in sorted(own) if random.random() < 0.06],
        "wrong": [number for number in sorted(own) if random.random() < 0.02],
        "repeated": random.random() < 0.04,
        "header": random.choice([{}] * 12 + [{"chain_id": "other"}, {"app_hash": ""}, {"height": 1}]),
        "now_ms": random.choice([time_ms + d for d in (-1001, -1000, -999, 0, 500, 500)]
                                + [now_at(1) - 500 + d for d in (99_999, 100_000)]),
    }  # fmt: skip


def build(recipe: Recipe) -> tuple[TrustedState, LightBlock]:
    """The trusted state and the light block of a recipe."""
    history = History([dict(powers) for powers in recipe["sets"]])
    root = pinned(history, 1, LONG)
    if recipe["next_vouches"]:
        root = root.with_next_validators(make_set(history.powers(2)))
    changes = {**recipe["header"], "time": Timestamp.from_ms(recipe["time_ms"])}
    header = history.header(recipe["height"])
    header = replace(header, **{k: bytes(0) if k == "app_hash" else v for k, v in changes.items()})
    powers = dict(recipe["shown"]) if recipe["shown"] else history.powers(recipe["height"])
    block = sign(header, powers, [number for number in recipe["signers"] if number in powers])
    commit = block.signed_header.commit
    names = {address_of(key(number).public): number for number in powers}
    entries = [spoilt(entry, names.get(entry.validator_address), header, recipe) for entry in commit.signatures]
    if recipe["repeated"]:
        entries[-1] = entries[0]
    commit = replace(commit, signatures=tuple(entries))
    return root, LightBlock(SignedHeader(header, commit), block.validator_set)


def spoilt(entry: CommitSig, number: int | None, header: Any, recipe: Recipe) -> CommitSig:
    if number is None or entry.block_id_flag == BlockIDFlag.ABSENT:
        return entry
    if number in recipe["nil"]:
        message = precommit_sign_bytes(header.chain_id, header.height, 0, None, entry.timestamp)
        return replace(entry, block_id_flag=BlockIDFlag.NIL, signature=key(number).sign(message))
    return replace(entry, signature=bytes(64)) if number in recipe["wrong"] else entry


def verdict(root: TrustedState, block: LightBlock, now_ms: int) -> tuple[str, str]:
    """Ours, and the code behind it."""
    try:
        verify_hop(root, LightBlock.decode(block.encode()), BOUNDS, now_ms)
    except NotEnoughTrustError as error:
        return "NOT_ENOUGH_TRUST", error.code
    except TrustExpiredError as error:
        return "EXPIRED", error.code
    except FreeholdError as error:
        return "INVALID", error.code
    return "SUCCESS", ""


def compare(recipe: Recipe, theirs: str) -> str:
    """Ours is theirs, or a refusal of what they did not look at: it stops at enough signatures, we read all."""
    ours, code = verdict(*build(recipe), recipe["now_ms"])
    strict = code in ("bad_signature", "double_vote", "wrong_signer", "wrong_commit")
    both_refuse = {ours, theirs} == {"EXPIRED", "INVALID"}  # two faults; the first that is met is told
    assert ours == theirs or (ours == "INVALID" and strict) or both_refuse, (recipe, ours, code, theirs)
    return theirs if ours == theirs else "stricter"


def test_recorded_verdicts() -> None:
    cases = json.loads(RECORDED.read_text())["cases"]
    counts = Counter(compare(recipe, theirs) for recipe, theirs in cases)
    assert min(counts[word] for word in ("SUCCESS", "NOT_ENOUGH_TRUST", "EXPIRED", "INVALID")) >= 15, counts
    assert counts["stricter"] <= 10


def text(message: Message) -> str:
    return base64.b64encode(message.encode()).decode()


def ask(program: Path, questions: list[dict[str, Any]]) -> list[str]:
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    return subprocess.run([program], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()


def question(recipe: Recipe) -> dict[str, Any]:
    root, block = build(recipe)
    assert root.light_block is not None
    return {
        "Trusted": text(root.light_block),
        "Validators": text(root.validators),
        "Block": text(block),
        "NowMs": recipe["now_ms"],
        "PeriodMs": BOUNDS.trust_period_ms,
        "DriftMs": BOUNDS.clock_drift_ms,
    }


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracle")
    (folder / "go.mod").write_text(MODULE)
    (folder / "main.go").write_text((HERE / "light_oracle.go").read_text())
    environment = {**os.environ, "GOFLAGS": "-mod=mod"}
    subprocess.run(["go", "build", "-o", "oracle", "."], cwd=folder, env=environment, check=True, capture_output=True)
    return folder / "oracle"


@pytest.mark.long
def test_cometbft_judges_as_recorded_and_fresh_cases_as_we_do(oracle: Path) -> None:
    recorded = json.loads(RECORDED.read_text())["cases"]
    assert ask(oracle, [question(recipe) for recipe, _ in recorded]) == [theirs for _, theirs in recorded]
    seed = int(os.environ.get("FREEHOLD_SEED", "1"))
    random = Random(seed)
    recipes = [make_recipe(random) for _ in range(2_000)]
    answers = ask(oracle, [question(recipe) for recipe in recipes])
    counts = Counter(compare(recipe, theirs) for recipe, theirs in zip(recipes, answers, strict=True))
    print(f"seed {seed}: {dict(counts)}")


@pytest.mark.long
def test_cometbft_takes_our_evidence(oracle: Path) -> None:
    powers = {0: 10, 1: 10, 2: 10, 3: 10}
    true, fork = History([powers]), History([powers], fork=b"fork")
    for history, conflicting in ((fork, true.block(20)), (true, true.block(20, {0, 1, 2}, data_hash=bytes(32)))):
        bisection = Bisection(pinned(true, 1), 20, BOUNDS, now_at(20))
        run(bisection, history)
        check = WitnessCheck(bisection.trace, BOUNDS, now_at(20))
        check.feed(conflicting)
        found = check.answer
        assert isinstance(found, Divergence)
        sides = ((found.against_primary, found.witness), (found.against_witness, found.primary))
        common = text(true.block(1))
        questions = [{"Evidence": text(e), "Common": common, "Other": text(other)} for e, other in sides if e]
        assert ask(oracle, questions) == ["SUCCESS", "SUCCESS"]
