"""Pure rules of a witness: when to report, what to sample, when a duty has passed (docs/spec/witnesses.md)."""

from dataclasses import dataclass, field

from freehold.base.limits import MAX_DUTY_TARGETS
from freehold.base.presets import Preset
from freehold.crypto.hashing import Purpose, tagged_hash
from freehold.protocol.evidence import LEAF_VERSION, DutyLeaf, ProbeSeen

MAX_SAMPLED_LEASES = 4


def sample_leases(leases: list[tuple[bytes, int]], nonce: bytes) -> list[tuple[bytes, int]]:
    """At most four of a node's probed leases, drawn by the question's nonce, so that the node cannot choose."""
    ranked = sorted(leases, key=lambda entry: tagged_hash(Purpose.PROBE_DRAW, nonce, entry[0]))
    return ranked[:MAX_SAMPLED_LEASES]


def is_passed(probe: ProbeSeen) -> bool:
    """Whether every workload that was sampled answered; the identity was checked when the probe was made."""
    return all(seen.ok for seen in probe.workloads)


@dataclass
class Duties:
    """The duties of one witness in one epoch: targets that invited it, and what it saw of each."""

    epoch: int
    witness: bytes
    seen: dict[int, list[ProbeSeen]] = field(default_factory=dict)

    def invite(self, target_slot: int) -> bool:
        """Take on a target; False when there are too many already."""
        if target_slot not in self.seen and len(self.seen) >= MAX_DUTY_TARGETS:
            return False
        self.seen.setdefault(target_slot, [])
        return True

    def record(self, target_slot: int, probe: ProbeSeen) -> None:
        """Keep an answered probe."""
        if target_slot in self.seen:
            self.seen[target_slot].append(probe)

    def passed(self, preset: Preset) -> list[DutyLeaf]:
        """Leaves of the targets whose duty passed, by slot: enough probes in which everything answered."""
        leaves = []
        for slot in sorted(self.seen):
            good = [probe for probe in self.seen[slot] if is_passed(probe)]
            if len(good) >= preset.probes_required:
                leaves.append(DutyLeaf(LEAF_VERSION, self.epoch, self.witness, slot, good))
        return leaves


def set_bit(bits: bytes, index: int) -> bytes:
    """Bits with bit `index` (least significant first in each byte) set."""
    array = bytearray(bits)
    array[index // 8] |= 1 << (index % 8)
    return bytes(array)


def set_bits(bits: bytes) -> list[int]:
    """The indexes of the bits that are set."""
    return [index for index in range(len(bits) * 8) if bits[index // 8] >> (index % 8) & 1]
