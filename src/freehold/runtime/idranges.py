"""Which host ids stand for a tenant's: 65,536 for each, never shared, kept over restarts.

The ids from 2^24 to 2^32 are cut into 255 regions of 2^24. A node claims one region, so agents of one host never
share an id, and gives each tenant a range in it; a node therefore holds at most 256 tenants at a time, as many as it
may hold leases. A claim is a file in the host's claims folder, made with `O_EXCL`, that names the node's home.
"""

import contextlib
import hashlib
import os
import threading
from pathlib import Path
from typing import Final

import msgspec

from freehold.base.errors import FreeholdError
from freehold.runtime import kernel
from freehold.runtime.atomic import load_json, save_json
from freehold.runtime.spec import IDS_PER_TENANT

REGION: Final = 1 << 24
REGIONS: Final = 255
TENANTS: Final = REGION // IDS_PER_TENANT


class IdState(msgspec.Struct, kw_only=True):
    """The node's region and the index of each tenant in it."""

    version: int = 1
    region: int = 0
    tenants: dict[str, int] = {}


class IdRanges:
    """The id ranges of one node.

    Args:
        home: the runtime's folder; holds `ids.json`.
        claims: the host's folder of claims, shared by all nodes of the host.
    """

    def __init__(self, home: Path, claims: Path) -> None:
        self._file = home / "ids.json"
        self._home = str(home)
        self._claims = claims
        self._lock = threading.Lock()
        self._userns: dict[int, int] = {}
        self._state = load_json(self._file, IdState) or IdState()
        claims.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._state.region == 0 or not self._claim(self._state.region):
            self._state.region = self._find_region()
            save_json(self._file, self._state)

    def base(self, tenant: str) -> int:
        """First host id of a tenant's range; chosen when the tenant is new.

        Raises:
            FreeholdError: the node holds 256 tenants already (`no_id_range`).
        """
        with self._lock:
            tenants = self._state.tenants
            if tenant not in tenants:
                used = set(tenants.values())
                index = next((number for number in range(TENANTS) if number not in used), None)
                if index is None:
                    raise FreeholdError(f"the node holds {TENANTS} tenants already", code="no_id_range")
                tenants[tenant] = index
                save_json(self._file, self._state)
            return self._state.region * REGION + tenants[tenant] * IDS_PER_TENANT

    def userns(self, base: int) -> int:
        """A user namespace that maps a range, kept open for this process; for idmapped mounts."""
        with self._lock:
            if base not in self._userns:
                self._userns[base] = kernel.user_namespace(base, IDS_PER_TENANT)
            return self._userns[base]

    def release(self, tenants_in_use: set[str]) -> None:
        """Forget tenants that have nothing here any more."""
        with self._lock:
            gone = [tenant for tenant in self._state.tenants if tenant not in tenants_in_use]
            for tenant in gone:
                index = self._state.tenants.pop(tenant)
                fd = self._userns.pop(self._state.region * REGION + index * IDS_PER_TENANT, None)
                if fd is not None:
                    os.close(fd)
            if gone:
                save_json(self._file, self._state)

    def clear(self) -> None:
        """Give the region back."""
        self.release(set())
        with contextlib.suppress(FileNotFoundError):
            claim = self._claims / str(self._state.region)
            if claim.read_text() == self._home:
                claim.unlink()

    def _claim(self, region: int) -> bool:
        claim = self._claims / str(region)
        try:
            fd = os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            owner = claim.read_text()
            if owner == self._home:
                return True
            if owner == "" or Path(owner).exists():
                return False
            claim.unlink(missing_ok=True)  # the home of that node is gone
            return self._claim(region)
        try:
            os.write(fd, self._home.encode())
        finally:
            os.close(fd)
        return True

    def _find_region(self) -> int:
        digest = hashlib.sha256(f"freehold:id-region:v1:{self._home}".encode()).digest()
        start = int.from_bytes(digest[:4])
        for step in range(REGIONS):
            region = 1 + (start + step) % REGIONS
            if self._claim(region):
                return region
        raise FreeholdError("every id region of this host is taken", code="no_id_range")
