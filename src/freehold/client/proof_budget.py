"""What goes into a proof file: values of one height with their proofs, and witness entries, never above 48 KiB.

Beside them stand the light blocks that lead to that height, where validator sets changed.

Spec: docs/spec/proofs.md.
"""

from collections.abc import Iterable, Sequence

from freehold.base.errors import check
from freehold.base.limits import MAX_EVIDENCE_LEAF_BYTES, MAX_PROOF_FILE_BYTES
from freehold.light.genesis import TrustedGenesis
from freehold.light.ics23 import decode_proof
from freehold.light.proof_file import MAX_PROOFS, MAX_WITNESS, Statement, write_proof_file
from freehold.light.types import LightBlock
from freehold.lightclient.client import Snapshot

_PROOF_TEXT = len('{"commitment_proof":"","height":,"key":"","value":""},')
_ENTRY_TEXT = len('"",')


def _base64_length(count: int) -> int:
    return -(-count // 3) * 4


class ProofBudget:
    """Collects what fits. `pool` is all that was read; only what is added gets into the file, and all `hops`."""

    def __init__(self, trusted: TrustedGenesis, pool: Snapshot, hops: Sequence[LightBlock] = ()) -> None:
        self._trusted = trusted
        self._pool = pool
        self._hops = hops
        self._keys: dict[bytes, None] = {}
        self._entries: set[bytes] = set()
        self._bytes = len(write_proof_file(trusted, [pool.light_block], [self._statement(next(iter(pool.values)))]))

    @property
    def keys(self) -> set[bytes]:
        """The keys in the file so far."""
        return set(self._keys)

    def add(self, keys: Iterable[bytes], entries: Iterable[bytes] = ()) -> bool:
        """Add values and entries when all of them fit together; what is there already costs nothing.

        Args:
            keys: each was read.
            entries: witness entries.
        """
        new_keys = [key for key in dict.fromkeys(keys) if key not in self._keys]
        new_entries = {entry for entry in entries if entry not in self._entries}
        if any(len(entry) > MAX_EVIDENCE_LEAF_BYTES for entry in new_entries):
            return False
        cost = sum(map(self._cost, new_keys))
        cost += sum(_base64_length(len(entry)) + _ENTRY_TEXT for entry in new_entries)
        if (
            self._bytes + cost > MAX_PROOF_FILE_BYTES
            or len(self._keys) + len(new_keys) > MAX_PROOFS
            or len(self._entries) + len(new_entries) > MAX_WITNESS
        ):
            return False
        self._bytes += cost
        self._keys.update(dict.fromkeys(new_keys))
        self._entries |= new_entries
        return True

    def write(self) -> bytes:
        """Give the file."""
        statements = [self._statement(key) for key in self._keys]
        blocks, entries = [self._pool.light_block], sorted(self._entries)
        data = write_proof_file(self._trusted, blocks, statements, entries)
        check(len(data) <= self._bytes, "proof_size_was_counted", counted=self._bytes, written=len(data))
        return write_proof_file(self._trusted, blocks, statements, entries, self._hops) if self._hops else data

    def _cost(self, key: bytes) -> int:
        value = self._pool.values[key] or b""
        proof = _base64_length(len(self._pool.proofs[key]))
        return _PROOF_TEXT + len(str(self._pool.at.height)) + proof + 2 * len(key) + 2 * len(value)

    def _statement(self, key: bytes) -> Statement:
        return Statement(self._pool.at.height, key, self._pool.values[key], decode_proof(self._pool.proofs[key]))
