"""Merkle hashing against public vectors: CometBFT's RFC 6962 tree and ICS-23's sparse tree (existence and absence)."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from freehold.crypto import merkle, smt

# CometBFT crypto/merkle/rfc6962_test.go
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
EMPTY_LEAF = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
LEAF_L123456 = "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
INNER_N123_N456 = "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"


def load(name: str) -> Any:
    folder = os.environ.get("FREEHOLD_VECTORS")
    if not folder:
        pytest.skip(f"FREEHOLD_VECTORS is not set: {name} did not run")
    return json.loads((Path(folder) / name).read_text())


def test_rfc6962_facts() -> None:
    assert merkle.hash_from_byte_slices([]).hex() == EMPTY
    assert merkle.hash_from_byte_slices([b""]).hex() == EMPTY_LEAF
    assert merkle.hash_leaf(b"L123456").hex() == LEAF_L123456
    assert merkle.hash_inner(b"N123", b"N456").hex() == INNER_N123_N456


def test_the_facts_are_cometbfts() -> None:
    data = load("cometbft/merkle.json")
    ours = {"empty": EMPTY, "empty_leaf": EMPTY_LEAF, "leaf_L123456": LEAF_L123456, "inner_N123_N456": INNER_N123_N456}
    assert {name: data[name] for name in ours} == ours


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Read protobuf: field numbers with varints or bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        else:
            assert tag & 7 == 2
            length = varint()
            yield tag >> 3, data[at : at + length]
            at += length


def root_of_existence(proof: bytes) -> tuple[bytes, bytes, bytes]:
    """Recompute (key, value, root) of an ICS-23 ExistenceProof with our hashing alone."""
    parts = list(fields(proof))
    key, value = dict(parts)[1], dict(parts)[2]
    node = smt.hash_leaf(smt.hash_path(key), smt.hash_value(value))
    for step in (dict(fields(body)) for number, body in parts if number == 4):
        prefix, suffix = step.get(2, b""), step.get(3, b"")
        assert prefix[:1] == smt.INNER_PREFIX
        node = smt.hash_inner(prefix[1:], node) if len(prefix) == 33 else smt.hash_inner(node, suffix)
    return key, value, node


@pytest.mark.parametrize("name", ["left", "middle", "right"])
def test_ics23_existence(name: str) -> None:
    case = load(f"ics23/smt/exist_{name}.json")
    proof = dict(fields(bytes.fromhex(case["proof"])))[1]
    key, value, root = root_of_existence(proof)
    assert (key.hex(), value.hex(), root.hex()) == (case["key"], case["value"], case["root"])


@pytest.mark.parametrize("name", ["left", "middle", "right"])
def test_ics23_absence(name: str) -> None:
    case = load(f"ics23/smt/nonexist_{name}.json")
    proof = dict(fields(dict(fields(bytes.fromhex(case["proof"])))[2]))
    path = smt.hash_path(bytes.fromhex(case["key"]))
    sides = [root_of_existence(proof[number]) for number in (2, 3) if number in proof]
    assert sides
    assert all(root.hex() == case["root"] for _, _, root in sides)
    neighbours = [smt.hash_path(key) for key, _, _ in sides]
    if len(neighbours) == 2:
        assert neighbours[0] < path < neighbours[1]


def test_the_empty_side_is_zeros() -> None:
    assert len(smt.EMPTY) == 32
    assert not any(smt.EMPTY)
    assert smt.hash_inner(smt.EMPTY, smt.EMPTY) != smt.EMPTY
