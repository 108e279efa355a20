"""The public vectors of ICS-23: proofs of the specs smt, tendermint and iavl, and the tables of its Go library.

Source: cosmos/ics23 testdata. Two proofs are written here; the rest run from FREEHOLD_VECTORS.
"""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freehold.base.errors import CodecError, NotVerifiedError
from freehold.light.ics23 import (
    IAVL,
    SMT,
    TENDERMINT,
    CommitmentProof,
    ExistenceProof,
    InnerOp,
    InnerSpec,
    LeafOp,
    ProofSpec,
    calculate_root,
    check_against_spec,
    check_leaf,
    decode_proof,
    left_branches_are_empty,
    right_branches_are_empty,
    verify_absence,
    verify_existence,
)
from freehold.light.ics23_messages import HashOp
from freehold.light.ics23_ops import apply_inner, apply_leaf, hash_with

SPECS = {"smt": SMT, "tendermint": TENDERMINT, "iavl": IAVL}

# cosmos/ics23 testdata/tendermint/exist_middle.json and testdata/smt/nonexist_left.json
KNOWN: list[tuple[str, dict[str, str]]] = [
    (
        "tendermint",
        {
            "key": "513334656d766f39447145585735325257523835",
            "value": "76616c75655f666f725f513334656d766f39447145585735325257523835",
            "root": "494b16e3a64a85df143b2881bdd3ec94c3f8e18b343e8ff9c2d61afd05d040c8",
            "proof": (
                "0ad1030a14513334656d766f39447145585735325257523835121e76616c75655f666f725f513334656d766f394471455857"
                "353252575238351a090801180120012a010022250801122101e231d775380f2d663651e213cc726660e2ce0a2f2e9ee12cbb"
                "7df32294104a8c222708011201011a2014af194c63500236e52cc290ab24244fab39a520ece7e20fa93f4c9ff80c66262225"
                "08011221017966d2ead34418db2eaa04c0dffb9316805e8a0d421d1270c8954c35ee3221382225080112210172339e20a49b"
                "b16795a99bd905b47f99c45e5e5a9e6b7fb223dc8fe6751e1bda222708011201011a2053dd1ecc25ff906a0ef4db37ee068f"
                "3d8ad6d1d49913eefb847a675a681c5ffa222708011201011a20de90f9951a19497be7e389e02aa79e26faf77080e740e874"
                "3249a17a537f287d22250801122101ad4e53e981afc5a71e34ab0c4ffbccf1b468414d9d0939bd08edbd2461bc944a222708"
                "011201011a209b4cf89c3995b9dd66d58ab088846b2c6b59c52c6d10ec1d759ca9e9aa5eef5c222508011221013928a078bd"
                "66ab3949f5b1846b6d354dbdc1968a416607c7d91555ca26716667222708011201011a20d2d82cf8915b9ae6f92c7eae343e"
                "37d312ace05e654ce47acdf57d0a5490b873"
            ),
        },
    ),
    (
        "smt",
        {
            "key": "636c536e4d46714a4e6162776a7a5134356e6d4d",
            "value": "",
            "root": "50be82f8013965f595392462f6c68b4c1d3d3401210a1084f6f73e3e2caf0648",
            "proof": (
                "1280040a20002c041fe1df37d806cc5b493bed02222d83b25ffebf9cb529b4524cc547fbeb1adb030a144445687a30613576"
                "355036616536514c376d6445121e76616c75655f666f725f4445687a30613576355036616536514c376d64451a0908011001"
                "18012a0100222708011201011a205aa5f240071f196e8d21e38b3fa6e942d5c529cd5fa0eec85607ba8cd8e3798522270801"
                "1201011a206732b1eaa2cf07fbc94599aecc2df057d8efb0ccd775d86b6ea176bfaad367ad222708011201011a20074e19b2"
                "ce9887b188cabd61f0af10d699c206d4eee9c5e914bcfea5960439f8222708011201011a208c8012ca455d57135bea305ad1"
                "080cc0a9d8dec078a7813736ff871b40708a72222708011201011a200c70649c4ea15de4a2f2087a340fa93adb880f851d54"
                "65481349803315201ecd222708011201011a20ca5d1f4ee19172af78ff61c113336292c11c89884ead5b541f54cc53449e2e"
                "df222708011201011a2091a26f99a2852c72dd4a15c6b0444421a6d033f7f570f10c8c564bc3dce2fbc3222708011201011a"
                "206bdf78f09ef3fc2789b9a48e5e741e722dbf44050ec052de79135fbabf10ccd6222708011201011a20ecbc7b302eae49d1"
                "80b8d1f1fb36e7c5d19f84ce3c5d9a84e4913ef73a9cbab2222708011201011a2010d3a9e28ea143c3b9910b1d40e6087e97"
                "520bc2a3dbe66a806bf214039fdb1b"
            ),
        },
    ),
]


