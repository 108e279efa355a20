"""Merkle mountain ranges: an append-only list of which only the peaks are kept, about log2(count) hashes.

The leaves form perfect binary trees, one for each set bit of their count, the largest first; the peaks are the roots
of these trees. The root commits to the count, so a count fixes the length and shape of every proof.
    inner = H(MMR_INNER, left, right); root = H(MMR_ROOT, count as 8 bytes, big end first, peak, peak, ..)
A leaf hash is a `tagged_hash` under a leaf purpose (such as REPORT_LEAF), and so never an inner hash.
Spec: docs/spec/hashes.md.
"""

from collections.abc import Sequence
from typing import Final

from freehold.base.codec import Record
from freehold.base.errors import check
from freehold.crypto.hashing import HASH_BYTES, Purpose, tagged_hash

MAX_COUNT: Final = (1 << 63) - 1


class Peaks(Record, frozen=True):
    """What an appender keeps, and what is stored on the ledger: canonical bytes by `base.codec.encode`.

    Attributes:
        count: leaves appended so far.
        peaks: roots of the mountains, largest first; as many as count has set bits.
    """

    count: int = 0
    peaks: tuple[bytes, ...] = ()


class Proof(Record, frozen=True):
    """That a leaf stands at an index below a root.

    Attributes:
        siblings: from the leaf up to its mountain's peak.
        other_peaks: all other peaks, largest first.
    """

    siblings: tuple[bytes, ...]
    other_peaks: tuple[bytes, ...]


def is_valid(peaks: Peaks) -> bool:
    """Whether a decoded value has a count in range and as many 32-byte peaks as that needs."""
    return (
        0 <= peaks.count <= MAX_COUNT
        and len(peaks.peaks) == peaks.count.bit_count()
        and all(len(peak) == HASH_BYTES for peak in peaks.peaks)
    )


def append(peaks: Peaks, leaf_hash: bytes) -> Peaks:
    """Append a leaf.

    Args:
        peaks: the range so far.
        leaf_hash: 32 bytes, a `tagged_hash` under a leaf purpose.

    Raises:
        InvariantError: the leaf is not 32 bytes, or the range is not valid or is full.
    """
    check(len(leaf_hash) == HASH_BYTES, "mmr_leaf_length", length=len(leaf_hash))
    check(is_valid(peaks) and peaks.count < MAX_COUNT, "mmr_peaks_valid", count=peaks.count)
    node, rest, bits = leaf_hash, list(peaks.peaks), peaks.count
    while bits & 1:  # each trailing set bit is a mountain as high as the new one
        node = _inner(rest.pop(), node)
        bits >>= 1
    return Peaks(peaks.count + 1, (*rest, node))


def root(peaks: Peaks) -> bytes:
    """Give the 32-byte root that commits to the count and all leaves."""
    return _bag(peaks.count, peaks.peaks)


def from_leaves(leaf_hashes: Sequence[bytes]) -> Peaks:
    """Append all leaves to an empty range."""
    peaks = Peaks()
    for leaf_hash in leaf_hashes:
        peaks = append(peaks, leaf_hash)
    return peaks


def prove(leaf_hashes: Sequence[bytes], index: int) -> Proof:
    """Build the proof of one leaf.

    Args:
        leaf_hashes: all leaves of the range, in order.
        index: which of them.

    Raises:
        InvariantError: there is no such leaf.
    """
    check(0 <= index < len(leaf_hashes), "mmr_index_in_range", index=index, count=len(leaf_hashes))
    siblings: list[bytes] = []
    others: list[bytes] = []
    start = 0
    for height in _heights(len(leaf_hashes)):
        level = list(leaf_hashes[start : start + (1 << height)])
        is_own = start <= index < start + len(level)
        place = index - start
        start += len(level)
        while len(level) > 1:
            if is_own:
                siblings.append(level[place ^ 1])
                place >>= 1
            level = [_inner(level[at], level[at + 1]) for at in range(0, len(level), 2)]
        if not is_own:
            others.append(level[0])
    return Proof(tuple(siblings), tuple(others))


def verify(root_hash: bytes, count: int, index: int, leaf_hash: bytes, proof: Proof) -> bool:
    """Whether a proof shows that the leaf stands at index among count leaves under the root."""
    if not 0 <= index < count <= MAX_COUNT:
        return False
    if any(len(node) != HASH_BYTES for node in (leaf_hash, *proof.siblings, *proof.other_peaks)):
        return False
    heights = _heights(count)
    start = mountain = 0
    while index >= start + (1 << heights[mountain]):
        start += 1 << heights[mountain]
        mountain += 1
    if len(proof.siblings) != heights[mountain] or len(proof.other_peaks) != len(heights) - 1:
        return False
    node, place = leaf_hash, index - start
    for sibling in proof.siblings:
        node = _inner(sibling, node) if place & 1 else _inner(node, sibling)
        place >>= 1
    return _bag(count, (*proof.other_peaks[:mountain], node, *proof.other_peaks[mountain:])) == root_hash


def _heights(count: int) -> list[int]:
    """Heights of the mountains of count leaves, largest first."""
    return [bit for bit in range(count.bit_length() - 1, -1, -1) if count >> bit & 1]


def _inner(left: bytes, right: bytes) -> bytes:
    return tagged_hash(Purpose.MMR_INNER, left, right)


def _bag(count: int, peaks: Sequence[bytes]) -> bytes:
    return tagged_hash(Purpose.MMR_ROOT, count.to_bytes(8, "big"), *peaks)
