"""What a home that is being restored is told, of the engine's own words; the words are those of CometBFT v0.38.25."""

import pytest

from freehold.consensus.comet.complaints import complaint

REJECTED = '{"level":"info","module":"statesync","format":2,"message":"Snapshot format rejected"}\n'
ACCEPTED = '{"level":"info","module":"statesync","format":1,"message":"Snapshot accepted, restoring"}\n'
RESTORED = '{"level":"info","module":"statesync","format":1,"message":"Snapshot restored"}\n'
FAILED = '{"level":"error","err":"state sync aborted","message":"State sync failed"}\n'
EXPIRED = '{"level":"error","err":"old header has expired at 2026-01-01","message":"State sync failed"}\n'


@pytest.mark.parametrize(
    ("printed", "code"),
    [
        (REJECTED, "snapshot_version"),
        (REJECTED + ACCEPTED, None),  # another peer's is being restored
        (ACCEPTED + REJECTED, "snapshot_version"),  # that one was given up
        (REJECTED + ACCEPTED + RESTORED, None),
        (FAILED, "state_sync_failed"),
        (EXPIRED, "trust_expired"),
        (FAILED + ACCEPTED + RESTORED, None),
        ("panic: failed to reconstruct last extended commit; ..\n", "restore_cut_off"),
        ("panic: state (10) and store (0) height mismatch, stores were left in ..\n", "restore_cut_off"),
        ("", None),
    ],
)
def test_what_is_past_is_not_complained_of(printed: str, code: str | None) -> None:
    told = complaint(printed.encode())
    assert (told and told.code) == code
    assert told is None or told.hint
