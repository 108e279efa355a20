"""Exit reasons, state files, id ranges, users, mount table."""

import os
from pathlib import Path

import pytest

from freehold.base.errors import FreeholdError, InvalidInputError
from freehold.runtime import kernel, mounts
from freehold.runtime.atomic import MAX_STATE_BYTES, load_json, save_json
from freehold.runtime.conmon import is_alive, send_signal, start_time
from freehold.runtime.idranges import REGION, TENANTS, IdRanges
from freehold.runtime.records import ExitReason, Record, explain_exit
from freehold.runtime.users import resolve_user


@pytest.mark.parametrize(
    ("code", "stop", "fenced", "kills", "reason", "number"),
    [
        (0, False, False, 0, ExitReason.EXITED, 0),
        (7, False, False, 0, ExitReason.EXITED, 0),
        (139, False, False, 0, ExitReason.SIGNALED, 11),
        (137, False, False, 1, ExitReason.OOM, 9),
        (1, False, False, 2, ExitReason.OOM, 0),
        (0, False, False, 2, ExitReason.EXITED, 0),
        (137, True, False, 0, ExitReason.STOPPED, 9),
        (143, True, False, 1, ExitReason.STOPPED, 15),
        (137, True, True, 1, ExitReason.FENCED, 9),
        (255, False, False, 0, ExitReason.EXITED, 0),
    ],
)
def test_exit_reasons(code: int, stop: bool, fenced: bool, kills: int, reason: ExitReason, number: int) -> None:
    told = explain_exit(code, stop_asked=stop, fenced=fenced, oom_kills=kills, at_ms=5)
    assert (told.reason, told.signal, told.code, told.boottime_ms) == (reason, number, code, 5)


def test_state_files(tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert load_json(path, Record) is None
    for damaged in (b'{"a": 1}', b"", b"\xff{", b" " * (MAX_STATE_BYTES + 1)):
        path.write_bytes(damaged)
        assert load_json(path, Record) is None
        assert not path.exists() and (tmp_path / "state.damaged").exists()
    save_json(path, {"a": 1})
    assert load_json(path, dict) == {"a": 1}
    (tmp_path / "state.damaged").unlink()
    with pytest.raises(FreeholdError, match="cannot write"):
        save_json(tmp_path / "no/such/folder", {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_id_ranges_are_kept_apart(tmp_path: Path) -> None:
    homes = [tmp_path / name for name in ("a", "b")]
    for home in homes:
        home.mkdir()
    first, second = (IdRanges(home, tmp_path / "claims") for home in homes)
    bases = [ranges.base(tenant) for ranges in (first, second) for tenant in ("x", "y")]
    assert len(set(bases)) == 4 and all(base >= REGION and base % 65_536 == 0 for base in bases)
    assert bases[0] // REGION == bases[1] // REGION != bases[2] // REGION
    again = IdRanges(homes[0], tmp_path / "claims")
    assert [again.base("x"), again.base("y")] == bases[:2]
    for number in range(TENANTS - 2):
        again.base(f"t{number}")
    with pytest.raises(FreeholdError, match="256 tenants"):
        again.base("one-more")
    again.release({"y"})
    assert again.base("y") == bases[1]
    again.clear()
    assert IdRanges(homes[0], tmp_path / "claims").base("z") // REGION != bases[2] // REGION


def test_a_claim_of_a_node_that_is_gone_is_free(tmp_path: Path) -> None:
    claims = tmp_path / "claims"
    claims.mkdir()
    for region in range(1, 256):
        (claims / str(region)).write_text("/no/such/home")
    (claims / "9").write_text(str(tmp_path))
    home = tmp_path / "home"
    home.mkdir()
    assert IdRanges(home, claims).base("x") // REGION != 9


def test_users_are_read_within_the_image(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to("/real-passwd")  # absolute in the image, not on the host
    (tmp_path / "real-passwd").write_text("app:x:7:8::/app:/bin/sh\nbad line\n")
    os.mkfifo(tmp_path / "etc/group")
    identity = resolve_user(tmp_path, "app")
    assert (identity.uid, identity.gid, identity.home) == (7, 8, "/app")
    assert resolve_user(tmp_path, "").uid == 0
    (tmp_path / "etc/passwd").unlink()
    (tmp_path / "etc/passwd").symlink_to("../../../../../../../etc/passwd")
    with pytest.raises(InvalidInputError):
        resolve_user(tmp_path, "daemon")
    with pytest.raises(InvalidInputError):
        resolve_user(tmp_path, "70000")


def test_processes_are_told_apart_by_their_start() -> None:
    pid = os.getpid()
    assert is_alive(pid, start_time(pid)) and not is_alive(pid, start_time(pid) + 1)
    assert not is_alive(0, 0) and start_time(1 << 22) == 0
    assert not send_signal(pid, start_time(pid) + 1, 9)
    assert not send_signal(0, 0, 9)


def test_work_in_a_namespace_hands_back_values_and_errors(tmp_path: Path) -> None:
    path = Path("/proc/self/ns/net")
    assert kernel.in_network_namespace(path, lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        kernel.in_network_namespace(path, lambda: 1 // 0)
    with pytest.raises(FileNotFoundError):
        kernel.in_network_namespace(tmp_path / "none", lambda: 5)


def test_mount_table() -> None:
    assert mounts.is_mounted(Path("/proc"))
    assert mounts.mounted_under(Path("/no/such")) == []
    assert mounts._unescape(rb"/a\040b\134c") == b"/a b\\c"
