"""Durations, sizes, CPU counts, scalars, image names and preferences at their edges."""

import pytest

from freehold.base.errors import InvalidInputError
from freehold.client.compose.preferences import parse_preferences
from freehold.client.compose.quantities import parse_duration_ms, parse_milli_cpus, parse_size_bytes, round_up_mib
from freehold.client.compose.references import parse_image_reference
from freehold.client.compose.scalars import format_scalar, resolve_plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("10s", 10_000),
        ("1m30s", 90_000),
        ("2h32m", 9_120_000),
        ("1.5s", 1_500),
        ("400ms", 400),
        ("1us", 1),
        ("1500us", 2),
        ("10", None),
        ("", None),
        ("s", None),
        ("-1s", None),
        ("1 s", None),
        ("1d", None),
        ("1s\n", None),
        ("1.s", None),
        ("٣s", None),
    ],
)
def test_durations(text: str, expected: int | None) -> None:
    assert parse_duration_ms(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2b", 2),
        ("1024kb", 1 << 20),
        ("2048k", 2 << 20),
        ("300m", 300 << 20),
        ("1gb", 1 << 30),
        ("1.5g", 3 << 29),
        ("2GiB", 2 << 30),
        ("1 MB", 1 << 20),
        ("0.1b", 1),
        ("7", 7),
        (7, 7),
        (-1, None),
        ("-1m", None),
        ("m", None),
        ("1x", None),
        ("1 kib b", None),
        ("1m\n", None),
        ("1i", None),
    ],
)
def test_sizes(value: str | int, expected: int | None) -> None:
    assert parse_size_bytes(value) == expected


def test_mib_are_rounded_up() -> None:
    assert [round_up_mib(size) for size in (0, 1, 1 << 20, (1 << 20) + 1)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0.5", 500), (0.25, 250), (2, 2_000), ("0.0001", 1), (1e-5, 1), (".5", 500), ("1.", 1_000), ("1e3", None),
     ("-1", None), ("", None)],
)  # fmt: skip
def test_cpus(value: str | float, expected: int | None) -> None:
    assert parse_milli_cpus(value) == expected


@pytest.mark.parametrize("text", [
    "postgres", "postgres:16", "a/b/c", "localhost/a", "localhost:5000/a:b", "ghcr.io/o/a-b_c.d:1.0_x",
    "a@sha256:" + "0" * 64, "a:1@sha256:" + "f" * 64, "[::1]:5000/a", "Reg.io/a",
])  # fmt: skip
def test_image_names(text: str) -> None:
    reference = parse_image_reference(text)
    assert reference is not None
    assert str(reference) == text


@pytest.mark.parametrize("text", [
    "", "A", "a:", "a@", "a@sha256:00", "a@md5:" + "0" * 64, "/a", "a/", "a//b", "a b", "a:b:c", "-a", "a:.x",
    "http://a/b", "a@sha256:" + "G" * 64, "a" * 600, "a\n", "a:1\n", "../a", "a/../b",
])  # fmt: skip
def test_bad_image_names(text: str) -> None:
    assert parse_image_reference(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None), ("~", None), ("null", None), ("true", True), ("FALSE", False), ("tRue", "tRue"), ("7", 7),
        ("-7", -7), ("+7", 7), ("0b11", 3), ("0o7", 7), ("08", 8.0), ("0x", "0x"), ("0x_", "0x_"), ("1.5", 1.5),
        (".5", 0.5), (".", "."), ("1e400", "1e400"), ("9223372036854775807", 2**63 - 1), (".inf", ".inf"),
        ("9223372036854775808", 2**63), ("18446744073709551616", 2.0**64), ("-0", -0.0), ("1_0.5", 10.5),
        (".nan", ".nan"), ("12:30:45", "12:30:45"),
        ("1,000", "1,000"), ("=", "="), ("<<", "<<"), ("٣", "٣"), ("7\n", "7\n"),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, expected: object) -> None:
    value = resolve_plain(text)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.0, "1"), (1.5, "1.5"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (0.0001, "0.0001"), (0.00001, "1e-05"),
     (True, "true"), (None, ""), ("x", "x"), (-2.5, "-2.5"), (1.25e-7, "1.25e-07")],
)  # fmt: skip
def test_scalars_are_written_as_go_writes_them(value: str | float | None, expected: str) -> None:
    assert format_scalar(value) == expected


def test_preferences() -> None:
    assert parse_preferences("country=be, farm=alpha,country=!us") == (
        ("country", "BE"),
        ("farm", "alpha"),
        ("country", "!US"),
    )
    for text in ("country=bel", "farm=", "planet=x", "country", "farm=A B", ",".join(f"farm=f{n}" for n in range(17))):
        with pytest.raises(InvalidInputError):
            parse_preferences(text)
