"""Variables as the compose specification says, with nesting and bounds."""

import pytest

from freehold.client.compose.interpolation import InterpolationError, interpolate

VARIABLES = {"A": "a", "EMPTY": "", "DOLLAR": "$A"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$A-${A}", "a-a"),
        ("$$A", "$A"),
        ("$$$A", "$a"),
        ("${A:-x}", "a"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${NO:-x}", "x"),
        ("${NO-x}", "x"),
        ("${NO:-}", ""),
        ("${A:+x}", "x"),
        ("${EMPTY:+x}", ""),
        ("${EMPTY+x}", "x"),
        ("${NO+x}", ""),
        ("${A:?gone}", "a"),
        ("${EMPTY?gone}", ""),
        ("${NO:-${EMPTY:-${A}}}", "a"),
        ("${NO:-a b $A}", "a b a"),
        ("${NO:-x:-y}", "x:-y"),
        ("${A:-${NO:?not reached}}", "a"),
        ("${DOLLAR}", "$A"),
        ("}${A}}", "}a}"),
        ("${NO:-$$}", "$"),
        ("$", "$"),
        ("a $ b $1 $-", "a $ b $1 $-"),
    ],
)
def test_forms(text: str, expected: str) -> None:
    assert interpolate(text, VARIABLES) == (expected, ())


def test_unset_names_are_told_once_in_order() -> None:
    assert interpolate("$X ${Y} $X ${A:-$Z}", VARIABLES) == ("   a", ("X", "Y"))


@pytest.mark.parametrize("text", ["${}", "${A", "${A!x}", "${A:-x", "${1}", "${A:=x}"])
def test_malformed(text: str) -> None:
    with pytest.raises(InterpolationError) as caught:
        interpolate(text, VARIABLES)
    assert caught.value.code == "bad_interpolation"


@pytest.mark.parametrize("text", ["${NO:?give it}", "${NO?give it}", "${EMPTY:?give it}", "${NO:?}"])
def test_required(text: str) -> None:
    with pytest.raises(InterpolationError) as caught:
        interpolate(text, VARIABLES)
    assert caught.value.code == "variable_required"


def test_depth_and_length_are_bounded() -> None:
    with pytest.raises(InterpolationError):
        interpolate("${A:-" * 9 + "}" * 9, {})
    with pytest.raises(InterpolationError) as caught:
        interpolate("$A" * 600, {"A": "x" * 1_000})
    assert caught.value.code == "oversized"
