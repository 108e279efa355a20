"""Pure rules of a witness: when to report, what to sample, when a duty has passed (docs/spec/witnesses.md)."""

from dataclasses import dataclass, field

from freehold.base.limits import MAX_DUTY_FAILED, MAX_DUTY_TARGETS
from freehold.base.presets import Preset
from freehold.crypto.hashing import Purpose, tagged_hash
from freehold.protocol.evidence import LEAF_VERSION, DutyLeaf, ProbeSeen

MAX_SAMPLED_LEASES = 4
MAX_LOOKED_UP = 16  # lease slots read for one probe; among them the node may only stand by


def rank_slots(slots: list[int], nonce: bytes) -> list[int]:
    """A node's lease slots in the order in which a probe looks at them, drawn by the question's nonce."""
    return sorted(slots, key=lambda slot: tagged_hash(Purpose.PROBE_DRAW, nonce, slot.to_bytes(4, "big")))


@dataclass
class Duties:
    """The duties of one witness in one epoch: targets that invited it, and what it saw of each."""

    epoch: int
    witness: bytes
    seen: dict[int, list[ProbeSeen]] = field(default_factory=dict)
    lease_slots: dict[tuple[int, bytes], int] = field(default_factory=dict)  # by target and lease

    def invite(self, target_slot: int) -> bool:
        """Take on a target; False when there are too many already."""
        if target_slot not in self.seen and len(self.seen) >= MAX_DUTY_TARGETS:
            return False
        self.seen.setdefault(target_slot, [])
        return True

    def record(self, target_slot: int, probe: ProbeSeen, lease_slots: dict[bytes, int]) -> None:
        """Keep a probe that the node answered; `lease_slots` says where on it the sampled leases are."""
        if target_slot in self.seen:
            self.seen[target_slot].append(probe)
            self.lease_slots.update({(target_slot, lease): at for lease, at in lease_slots.items()})

    def passed(self, preset: Preset) -> list[DutyLeaf]:
        """Leaves of the targets whose duty passed, by slot: the node answered often enough."""
        return [
            DutyLeaf(LEAF_VERSION, self.epoch, self.witness, slot, self.seen[slot])
            for slot in sorted(self.seen)
            if len(self.seen[slot]) >= preset.probes_required
        ]

    def failed(self, preset: Preset) -> list[tuple[int, int]]:
        """(slot, lease slot) of the services on those nodes that did not answer in most of the probes that asked."""
        found = set()  # a lease slot may have passed from one silent service to another
        for leaf in self.passed(preset):
            looks: dict[bytes, list[bool]] = {}
            for workload in (workload for probe in leaf.probes for workload in probe.workloads):
                looks.setdefault(workload.lease, []).append(workload.ok)
            mostly_silent = [lease for lease, oks in looks.items() if 2 * sum(oks) < len(oks)]
            found |= {(leaf.target_slot, self.lease_slots[leaf.target_slot, lease]) for lease in mostly_silent}
        return sorted(found)[:MAX_DUTY_FAILED]


def set_bit(bits: bytes, index: int) -> bytes:
    """Bits with bit `index` (least significant first in each byte) set."""
    array = bytearray(bits)
    array[index // 8] |= 1 << (index % 8)
    return bytes(array)


def set_bits(bits: bytes) -> list[int]:
    """The indexes of the bits that are set."""
    return [index for index in range(len(bits) * 8) if bits[index // 8] >> (index % 8) & 1]
