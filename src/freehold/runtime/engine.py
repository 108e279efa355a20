"""Which OCI runtime this host runs: crun on pure cgroup v2, runc where cgroups are hybrid or version 1."""

import shutil
from pathlib import Path
from typing import Any, Final

import msgspec

from freehold.base.errors import FreeholdError
from freehold.runtime import cgroups, kernel
from freehold.runtime.seccomp import flatten_profile
from freehold.runtime.spec import CAPABILITIES

SECCOMP_PROFILE: Final = Path("/usr/share/containers/seccomp.json")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """The programs that run containers here.

    Attributes:
        name: `crun` or `runc`.
        path: its program.
        conmon: conmon's program.
        seccomp: the flattened filter of every container.
        why: one sentence for the farmer.
    """

    name: str
    path: str
    conmon: str
    seccomp: dict[str, Any]
    why: str


def detect_engine() -> Engine:
    """Find the programs of this host.

    Raises:
        FreeholdError: one of them is missing (`no_runtime`); the node offers no containers then.
    """
    unified = cgroups.is_unified()
    name = "crun" if unified else "runc"
    why = "pure cgroup v2" if unified else "cgroups are hybrid or version 1, which crun refuses"
    path, conmon = shutil.which(name, path=_PATH), shutil.which("conmon", path=_PATH)
    if path is None or conmon is None or not SECCOMP_PROFILE.exists():
        missing = name if path is None else "conmon" if conmon is None else str(SECCOMP_PROFILE)
        raise FreeholdError(
            f"this host cannot run containers: {missing} is missing",
            code="no_runtime",
            hint=f"apt-get install {name} conmon golang-github-containers-common",
        )
    seccomp = flatten_profile(SECCOMP_PROFILE.read_bytes(), frozenset(CAPABILITIES), kernel.machine())
    return Engine(name=name, path=path, conmon=conmon, seccomp=seccomp, why=f"{name}: {why}")
