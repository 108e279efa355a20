"""A deliberately simple model of bonds and elections, written apart from the rules.

It keeps every bond as a whole, sorts all candidates anew, finds the owners' limit by trying every number, and counts
earnings as exact fractions of each block's fees. Of attendance it keeps who missed how many blocks of this era.
"""

from dataclasses import dataclass, field
from fractions import Fraction

from freehold.base.amounts import TOKEN
from freehold.base.presets import AttendancePreset, ElectionPreset


@dataclass
class ModelBond:
    owner: bytes
    stake: int
    since: int
    listed: bool = True
    removed: bool = False
    unbonding: list[tuple[int, int, int]] = field(default_factory=list)  # amount, time, height
    slashed: set[int] = field(default_factory=set)
    earned: Fraction = Fraction(0)
    settles: int = 1  # how often a part below one unit may have been dropped


class ValidatorsModel:
    """Bonds by validator; `power` is the newest set."""

    def __init__(
        self,
        preset: ElectionPreset,
        power: dict[bytes, int],
        bonds: dict[bytes, ModelBond],
        attendance: AttendancePreset,
        least_blocks: int,
    ) -> None:
        self.preset = preset
        self.least_blocks = least_blocks  # an era with fewer judges nobody
        self.attendance = attendance
        self.since = 0  # the height after which this era's blocks are counted
        self.missed: dict[bytes, int] = {}
        self.absent: dict[bytes, int] = {}  # the era in which it was put out
        self.power = power
        self.bonds = bonds
        self.era = 0

    def table(self) -> list[bytes]:
        listed = [key for key, bond in self.bonds.items() if bond.listed]
        return sorted(listed, key=lambda key: (-self.bonds[key].stake, key))

    def place(self, validator: bytes) -> bool:
        """List a candidate; the last of a full table gives way to more."""
        bond = self.bonds[validator]
        others = [key for key in self.table() if key != validator]
        if len(others) == self.preset.max_candidates:
            if bond.stake <= self.bonds[others[-1]].stake:
                return False
            self.bonds[others[-1]].listed = False
        bond.listed = True
        return True

    def elected(self) -> dict[bytes, int] | None:
        seated = self.table()[: self.preset.seats]
        held: dict[bytes, int] = {}
        for key in seated:
            bond = self.bonds[key]
            held[bond.owner] = held.get(bond.owner, 0) + bond.stake // TOKEN
        if len(held) < self.preset.min_owners:
            return None
        if sum(self.bonds[key].stake for key in seated) < self.preset.min_total_bond:
            return None
        share = max(self.preset.cap_permill, -(-1000 // len(held)))
        limit = 0
        while limit <= max(held.values()) and 1000 * (limit + 1) <= share * sum(
            min(value, limit + 1) for value in held.values()
        ):
            limit += 1
        power: dict[bytes, int] = {}
        for owner, whole in held.items():
            start, given = 0, 0
            for key in seated:
                if self.bonds[key].owner == owner:
                    start += self.bonds[key].stake // TOKEN
                    upto = int(Fraction(min(whole, limit) * start, whole))
                    if upto > given:
                        power[key] = upto - given
                    given = upto
        return power

    def put_out(self, era: int, height: int) -> None:
        """Who missed too many blocks of the era loses its place, the worst first, while enough remains."""
        rules = self.attendance
        blocks, missed = height - self.since, self.missed
        self.since, self.missed = height, {}
        back = [
            key for key in self.absent if not self.bonds[key].removed and self.bonds[key].stake >= self.preset.min_bond
        ]
        for key in back:
            self.bonds[key].listed = True
        power = self.elected()  # were all back
        for key in back:
            self.bonds[key].listed = False
        if power is None:
            return
        self.absent = {key: since for key, since in self.absent.items() if power.get(key)}
        if blocks < self.least_blocks:
            return
        for key in sorted(missed, key=lambda key: (-missed[key], key)):
            if Fraction(blocks - missed[key], blocks) >= Fraction(rules.min_signed_permill, 1000) or key not in power:
                continue
            out = sum(power[one] for one in [key, *self.absent])
            self.bonds[key].listed = False
            after = self.elected()
            kept = sum(value for one, value in after.items() if one in power) if after is not None else 0
            least = Fraction(1000 - rules.max_absent_permill, 1000) * sum(power.values())
            if after is None or sum(power.values()) - out < least or kept < least:
                self.bonds[key].listed = True
            else:
                self.absent[key] = era

    def begin_block(self, era: int, guilty: set[bytes], height: int, away: set[bytes]) -> None:
        """What a block does to the set before its transactions; `away` are missing in the commit that it holds."""
        for key in away:
            self.missed[key] = self.missed.get(key, 0) + 1
        self.missed = {key: count for key, count in self.missed.items() if key in self.power}
        if era != self.era:
            self.put_out(era, height)
        if era == self.era and not guilty & set(self.power):
            return
        self.era = era
        kept = {key: power for key, power in self.power.items() if key not in guilty}
        after = self.elected() or kept or self.power
        for key in set(after) | set(self.power):
            if after.get(key, 0) != self.power.get(key, 0) and key in self.bonds:
                self.bonds[key].settles += 1
        self.power = after

    def is_due(self, part: tuple[int, int, int], now: int, height: int) -> bool:
        return now >= part[1] and height >= part[2]

    def slash(self, validator: bytes, kind: int, at: tuple[int, int], now: int, height: int) -> int:
        """Give what is cut, or -1 when the evidence counts for nothing."""
        preset, bond = self.preset, self.bonds[validator]
        if kind not in (1, 2) or (now - at[1] > preset.unbonding_ms and height - at[0] > preset.unbonding_blocks):
            return -1
        if at[0] in bond.slashed:
            return 0
        permill = 0 if at[0] < bond.since else 50 if kind == 1 else 1000
        bond.slashed.add(at[0])
        bond.removed, bond.listed = True, False
        cut = bond.stake * permill // 1000
        bond.stake -= cut
        parts = []
        for part in bond.unbonding:
            piece = 0 if self.is_due(part, now, height) else part[0] * permill // 1000
            cut += piece
            parts.append((part[0] - piece, *part[1:]))
        bond.unbonding = parts
        return cut

    def share(self, fees: int) -> int:
        """Book a block's fees; gives the validators' share."""
        power = sum(value for key, value in self.power.items() if key in self.bonds)
        share = fees * self.preset.fee_permill // 1000 if power else 0
        for key, value in self.power.items():
            if key in self.bonds and share:
                self.bonds[key].earned += Fraction(share * value, power)
        return share
