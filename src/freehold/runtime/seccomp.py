"""The seccomp filter of every container: the field's profile, flattened and tightened (pure).

Debian's /usr/share/containers/seccomp.json states rules per capability and architecture; OCI wants plain rules. On
top of it: what only a user-namespace sandbox inside the container would need (mount calls, namespaces, keyrings,
bpf, io_uring) is refused, because the kernel's bugs live there; sockets are limited to unix, IPv4, IPv6 and netlink
(AF_VSOCK would reach a hypervisor past every network namespace); the filter knows the native 64-bit architecture
alone, as `socketcall` and other 32-bit calls hide their arguments from it.
"""

from typing import Any, Final

import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import InvalidInputError

MAX_PROFILE_BYTES: Final = 1 << 20
EPERM: Final = 1
ENOSYS: Final = 38

_NATIVE: Final = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}
_NEW_NAMESPACES: Final = 0x7E020080  # CLONE_NEW* of clone(2): cgroup, uts, ipc, user, pid, net, mount, time
_FAMILIES: Final = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK

REFUSED: Final = frozenset(
    {
        "add_key",
        "bpf",
        "clone3",
        "delete_module",
        "fanotify_mark",
        "modify_ldt",
        "reboot",
        "fanotify_init",
        "finit_module",
        "fsconfig",
        "fsmount",
        "fsopen",
        "fspick",
        "init_module",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "kcmp",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "lookup_dcookie",
        "mount",
        "mount_setattr",
        "move_mount",
        "name_to_handle_at",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "pivot_root",
        "process_madvise",
        "quotactl",
        "quotactl_fd",
        "request_key",
        "setdomainname",
        "sethostname",
        "setns",
        "socketcall",
        "swapoff",
        "swapon",
        "syslog",
        "umount",
        "umount2",
        "unshare",
        "userfaultfd",
        "vm86",
        "vm86old",
    }
)
_REWRITTEN: Final = frozenset({"clone", "socket"})


def flatten_profile(profile: bytes, capabilities: frozenset[str], machine: str) -> dict[str, Any]:
    """Turn a profile of the containers project into the `seccomp` object of an OCI runtime configuration.

    Args:
        profile: the JSON file, at most 1 MiB.
        capabilities: what the container holds, such as `CAP_CHOWN`; chooses the rules.
        machine: `amd64` or `arm64`.

    Raises:
        InvalidInputError: not such a profile, or a machine that is not supported.
    """
    if machine not in _NATIVE:
        raise InvalidInputError(f"no seccomp profile for {machine}", code="unsupported_machine")
    if len(profile) > MAX_PROFILE_BYTES:
        raise InvalidInputError("the seccomp profile is too large", code="bad_seccomp")
    try:
        source = decode_json(profile, dict[str, Any])
        rules = [
            _rule(entry, names)
            for entry in source["syscalls"]
            if _applies(entry, capabilities, machine)
            and (names := [name for name in entry["names"] if name not in REFUSED | _REWRITTEN])
        ]
        default, default_errno = source["defaultAction"], source.get("defaultErrnoRet", EPERM)
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"not a seccomp profile: {error!r}", code="bad_seccomp") from None
    if default != "SCMP_ACT_ERRNO" or not rules:
        raise InvalidInputError("a seccomp profile must refuse by default", code="bad_seccomp")
    return {
        "defaultAction": default,
        "defaultErrnoRet": default_errno,
        "architectures": [_NATIVE[machine]],
        "syscalls": rules + _own_rules(),
    }


def _applies(entry: dict[str, Any], capabilities: frozenset[str], machine: str) -> bool:
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    wanted, barred = includes.get("caps") or [], excludes.get("caps") or []
    machines, other = includes.get("arches") or [], excludes.get("arches") or []
    return (
        all(name in capabilities for name in wanted)
        and not any(name in capabilities for name in barred)
        and (not machines or machine in machines)
        and machine not in other
    )


def _rule(entry: dict[str, Any], names: list[str]) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": entry["action"]}
    if entry.get("errnoRet") is not None:
        rule["errnoRet"] = entry["errnoRet"]
    if entry.get("args"):
        rule["args"] = [{key: arg[key] for key in ("index", "value", "valueTwo", "op")} for arg in entry["args"]]
    return rule


def _own_rules() -> list[dict[str, Any]]:
    def allow(name: str, index: int, value: int, second: int, op: str) -> dict[str, Any]:
        arg = {"index": index, "value": value, "valueTwo": second, "op": op}
        return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [arg]}

    plain = sorted(REFUSED - {"clone3"})
    return [
        # clone3 hides its flags behind a pointer: "no such call" makes every libc fall back to clone.
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
        {"names": plain, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM},
        allow("clone", 0, _NEW_NAMESPACES, 0, "SCMP_CMP_MASKED_EQ"),
        *(allow("socket", 0, family, 0, "SCMP_CMP_EQ") for family in _FAMILIES),
    ]