def folder() -> Path | None:
    path = os.environ.get("FREEHOLD_VECTORS")
    return Path(path) / "ics23" if path else None


def proofs() -> list[tuple[str, dict[str, str]]]:
    where = folder()
    if where is None:
        return KNOWN
    return [(spec, json.loads(file.read_text())) for spec in SPECS for file in sorted((where / spec).glob("*.json"))]


def table(name: str, fallback: Any) -> Any:
    where = folder()
    return json.loads((where / f"{name}.json").read_text()) if where else fallback


def check(spec: ProofSpec, case: dict[str, str], proof: CommitmentProof, root: bytes | None = None) -> None:
    key, value = bytes.fromhex(case["key"]), bytes.fromhex(case["value"])
    root = bytes.fromhex(case["root"]) if root is None else root
    if value:
        verify_existence(spec, root, key, value, proof)
    else:
        verify_absence(spec, root, key, proof)


def test_every_proof_verifies_and_no_other_root_does() -> None:
    cases = proofs()
    print(f"{len(cases)} ICS-23 proofs checked")
    for name, case in cases:
        raw = bytes.fromhex(case["proof"])
        proof = decode_proof(raw)
        assert proof.encode() == raw
        check(SPECS[name], case, proof)
        with pytest.raises(NotVerifiedError):
            check(SPECS[name], case, proof, root=bytes(32))


def test_a_proof_of_one_spec_is_refused_by_the_others() -> None:
    for name, case in proofs():
        for other, spec in SPECS.items():
            if other != name:
                with pytest.raises(NotVerifiedError):
                    check(spec, case, decode_proof(bytes.fromhex(case["proof"])))


def test_another_key_or_value_is_refused() -> None:
    for name, case in proofs():
        proof = decode_proof(bytes.fromhex(case["proof"]))
        if case["value"]:
            for change in ({"key": case["key"] + "00"}, {"value": case["value"] + "00"}):
                with pytest.raises(NotVerifiedError):
                    check(SPECS[name], case | change, proof)
            with pytest.raises(NotVerifiedError):
                verify_absence(SPECS[name], bytes.fromhex(case["root"]), bytes.fromhex(case["key"]), proof)
        elif proof.nonexist is not None:
            for neighbour in (proof.nonexist.left, proof.nonexist.right):
                if neighbour is not None:
                    with pytest.raises(NotVerifiedError):
                        check(SPECS[name], case | {"key": neighbour.key.hex()}, proof)


def test_batches_are_refused() -> None:
    for field in (b"\x1a\x00", b"\x22\x00"):
        with pytest.raises(CodecError):
            decode_proof(field)


# --- tables ---------------------------------------------------------------------------------------------------------


def raw(data: str | None) -> bytes:
    return base64.b64decode(data or "")


def leaf(data: dict[str, Any] | None) -> LeafOp | None:
    if data is None:
        return None
    return LeafOp(
        data.get("hash", 0),
        data.get("prehash_key", 0),
        data.get("prehash_value", 0),
        data.get("length", 0),
        raw(data.get("prefix")),
    )


def inner(data: dict[str, Any]) -> InnerOp:
    return InnerOp(data.get("hash", 0), raw(data.get("prefix")), raw(data.get("suffix")))


def existence(data: dict[str, Any]) -> ExistenceProof:
    path = tuple(inner(step) for step in data.get("path", []))
    return ExistenceProof(raw(data.get("key")), raw(data.get("value")), leaf(data.get("leaf")), path)


def spec_of(data: dict[str, Any]) -> ProofSpec:
    shape = data.get("inner_spec", {})
    return ProofSpec(
        leaf_spec=leaf(data.get("leaf_spec", {})) or LeafOp(),
        inner_spec=InnerSpec(
            child_order=tuple(shape.get("child_order", ())),
            child_size=shape.get("child_size", 0),
            min_prefix_length=shape.get("min_prefix_length", 0),
            max_prefix_length=shape.get("max_prefix_length", 0),
            empty_child=raw(shape.get("empty_child")),
            hash=shape.get("hash", 0),
        ),
        max_depth=data.get("max_depth", 0),
        min_depth=data.get("min_depth", 0),
        prehash_key_before_comparison=data.get("prehash_key_before_comparison", False),
    )


