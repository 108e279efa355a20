"""Proofs in ICS-23's own bytes, and roots that must never change."""

import json
import os
from pathlib import Path

import pytest

from freehold.consensus.proofs import prove
from freehold.consensus.records import encode_leaf, leaf_of
from freehold.consensus.state_store import StateStore
from freehold.consensus.tree import EMPTY_NODE, INNER_KIND, Leaf, Node
from freehold.crypto.smt import EMPTY, hash_path
from freehold.light.ics23 import SMT, CommitmentProof, calculate_root

# roots of {b"key0": b"value0", ...}: 0, 1, 2, 3, 10 and 1,000 keys; first computed by the model of
# tests/property/test_state_tree.py
GOLDEN = {
    0: "0000000000000000000000000000000000000000000000000000000000000000",
    1: "76aac0d0bfc616899ba560f2f575df86e37c1c857763db3740fcb544ac254fc4",
    2: "9f784e75a33c53120319786d25dcabb37338d1fc0ac7bb494704cb5618b69a32",
    3: "4b09dd7068a49aa9df00a36b3032632d420ea8dadd427346b1cf3d9e030c2a2d",
    10: "efd60e62c21445956019ce19ac3664555d9b5453a9695730356b1c1d542ddfa8",
    1000: "7977fcfa44d7891d503c4f164829836787905340e6b4ee01473f6a10afff0ecc",
}


class OnePathView:
    """A tree of which only one path is known: the leaf and the hashes beside it."""

    def __init__(self, leaf: Leaf, beside: list[bytes]) -> None:
        self.split = len(beside)
        self._leaf = leaf
        self._nodes: dict[int, Node] = {1: (INNER_KIND, b"")}
        index = 1
        for depth, sibling in enumerate(beside):
            index = 2 * index + (leaf.path[depth // 8] >> (7 - depth % 8) & 1)
            self._nodes[index] = (INNER_KIND, b"")
            self._nodes[index ^ 1] = EMPTY_NODE if sibling == EMPTY else (INNER_KIND, sibling)

    def node(self, index: int) -> Node:
        return self._nodes[index]

    def bucket(self, prefix: int) -> list[Leaf]:
        return [self._leaf]


# Source: cosmos/ics23 testdata/smt/exist_left.json
EXIST_LEFT = {
    "key": "4445687a30613576355036616536514c376d6445",
    "value": "76616c75655f666f725f4445687a30613576355036616536514c376d6445",
    "root": "432d73b49019d8df5c7e38fd93288d0240a62a3c010e7217a4a74f5885c391d5",
    "proof": (
        "0adb030a144445687a30613576355036616536514c376d6445121e76616c75655f666f725f4445687a306135763550366165"
        "36514c376d64451a090801100118012a0100222708011201011a20bc79ee59a60c4f08cc0216a5f64d39f871cd730b698307"
        "9429e91d9bcd57d470222708011201011a206732b1eaa2cf07fbc94599aecc2df057d8efb0ccd775d86b6ea176bfaad367ad"
        "222708011201011a203112ffea611a3ef030f5ed8dafb8bcaf8e33bec16fff9027b1a0c718136de2d3222708011201011a20"
        "480983a2541b5527e1b5607e32f0597b12204d4973b5d9b498d1ff2a2350352b222708011201011a2097058f1bf50e2b47ad"
        "129fdaf2dfd53f88f81467dad54dabfcf0fbe8330c4e4c222708011201011a2008f6f1e45958b4780e1e0f7791315d44355e"
        "ba4e519e2fb25c3dc48627a59a45222708011201011a20bb4f607cb62f20e673fdfad3e40a8b596db50dc7c34e65aba74eec"
        "37f791e886222708011201011a20fe97c3211b6a7eb3d859e754b373e89897a54f74244f0a84defc1df2a203dfd822270801"
        "1201011a202cab93bf9b91d25010972968d69b47ca9dfd5b4cea0c71310e0adced33acb19d222708011201011a2069ca519f"
        "1f2528c971a930cdd00b65c41762e8510ce3d4a998d4ad8ccf598984"
    ),
}


def check_vector(vector: dict[str, str]) -> None:
    key, value, raw = (bytes.fromhex(vector[field]) for field in ("key", "value", "proof"))
    proof = CommitmentProof.decode(raw)
    assert proof.exist is not None
    beside = [step.suffix or step.prefix[1:] for step in reversed(proof.exist.path)]
    view = OnePathView(leaf_of(hash_path(key), encode_leaf(hash_path(key), key, value)), beside)
    assert prove(view, key) == (value, raw)
    assert calculate_root(proof.exist, SMT).hex() == vector["root"]


def test_a_proof_has_the_bytes_of_ics23s_own_vector() -> None:
    check_vector(EXIST_LEFT)


@pytest.mark.parametrize("name", ["exist_left", "exist_middle", "exist_right"])
def test_proofs_have_the_bytes_of_all_of_ics23s_vectors(name: str) -> None:
    folder = os.environ.get("FREEHOLD_VECTORS")
    if folder is None:
        pytest.skip("FREEHOLD_VECTORS is not set; one vector is in this file and has run")
    check_vector(json.loads((Path(folder) / "ics23" / "smt" / f"{name}.json").read_text()))


@pytest.mark.parametrize("count", GOLDEN)
def test_golden_roots(tmp_path: Path, count: int) -> None:
    with StateStore.open(tmp_path, 1) as store:
        root = store.stage(0, {b"key%d" % n: b"value%d" % n for n in range(count)})
        assert root.hex() == GOLDEN[count]
