"""Logs: partial lines, rotation as conmon does it, following, bounds."""

import asyncio
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from freehold.runtime.logs import MAX_LINE_BYTES, LineJoiner, LogLine, follow_log, keep_previous, read_log

STAMP = "2026-01-01T00:00:00.000000000+00:00"


def raw(text: bytes, stream: str = "stdout", tag: str = "F") -> bytes:
    return f"{STAMP} {stream} {tag} ".encode() + text


def write(log: Path, *texts: str) -> None:
    with log.open("ab") as file:
        for text in texts:
            file.write(raw(text.encode()) + b"\n")


def rotate(log: Path) -> None:
    """What conmon 2.1.6 does at its size: a new file renamed over the old one."""
    partial = log.with_name("log.tmp")
    partial.touch()
    partial.rename(log)


def texts(lines: list[LogLine]) -> list[str]:
    return [line.text.decode() for line in lines]


def test_partial_lines_are_joined_per_stream() -> None:
    joiner = LineJoiner()
    fed = [raw(b"a", tag="P"), raw(b"x", "stderr", "P"), raw(b"b"), raw(b"y", "stderr"), raw(b"open", tag="P")]
    lines = [line for piece in fed for line in joiner.feed(piece)]
    assert [(line.stream, line.text) for line in lines] == [("stdout", b"ab"), ("stderr", b"xy")]
    assert [line.text for line in joiner.flush()] == [b"open"]


def test_endless_lines_come_in_bounded_pieces() -> None:
    joiner = LineJoiner()
    lines = [line for _ in range(20) for line in joiner.feed(raw(b"z" * 8_192, tag="P"))]
    lines += list(joiner.feed(raw(b"end")))
    assert all(len(line.text) <= MAX_LINE_BYTES for line in lines)
    assert b"".join(line.text for line in lines) == b"z" * 8_192 * 20 + b"end"
    assert [line.more for line in lines] == [True] * (len(lines) - 1) + [False]


@given(st.binary(max_size=300))
def test_damaged_lines_are_left_out(data: bytes) -> None:
    list(LineJoiner().feed(data))


def test_tail_and_order_over_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write(log, "1", "2")
    keep_previous(log)
    rotate(log)
    write(log, "3")
    assert texts(read_log(log)) == ["1", "2", "3"]
    assert texts(read_log(log, tail=2)) == ["2", "3"]
    assert read_log(log, tail=0) == []
    rotate(log)
    write(log, "4")
    assert texts(read_log(log)) == ["3", "4"]


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    keep_previous(tmp_path / "log")
    assert read_log(tmp_path / "log") == []


def test_at_most_three_files(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write(log, "0")
    for number in range(1, 6):
        keep_previous(log)
        rotate(log)
        write(log, str(number))
    keep_previous(log)
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.cur"]  # noqa: PTH208
    assert texts(read_log(log)) == ["4", "5"]


def test_follow_reads_on_over_rotations_to_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write(log, "old", "newer")

    async def body() -> list[str]:
        ended, seen = asyncio.Event(), []
        async for line in follow_log(log, tail=1, ended=ended):
            seen.append(line.text.decode())
            if seen[-1] == "newer":
                write(log, "a")
            elif seen[-1] == "a":
                write(log, "last of this file")
                rotate(log)
                write(log, "b")
            elif seen[-1] == "b":
                write(log, "c")
                ended.set()
        return seen

    assert asyncio.run(body()) == ["newer", "a", "last of this file", "b", "c"]


def test_follow_ends_without_a_log(tmp_path: Path) -> None:
    async def body() -> list[LogLine]:
        ended = asyncio.Event()
        ended.set()
        return [line async for line in follow_log(tmp_path / "log", ended=ended)]

    assert asyncio.run(body()) == []


def test_a_line_still_being_written_is_not_cut(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.write(raw(b"whole") + b"\n" + raw(b"half"))
    assert texts(read_log(log)) == ["whole"]
