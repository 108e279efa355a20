"""The proof file: what it shows, its one form, and that no flipped byte gives it another meaning."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from light_chain import GENESIS_MS, Chain, Tree

from freehold.base.errors import CodecError, FreeholdError, InvalidInputError, NotVerifiedError
from freehold.light.ics23 import absence
from freehold.light.proof_file import Statement, VerifiedFacts, parse_proof_file, verify_proof_file, write_proof_file
from freehold.light.trust import CLOCK_DRIFT_MS
from freehold.light.types import LightBlock

replace = msgspec.structs.replace

CHAIN = Chain((10, 10, 10, 10))
TREES = {
    height: Tree({f"key{n}".encode(): f"value {n} at {height}".encode() for n in range(count)})
    for height, count in ((5, 1), (6, 13), (9, 40))
}
BLOCKS = [CHAIN.light_block(height, tree.root) for height, tree in TREES.items()]
STATEMENTS = [
    TREES[5].statement(5, b"key0"),
    TREES[5].statement(5, b"absent"),
    TREES[6].statement(6, b"key7"),
    TREES[9].statement(9, b"key7"),
    TREES[9].statement(9, b"absent"),
]
SAMPLE = write_proof_file(CHAIN.trusted, BLOCKS, STATEMENTS)
ONE = Chain()
SMALL = write_proof_file(ONE.trusted, [ONE.light_block(9, TREES[9].root)], [TREES[9].statement(9, b"absent")])


def meaning(facts: VerifiedFacts) -> object:
    headers = {height: (header.hash, header.signers) for height, header in facts.headers.items()}
    return headers, dict(facts.values), facts.witness


def edited(**changes: Any) -> bytes:
    return dump(json.loads(SAMPLE) | changes)


def dump(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def refused(data: bytes, kind: type[FreeholdError] = CodecError, code: str = "not_canonical") -> None:
    with pytest.raises(kind) as caught:
        verify_proof_file(data, CHAIN.trusted)
    assert caught.value.code == code


def test_a_proof_file_shows_its_facts() -> None:
    facts = verify_proof_file(SAMPLE, CHAIN.trusted)
    assert facts.value(6, b"key7") == b"value 7 at 6"
    assert facts.value(9, b"key7") == b"value 7 at 9"
    assert facts.value(9, b"absent") is None
    assert facts.headers[9].time_ms == GENESIS_MS + 9000
    forgers = facts.forgers()
    assert facts.headers[9].signers.count == 4 and forgers is not None
    assert (forgers.count, forgers.validators, forgers.height, forgers.power) == (3, 4, 9, 30)
    with pytest.raises(NotVerifiedError) as caught:
        facts.value(9, b"key8")
    assert caught.value.code == "not_in_proof"


def test_it_has_one_form_whatever_the_order_it_was_given_in() -> None:
    assert write_proof_file(CHAIN.trusted, BLOCKS[::-1], STATEMENTS[::-1] * 2) == SAMPLE
    extra = CHAIN.light_block(77)
    assert write_proof_file(CHAIN.trusted, [*BLOCKS, extra], STATEMENTS) == SAMPLE
    assert dump(json.loads(SAMPLE)) == SAMPLE


def test_witness_entries_are_handed_out_unverified_and_in_order() -> None:
    data = write_proof_file(CHAIN.trusted, BLOCKS, STATEMENTS, [b"second", b"first"])
    assert verify_proof_file(data, CHAIN.trusted).witness == (b"second", b"first")


def test_another_genesis_refuses_it() -> None:
    with pytest.raises(NotVerifiedError) as caught:
        verify_proof_file(SAMPLE, Chain(chain_id="other").trusted)
    assert caught.value.code == "wrong_chain"
    with pytest.raises(NotVerifiedError) as caught:
        verify_proof_file(SAMPLE, Chain((10,) * 7).trusted)  # four of its seven signed
    assert caught.value.code == "not_enough_trust"


def test_the_clock_reaches_the_headers() -> None:
    verify_proof_file(SAMPLE, CHAIN.trusted, GENESIS_MS + 9_000 - CLOCK_DRIFT_MS + 1)
    with pytest.raises(NotVerifiedError) as caught:
        verify_proof_file(SAMPLE, CHAIN.trusted, GENESIS_MS + 9_000 - CLOCK_DRIFT_MS)
    assert caught.value.code == "header_from_future"


def test_other_forms_of_the_same_json_are_refused() -> None:
    document = json.loads(SAMPLE)
    refused(json.dumps(document, sort_keys=True).encode())
    refused(SAMPLE + b"\n")
    refused(b'{"chain_id":"test-chain",' + SAMPLE[1:])
    refused(json.dumps(dict(reversed(document.items())), separators=(",", ":")).encode())
    refused(SAMPLE.replace(b"test-chain", b"test\\u002dchain"))
    refused(edited(more=1), code="undecodable")
    refused(dump({key: value for key, value in document.items() if key != "witness"}), code="undecodable")
    refused(edited(format="freehold-proof/2"), code="unknown_format")
    refused(SAMPLE + b" " * (2 << 20), code="oversized")
    refused(SAMPLE + b" " * (48 * 1024))
    refused(b"[" * 10_000, code="undecodable")


def test_the_lists_are_ordered_unique_and_used() -> None:
    document = json.loads(SAMPLE)
    blocks, proofs = document["light_blocks"], document["proofs"]
    refused(edited(light_blocks=blocks[::-1]))
    refused(edited(light_blocks=[blocks[0], *blocks]))
    refused(edited(proofs=proofs[::-1]))
    refused(edited(proofs=[proofs[0], *proofs]))
    refused(edited(proofs=proofs[:3]))  # leaves block 9 above all proofs
    refused(edited(light_blocks=blocks[:2]))
    refused(edited(light_blocks=[], proofs=[]))


def test_texts_have_one_spelling() -> None:
    document = json.loads(SAMPLE)
    proof = document["proofs"][0]

    def first(**changes: Any) -> bytes:
        return edited(proofs=[proof | changes, *document["proofs"][1:]])

    for changes in (
        {"key": proof["key"].upper()},
        {"key": ""},
        {"key": proof["key"] + " "},
        {"value": "zz"},
        {"height": 0},
        {"height": -1},
        {"height": 1 << 60},
        {"commitment_proof": proof["commitment_proof"] + "\n"},
        {"commitment_proof": "===="},
    ):
        refused(first(**changes))
    refused(first(height=5.0), code="undecodable")
    refused(first(height="5"), code="undecodable")
    refused(first(value=None), code="undecodable")


def test_absence_and_values_are_not_mixed_up() -> None:
    chain, tree = CHAIN, TREES[9]
    block = chain.light_block(9, tree.root)
    present, absent = tree.statement(9, b"key7"), tree.statement(9, b"absent")
    for wrong in (
        replace(present, value=None),
        replace(absent, value=b"x"),
        Statement(9, b"other", None, absent.proof),
    ):
        with pytest.raises(InvalidInputError):
            write_proof_file(chain.trusted, [block], [wrong])
    hidden = Statement(9, b"key7", None, absence(b"key7", tree.exist(b"key6"), tree.exist(b"key8")))
    with pytest.raises(NotVerifiedError):
        verify_proof_file(write_proof_file(chain.trusted, [block], [hidden]), chain.trusted)
    changed = replace(present, value=b"value 8 at 9")
    with pytest.raises(NotVerifiedError):
        verify_proof_file(write_proof_file(chain.trusted, [block], [changed]), chain.trusted)


def test_a_light_block_out_of_normal_form_is_refused() -> None:
    document = json.loads(SAMPLE)
    block = LightBlock.decode(base64.b64decode(document["light_blocks"][0]))
    first = block.validator_set.validators[0]
    members = (replace(first, proposer_priority=5), *block.validator_set.validators[1:])
    for validators in (
        replace(block.validator_set, validators=members),
        replace(block.validator_set, proposer=block.validator_set.validators[1]),
        replace(block.validator_set, proposer=replace(first, voting_power=11)),
    ):
        loose = base64.b64encode(LightBlock(block.signed_header, validators).encode()).decode()
        refused(edited(light_blocks=[loose, *document["light_blocks"][1:]]))


def test_too_much_for_one_file_is_refused() -> None:
    with pytest.raises(InvalidInputError) as caught:
        write_proof_file(CHAIN.trusted, BLOCKS, STATEMENTS, [bytes(4096)] * 12)
    assert caught.value.code == "oversized"
    for witness in ([b""], [bytes(4097)]):
        with pytest.raises(InvalidInputError):
            write_proof_file(CHAIN.trusted, BLOCKS, STATEMENTS, witness)


def flips(data: bytes, positions: range, masks: Iterator[int] | tuple[int, ...]) -> Iterator[bytes]:
    for position in positions:
        for mask in masks:
            yield data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


def count_accepted(data: bytes, chain: Chain, variants: Iterator[bytes]) -> tuple[int, int]:
    wanted = meaning(verify_proof_file(data, chain.trusted))
    tried = accepted = 0
    for variant in variants:
        tried += 1
        try:
            facts = verify_proof_file(variant, chain.trusted)
        except (CodecError, NotVerifiedError):
            continue
        assert meaning(facts) == wanted, "a flipped byte changed what the proof says"
        accepted += 1
    return tried, accepted


def test_no_flipped_byte_is_accepted_at_all() -> None:
    tried, accepted = count_accepted(SMALL, ONE, flips(SMALL, range(len(SMALL)), (0x01,)))
    print(f"{tried} flips of a proof file of {len(SMALL)} bytes, {accepted} accepted")
    assert (tried, accepted) == (len(SMALL), 0)


def test_no_flipped_byte_is_accepted_with_four_validators() -> None:
    assert count_accepted(SAMPLE, CHAIN, flips(SAMPLE, range(0, len(SAMPLE), 7), (0x01,)))[1] == 0


def test_no_shortened_file_is_accepted() -> None:
    assert count_accepted(SMALL, ONE, (SMALL[:end] for end in range(0, len(SMALL), 3)))[1] == 0


@pytest.mark.long
def test_no_flipped_byte_is_accepted_with_any_bit_and_four_validators() -> None:
    every = (*(1 << bit for bit in range(8)), 0xFF)
    for data, chain in ((SMALL, ONE), (SAMPLE, CHAIN)):
        tried, accepted = count_accepted(data, chain, flips(data, range(len(data)), every))
        print(f"{tried} flips of a proof file of {len(data)} bytes, {accepted} accepted")
        assert accepted == 0


def lenient(action: Callable[[], object]) -> bool:
    try:
        action()
    except (CodecError, NotVerifiedError):
        return False
    return True


def test_the_flip_test_notices_a_verifier_that_looks_away() -> None:
    """The canary: the same flips against a reader that skips signatures and roots are accepted."""
    variants = flips(SMALL, range(0, len(SMALL), 7), (0x01,))
    assert any(lenient(lambda variant=variant: parse_proof_file(variant)) for variant in variants)  # type: ignore[misc]
