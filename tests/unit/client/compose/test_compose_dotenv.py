"""Environment files as Compose reads them."""

import pytest

from freehold.client.compose.dotenv import DotenvError, parse_dotenv


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# only\n\n  # comments", {}),
        ("A=1\nB=2", {"A": "1", "B": "2"}),
        ("export A=1", {"A": "1"}),
        ("A = 1 ", {"A": "1"}),
        ("A: 1", {"A": "1"}),
        ("A=", {"A": ""}),
        ("A", {"A": None}),
        ("A=a # comment", {"A": "a"}),
        ("A=a#b", {"A": "a#b"}),
        ("A=  ", {"A": ""}),
        ("A= # kept", {"A": "# kept"}),
        ("A=a\t#b", {"A": "a\t#b"}),
        ("A='a # b' # c", {"A": "a # b"}),
        ('A="a # b"', {"A": "a # b"}),
        ("A='$X\\n'", {"A": "$X\\n"}),
        ('A="$X\\n\\t\\"\\\\"', {"A": 'x\n\t"\\'}),
        ('A="\\$X"', {"A": "$X"}),
        ('A="one\ntwo"\nB=3', {"A": "one\ntwo", "B": "3"}),
        ("A=1\nB=$A-${X}", {"A": "1", "B": "1-x"}),
        ("X=mine\nB=$X", {"X": "mine", "B": "x"}),
        ("A=${NO:-d}", {"A": "d"}),
        ("A=b=c", {"A": "b=c"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=1\nA=2", {"A": "2"}),
        ("A=it's", {"A": "it's"}),
        ('A="$RAW"', {"A": "\\n"}),
    ],
)
def test_forms(text: str, expected: dict[str, str | None]) -> None:
    assert parse_dotenv(text, {"X": "x", "RAW": "\\n"}) == expected


def test_raw_takes_values_as_they_stand() -> None:
    assert parse_dotenv("A='$X' # c\nB=\"2\"", {"X": "x"}, raw=True) == {"A": "'$X' # c", "B": '"2"'}


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("A=1\n=2", "bad_env_file", 2),
        ("A B=1", "bad_env_file", 1),
        ("\n\nA='open\nB=2", "bad_env_file", 3),
        ("A='a' b", "bad_env_file", 1),
        ("A=1\nB=${", "bad_interpolation", 2),
        ("A=${X:?gone}", "variable_required", 1),
        ("A=" + "x" * 70_000, "oversized", 0),
        ("".join(f"A{n}=\n" for n in range(1_001)), "oversized", 1_001),
    ],
)
def test_bad_files_are_told_by_line(text: str, code: str, line: int) -> None:
    with pytest.raises(DotenvError) as caught:
        parse_dotenv(text, {})
    assert (caught.value.code, caught.value.line) == (code, line)
