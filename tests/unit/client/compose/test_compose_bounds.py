"""Hostile files: every bound holds, and holds quickly."""

import time

import pytest
import yaml

from freehold.base.limits import MAX_COMPOSE_BYTES
from freehold.client.compose import loading
from freehold.client.compose.checking import check_compose


def bomb(levels: int, width: int) -> str:
    lines = ["x-0: &a0 [" + ", ".join(["lol"] * width) + "]"]
    lines += [f"x-{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * width) + "]" for n in range(1, levels)]
    return "\n".join(lines)


def merge_chain(length: int) -> str:
    """Merges whose sources nothing has expanded before, because their values are overridden."""
    chain = ", ".join(["&b0 {k: 1}", *(f"&b{n} {{<<: *b{n - 1}}}" for n in range(1, length))])
    return f"x-a: {{<<: {{c: [{chain}]}}, c: 1}}\nx-b: *b{length - 1}\n"


HOSTILE = {
    "alias bomb": (bomb(12, 10), "too_many_values"),
    "quadratic aliases": (
        "x-a: &a [" + "a, " * 4_000 + "]\nx-b: [" + "*a, " * 4_000 + "]\n",
        "too_many_values",
    ),
    "many values": ("x-a: [" + "a, " * 60_000 + "]\n", "too_many_values"),
    "long text often": ("x-a: &a " + "a" * 100_000 + "\nx-b: [" + "*a, " * 1_000 + "]\n", "oversized"),
    "deep flow": ("x-a: " + "[" * 900, "too_deep"),
    "deeper flow": ("x-a: " + "[" * 100_000, "bad_yaml"),  # libyaml's own bound is met first
    "deep block": ("".join(" " * n + "a:\n" for n in range(600)), "too_deep"),
    "deep aliases": (
        "x-0: &a0 {k: 1}\n" + "".join(f"x-{n}: &a{n} {{k: *a{n - 1}}}\n" for n in range(1, 2_000)),
        "too_deep",
    ),
    "merge chain": (merge_chain(3_000), "too_deep"),
    "wide merges": (
        "x-a: &a {" + "".join(f"k{n}: 1, " for n in range(2_000)) + "}\nx-b: [" + "{<<: *a}, " * 2_000 + "]\n",
        "too_many_values",
    ),
    "too long": ("#" * (MAX_COMPOSE_BYTES + 1), "oversized"),
    "huge number": ("services: {a: {image: a, cpus: " + "9" * 100_000 + "}}", "bad_value"),
    "huge duration": (
        "services: {a: {image: a, stop_grace_period: " + "9" * 1_000 + "s}}",
        "bad_duration",
    ),
    "variables": ("services: {a: {image: a, command: '" + "$A" * 50_000 + "'}}", "oversized"),
    "nested variables": ("services: {a: {image: a, command: '" + "${A:-" * 20_000 + "'}}", "bad_interpolation"),
    "open variables": ("services: {a: {image: a, command: '" + "${A" * 20_000 + "'}}", "bad_interpolation"),
    "many services": (
        "services: {" + "".join(f"a{n}: {{image: a}}, " for n in range(5_000)) + "}",
        "too_many",
    ),
    "many unknown keys": (
        "services: {a: {image: a, " + "".join(f"enviro{n}: 1, " for n in range(9_000)) + "}}",
        "too_many_problems",
    ),
    "many extensions": (
        "services: {a: {image: A}}\n" + "".join(f"x-freehol{n}: 1\n" for n in range(9_000)),
        "bad_image",
    ),
    "many ports": ("services: {a: {image: a, ports: [" + "80, " * 9_000 + "]}}", "too_many"),
    "long quotes": ("services: {a: {image: a, command: " + "\"'" * 1 + "a" * 200_000 + '"}}', "bad_value"),
    "long image": ("services: {a: {image: " + "a-" * 100_000 + "}}", "bad_value"),
    "long label": ("services: {a: {image: a, labels: [" + "a" * 200_000 + "]}}", "bad_value"),
    "anchors": ("x-a: [" + "".join(f"&a{n} 1, " for n in range(15_000)) + "]\nservices: {}\n", "no_services"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_quickly(name: str) -> None:
    text, code = HOSTILE[name]
    begun = time.process_time()
    result = check_compose(text, environment={"A": "x" * 10_000})
    assert time.process_time() - begun < 3
    assert not result.ok
    assert len(result.problems) <= 152
    assert code in {problem.code for problem in result.problems}


@pytest.mark.parametrize("name", ["alias bomb", "merge chain", "deep block", "deep aliases", "wide merges"])
def test_bounds_hold_without_libyaml_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_Loader", yaml.SafeLoader)
    text, code = HOSTILE[name]
    begun = time.process_time()
    result = check_compose(text, environment={"A": "x" * 10_000})
    assert time.process_time() - begun < 6
    assert code in {problem.code for problem in result.problems}


@pytest.mark.parametrize(
    "data", [b"\xd8\x00", b"services: {a: {image: a, secrets: [s]}}\nsecrets: {s: {environment: A}}"]
)
def test_no_encoding_trouble_raises(data: bytes) -> None:
    assert not check_compose(data, environment={"A": "\ud800"}).ok


def test_a_megabyte_of_environment_does_not_enter_a_spec() -> None:
    text = "services: {a: {image: a, environment: {B: $A}}}"
    (problem,) = check_compose(text, environment={"A": "x" * 100_000}).problems
    assert problem.code == "oversized"


def test_half_a_surrogate_pair_in_the_environment_is_refused() -> None:
    (problem,) = check_compose("services: {a: {image: a, command: $A}}", environment={"A": "\udcff"}).problems
    assert problem.code == "bad_characters"
    (problem,) = check_compose("services: {a: {image: a, environment: [A]}}", environment={"A": "\udcff"}).problems
    assert problem.code == "bad_characters"
    (problem,) = check_compose("services: {a: {image: \udcff}}").problems
    assert problem.code == "bad_encoding"
