"""The seccomp filter: flattened by capability and machine, tightened, refusing by default."""

import json
from typing import Any

import pytest

from freehold.base.errors import InvalidInputError
from freehold.runtime.engine import SECCOMP_PROFILE
from freehold.runtime.seccomp import ENOSYS, REFUSED, flatten_profile
from freehold.runtime.spec import CAPABILITIES

CAPS = frozenset(CAPABILITIES)


def profile(*rules: dict[str, Any], default: str = "SCMP_ACT_ERRNO") -> bytes:
    return json.dumps({"defaultAction": default, "defaultErrnoRet": 38, "syscalls": list(rules)}).encode()


def rule(*names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}} | more


def allowed(made: dict[str, Any]) -> set[str]:
    return {name for entry in made["syscalls"] if entry["action"] == "SCMP_ACT_ALLOW" for name in entry["names"]}


def test_rules_follow_capabilities_and_machine() -> None:
    source = profile(
        rule("read"),
        rule("chown", includes={"caps": ["CAP_CHOWN"]}),
        rule("bogus1", includes={"caps": ["CAP_SYS_ADMIN"]}),
        rule("bogus2", excludes={"caps": ["CAP_CHOWN"]}),
        rule("arch_prctl", includes={"arches": ["amd64"]}),
        rule("bogus3", includes={"arches": ["s390x"]}),
    )
    assert allowed(flatten_profile(source, CAPS, "amd64")) == {"read", "chown", "arch_prctl", "clone", "socket"}
    assert "arch_prctl" not in allowed(flatten_profile(source, CAPS, "arm64"))


def test_refused_calls_cannot_be_allowed_by_the_profile() -> None:
    made = flatten_profile(profile(rule("read", *sorted(REFUSED), "clone", "socket")), CAPS, "amd64")
    assert allowed(made) == {"read", "clone", "socket"}
    for entry in made["syscalls"]:
        if entry["action"] == "SCMP_ACT_ALLOW" and set(entry["names"]) & {"clone", "socket"}:
            assert entry["args"], "only with a condition on its arguments"


def test_clone3_is_told_as_missing_so_that_libc_falls_back() -> None:
    made = flatten_profile(profile(rule("read")), CAPS, "amd64")
    entry = next(entry for entry in made["syscalls"] if entry["names"] == ["clone3"])
    assert entry["errnoRet"] == ENOSYS


def test_only_the_native_architecture() -> None:
    assert flatten_profile(profile(rule("read")), CAPS, "amd64")["architectures"] == ["SCMP_ARCH_X86_64"]
    with pytest.raises(InvalidInputError, match="no seccomp profile"):
        flatten_profile(profile(rule("read")), CAPS, "riscv64")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"[]",
        b"{}",
        b'{"syscalls": 1}',
        b"{" * 5000,
        profile(rule("read"), default="SCMP_ACT_ALLOW"),
        profile(),
        b" " * ((1 << 20) + 1),
        b'{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": 7, "action": "x"}]}',
    ],
)
def test_damaged_profiles_are_refused(bad: bytes) -> None:
    with pytest.raises(InvalidInputError):
        flatten_profile(bad, CAPS, "amd64")


def test_the_profile_of_this_host() -> None:
    made = flatten_profile(SECCOMP_PROFILE.read_bytes(), CAPS, "amd64")
    names = allowed(made)
    assert {"read", "write", "execve", "futex", "epoll_wait", "connect", "ptrace"} <= names
    assert names.isdisjoint(REFUSED)
    assert names.isdisjoint({"reboot", "iopl", "ioperm", "settimeofday", "acct", "chroot", "init_module"})
