"""A validator never contradicts what it signed."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.base.errors import LocalProtocolError
from freehold.consensus.errors import StorageDamagedError, StorageFullError
from freehold.consensus.signing import FORMAT, Decision, LastSigned, SignerState, decide


def vote(height: int, block: bytes = b"a", time_ms: int = 1, round_: int = 0) -> LastSigned:
    return LastSigned(FORMAT, height, round_, block, time_ms, b"%d %d %s %d" % (height, round_, block, time_ms))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.sampled_from([b"a", b"b"]), st.integers(1, 2))))
def test_no_series_of_wishes_signs_two_votes_at_one_place(wishes: list[tuple[int, int, bytes, int]]) -> None:
    last: LastSigned | None = None
    signed: dict[tuple[int, int], LastSigned] = {}
    for height, round_, block, time_ms in wishes:
        wish = vote(height, block, time_ms, round_)
        try:
            if decide(last, wish) is Decision.SIGN:
                last = wish
        except LocalProtocolError as error:
            assert error.code == "would_equivocate"
            continue
        assert signed.setdefault((height, round_), wish) == wish


def test_the_record_is_read_back_and_a_vote_repeated(tmp_path: Path) -> None:
    path = tmp_path / "last_signed"
    state = SignerState(path)
    assert state.last is None
    assert state.record(vote(1)) is Decision.SIGN
    again = SignerState(path)
    assert again.last == vote(1)
    before = path.stat().st_ino
    assert again.record(vote(1)) is Decision.REPEAT
    assert path.stat().st_ino == before
    for other in (vote(1, b"b"), vote(1, b"a", 2), vote(0)):
        with pytest.raises(LocalProtocolError):
            again.record(other)


def test_any_damaged_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last_signed"
    SignerState(path).record(vote(7))
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(StorageDamagedError):
            SignerState(path)
        path.write_bytes(whole[:at] if at else b"x")
        with pytest.raises(StorageDamagedError):
            SignerState(path)


def test_what_cannot_be_recorded_is_not_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = SignerState(tmp_path / "last_signed")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageFullError):
        state.record(vote(1))
    assert state.last is None


def test_golden_record(tmp_path: Path) -> None:
    SignerState(tmp_path / "f").record(vote(1))
    assert (tmp_path / "f").read_bytes()[32:].hex() == "96010100c4016101c40731203020612031"
    assert msgspec.msgpack.decode((tmp_path / "f").read_bytes()[32:]) == [1, 1, 0, b"a", 1, b"1 0 a 1"]