def outcome(action: Callable[[], bytes | None]) -> bytes | str | None:
    try:
        return action()
    except NotVerifiedError:
        return "refused"


def test_leaf_operations() -> None:
    fallback = {"foobar": {"Op": {"hash": 1}, "Key": "Zm9v", "Value": "YmFy", "IsErr": False,
                           "Expected": "w6uP8Tcg6K2QR905Rms8iXTlksL6OD1KOWBxTK7wxPI="}}  # fmt: skip
    for name, case in table("TestLeafOpData", fallback).items():
        op = leaf(case["Op"])
        assert op is not None
        got = outcome(lambda op=op, case=case: apply_leaf(op, raw(case["Key"]), raw(case["Value"])))  # type: ignore[misc]
        assert got == ("refused" if case["IsErr"] else raw(case["Expected"])), name


def test_inner_operations() -> None:
    fallback = {"prefix": {"Op": {"hash": 1, "prefix": "ACBAgKDA4A=="}, "Child": "/8y7mXdVMxEA", "IsErr": False,
                           "Expected": "Rb7OFnjPLp9PKuAz5Ub8NaIIGyQV7csTEhoOkI3KGSc="}}  # fmt: skip
    for name, case in table("TestInnerOpData", fallback).items():
        got = outcome(lambda case=case: apply_inner(inner(case["Op"]), raw(case["Child"])))  # type: ignore[misc]
        assert got == ("refused" if case["IsErr"] else raw(case["Expected"])), name


def test_hash_operations() -> None:
    food = "c1f026582fe6e8cb620d0c85a72fe421ddded756662a8ec00ed4c297ad10676b"
    fallback = {"sha256": {"HashOp": 1, "Preimage": "food", "ExpectedHash": food}}
    for name, case in table("TestDoHashData", fallback).items():
        preimage = (case.get("Preimage") or case["PreImage"]).encode()
        assert hash_with(case["HashOp"], preimage).hex() == case["ExpectedHash"], name
    for unknown in (HashOp.NO_HASH, HashOp.KECCAK256, HashOp.BLAKE3, 77):
        with pytest.raises(NotVerifiedError):
            hash_with(unknown, b"food")


def test_leaf_checks() -> None:
    fallback = {"differs": {"Leaf": {"hash": 1}, "Spec": {}, "IsErr": True}}
    for name, case in table("TestCheckLeafData", fallback).items():
        op = leaf(case["Leaf"])
        assert op is not None
        spec = spec_of({"leaf_spec": case["Spec"]})
        got = outcome(lambda op=op, spec=spec: check_leaf(op, spec))  # type: ignore[misc, func-returns-value]
        assert got == ("refused" if case["IsErr"] else None), name


def test_spec_checks() -> None:
    fallback = {"empty": {"Proof": {"key": "Zm9v", "value": "YmFy"}, "Spec": {}, "Err": "needs defined LeafOp"}}
    for name, case in table("TestCheckAgainstSpecData", fallback).items():
        proof, spec = existence(case["Proof"]), spec_of(case["Spec"])
        got = outcome(lambda proof=proof, spec=spec: check_against_spec(proof, spec))  # type: ignore[misc, func-returns-value]
        assert got == ("refused" if case["Err"] else None), name


def test_empty_branches() -> None:
    for case in table("TestEmptyBranchData", []):
        spec, op = spec_of(case["Spec"]).inner_spec, inner(case["Op"])
        assert left_branches_are_empty(spec, op) is case["IsLeft"]
        assert right_branches_are_empty(spec, op) is case["IsRight"]


def test_existence_calculation() -> None:
    fallback = {"one leaf": {"Proof": {"key": "Zm9vZA==", "value": "c29tZSBsb25nZXIgdGV4dA==",
                                       "leaf": {"hash": 1, "length": 1}}, "IsErr": False,
                             "Expected": "to9dKY6RWuF1PdMz2h+c9gVBGl8uElFr5nWPNl5tsmU="}}  # fmt: skip
    for name, case in table("TestExistenceProofData", fallback).items():
        proof = existence(case["Proof"])
        got = outcome(lambda proof=proof: calculate_root(proof))  # type: ignore[misc]
        assert got == ("refused" if case["IsErr"] else raw(case["Expected"])), name
