"""Mountain ranges against a naive model that keeps all leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.base.codec import decode, encode
from freehold.base.errors import InvariantError
from freehold.crypto import mmr
from freehold.crypto.hashing import Purpose, tagged_hash
from freehold.crypto.mmr import MAX_COUNT, Peaks, Proof


def leaf(number: int) -> bytes:
    return tagged_hash(Purpose.REPORT_LEAF, number.to_bytes(8, "big"))


def model_root(leaves: list[bytes]) -> bytes:
    """Cut the largest power of two from the front, make a perfect tree of it, and so on."""

    def perfect(part: list[bytes]) -> bytes:
        if len(part) == 1:
            return part[0]
        half = len(part) // 2
        return tagged_hash(Purpose.MMR_INNER, perfect(part[:half]), perfect(part[half:]))

    peaks, rest = [], leaves
    while rest:
        size = 1 << len(rest).bit_length() - 1
        peaks.append(perfect(rest[:size]))
        rest = rest[size:]
    return tagged_hash(Purpose.MMR_ROOT, len(leaves).to_bytes(8, "big"), *peaks)


def test_every_small_count() -> None:
    peaks, leaves, roots = Peaks(), [], set()
    for count in range(70):
        root = mmr.root(peaks)
        assert root == model_root(leaves)
        assert mmr.is_valid(peaks)
        assert decode(encode(peaks), Peaks) == peaks
        assert len(peaks.peaks) == count.bit_count()
        roots.add(root)
        for index in range(count):
            proof = mmr.prove(leaves, index)
            assert mmr.verify(root, count, index, leaves[index], proof)
            assert decode(encode(proof), Proof) == proof
            for wrong_count in range(1, 72):
                if wrong_count != count:
                    assert not mmr.verify(root, wrong_count, index, leaves[index], proof)
        leaves.append(leaf(count))
        peaks = mmr.append(peaks, leaves[-1])
    assert len(roots) == 70
    assert mmr.from_leaves(leaves) == peaks


@given(st.integers(1, 200), st.data())
def test_a_changed_proof_is_refused(count: int, data: st.DataObject) -> None:
    leaves = [leaf(number) for number in range(count)]
    root, index = mmr.root(mmr.from_leaves(leaves)), data.draw(st.integers(0, count - 1))
    proof = mmr.prove(leaves, index)
    assert mmr.verify(root, count, index, leaves[index], proof)
    wrong = data.draw(st.integers(-3, count + 3))
    if wrong != index:
        assert not mmr.verify(root, count, wrong, leaves[index], proof)
        if 0 <= wrong < count:
            assert not mmr.verify(root, count, index, leaves[wrong], proof)
    extra = data.draw(st.binary(min_size=32, max_size=32))
    for changed in (
        Proof((*proof.siblings, extra), proof.other_peaks),
        Proof(proof.siblings, (*proof.other_peaks, extra)),
        Proof((extra, *proof.siblings[1:]) if proof.siblings else (extra,), proof.other_peaks),
        Proof(proof.siblings, (extra, *proof.other_peaks[1:]) if proof.other_peaks else (extra,)),
        Proof(proof.siblings[:-1], proof.other_peaks) if proof.siblings else Proof((b"",), ()),
        Proof(tuple(node[:-1] for node in proof.siblings), proof.other_peaks) if proof.siblings else Proof((b"",), ()),
    ):
        assert not mmr.verify(root, count, index, leaves[index], changed)


def test_an_inner_node_is_no_leaf() -> None:
    leaves = [leaf(number) for number in range(4)]
    root = mmr.root(mmr.from_leaves(leaves))
    left, right = (tagged_hash(Purpose.MMR_INNER, *leaves[at : at + 2]) for at in (0, 2))
    for count in range(1, 9):
        for index in range(count):
            assert not mmr.verify(root, count, index, left, Proof((right,), ()))


def test_broken_ranges_are_refused() -> None:
    for peaks in (Peaks(1, ()), Peaks(0, (bytes(32),)), Peaks(3, (bytes(32),)), Peaks(1, (bytes(31),)), Peaks(-1, ())):
        assert not mmr.is_valid(peaks)
        with pytest.raises(InvariantError):
            mmr.append(peaks, bytes(32))
    full = Peaks(MAX_COUNT, (bytes(32),) * 63)
    assert mmr.is_valid(full)
    with pytest.raises(InvariantError):
        mmr.append(full, bytes(32))
    with pytest.raises(InvariantError):
        mmr.append(Peaks(), bytes(31))
    with pytest.raises(InvariantError):
        mmr.prove([], 0)


def test_odd_counts_are_refused() -> None:
    root, proof = mmr.root(mmr.from_leaves([leaf(0)])), Proof((), ())
    assert mmr.verify(root, 1, 0, leaf(0), proof)
    for count, index in ((0, 0), (-1, 0), (1, 1), (1, -1), (1 << 63, 0), (1 << 200, 1)):
        assert not mmr.verify(root, count, index, leaf(0), proof)
