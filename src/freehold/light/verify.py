"""Verification of commits and light blocks.

Rule-set 1: one fixed validator set, that of genesis. A header signed by more than two thirds of its power is accepted
at any height, so a proof needs no chain of headers. Assumes that no two thirds of these validators sold their keys.
Sets that change are verified hop by hop in `freehold.light.skipping`, which shares `verify_commit`: it takes any set.

Spec: docs/spec/light-client.md. Source: CometBFT types/validation.go `VerifyCommit`, light/verifier.go.
"""

from enum import StrEnum
from typing import NoReturn

import msgspec

from freehold.base.errors import NotVerifiedError
from freehold.crypto import ed25519
from freehold.light.genesis import TrustedGenesis
from freehold.light.headers import address_of, header_hash, precommit_sign_bytes, sort_validators, validators_hash
from freehold.light.types import (
    ADDRESS_BYTES,
    BLOCK_PROTOCOL,
    BlockID,
    BlockIDFlag,
    Commit,
    Header,
    LightBlock,
    ValidatorSet,
)

MAX_TOTAL_POWER = ((1 << 63) - 1) // 8  # CometBFT's MaxTotalVotingPower


class Refusal(StrEnum):
    """Why a commit or light block is refused: the `code` of the error. Append-only."""

    WRONG_CHAIN = "wrong_chain"
    BAD_VALIDATOR_SET = "bad_validator_set"
    VALIDATOR_SET_MISMATCH = "validator_set_mismatch"
    BAD_HEADER = "bad_header"
    BAD_HEADER_HASH = "bad_header_hash"
    HEADER_BEFORE_GENESIS = "header_before_genesis"
    HEADER_FROM_FUTURE = "header_from_future"
    WRONG_COMMIT = "wrong_commit"
    WRONG_SIGNER = "wrong_signer"
    DOUBLE_VOTE = "double_vote"
    BAD_SIGNATURE = "bad_signature"
    NOT_ENOUGH_POWER = "not_enough_power"
    NOT_ENOUGH_TRUST = "not_enough_trust"
    TRUST_EXPIRED = "trust_expired"
    HEIGHT_NOT_ABOVE = "height_not_above"
    TIME_NOT_AFTER = "time_not_after"
    WRONG_HEIGHT = "wrong_height"
    TRUST_ROOT_MISMATCH = "trust_root_mismatch"
    TOO_MANY_STEPS = "too_many_steps"


class Signers(msgspec.Struct, frozen=True):
    """Who signed a block, by number and by power."""

    count: int
    validators: int
    power: int
    total_power: int


class VerifiedHeader(msgspec.Struct, frozen=True):
    """A header that more than two thirds of the trusted power signed."""

    header: Header
    hash: bytes
    signers: Signers

    @property
    def height(self) -> int:
        """The header's height."""
        return self.header.height

    @property
    def time_ms(self) -> int:
        """The header's time, whole milliseconds since the Unix epoch."""
        return self.header.time.ms

    @property
    def app_hash(self) -> bytes:
        """The root of the state after the block before."""
        return self.header.app_hash


def check_validator_set(validators: ValidatorSet) -> int:
    """Check that a set is well formed: addresses match keys, no member twice, powers positive, in order.

    Returns:
        The total power.

    Raises:
        NotVerifiedError: `bad_validator_set`.
    """
    members = validators.validators
    total = sum(member.voting_power for member in members)
    if not members or any(member.voting_power <= 0 for member in members) or total > MAX_TOTAL_POWER:
        _refuse(Refusal.BAD_VALIDATOR_SET, "the validator set has no members, or powers out of range")
    if any(member.address != address_of(member.pub_key.ed25519) for member in members):
        _refuse(Refusal.BAD_VALIDATOR_SET, "a validator's address does not belong to its key")
    if len({member.address for member in members}) != len(members):
        _refuse(Refusal.BAD_VALIDATOR_SET, "a validator stands twice in the set")
    if sort_validators(members) != members:
        _refuse(Refusal.BAD_VALIDATOR_SET, "the validators are not in order of power")
    return total


def verify_commit(
    chain_id: str, validator_set: ValidatorSet, block_id: BlockID, height: int, commit: Commit
) -> Signers:
    """Check that more than two thirds of a set's power signed a block.

    Every signature that is there must verify (ZIP-215), also one for nil; only those for the block count, each
    validator once, at its own place.

    Args:
        chain_id: goes into what is signed.
        validator_set: the members who may sign, in the set's order.
        block_id: the block.
        height: of the block.
        commit: what is checked.

    Raises:
        NotVerifiedError: with a `Refusal` as code.
    """
    total = check_validator_set(validator_set)
    members = validator_set.validators
    if commit.height != height or commit.block_id != block_id or block_id.is_nil:
        _refuse(Refusal.WRONG_COMMIT, f"the commit is not for block {height}")
    if len(commit.signatures) != len(members):
        _refuse(Refusal.WRONG_COMMIT, f"the commit has {len(commit.signatures)} entries for {len(members)} validators")
    seen: set[bytes] = set()
    count = power = 0
    for member, entry in zip(members, commit.signatures, strict=True):
        if entry.block_id_flag == BlockIDFlag.ABSENT:
            continue
        if entry.validator_address in seen:
            _refuse(Refusal.DOUBLE_VOTE, f"validator {entry.validator_address.hex()} stands twice in the commit")
        seen.add(entry.validator_address)
        if entry.validator_address != member.address:
            _refuse(Refusal.WRONG_SIGNER, f"the entry of validator {member.address.hex()} names another")
        for_block = entry.block_id_flag == BlockIDFlag.COMMIT
        voted = block_id if for_block else None
        message = precommit_sign_bytes(chain_id, height, commit.round, voted, entry.timestamp)
        if not ed25519.verify(member.pub_key.ed25519, message, entry.signature):
            _refuse(Refusal.BAD_SIGNATURE, f"the signature of validator {member.address.hex()} is wrong")
        if for_block:
            count, power = count + 1, power + member.voting_power
    if power * 3 <= total * 2:
        _refuse(Refusal.NOT_ENOUGH_POWER, f"{power} of {total} power signed, more than two thirds are needed")
    return Signers(count, len(members), power, total)


def verify_light_block(
    light_block: LightBlock, trusted: TrustedGenesis, now_ms: int | None = None, *, allowance_ms: int = 0
) -> VerifiedHeader:
    """Check a light block against genesis, by rule-set 1.

    Args:
        light_block: what is checked.
        trusted: where trust comes from.
        now_ms: the reader's clock; None when there is none to trust (offline).
        allowance_ms: how far a header may be ahead of that clock (D of the preset).

    Raises:
        NotVerifiedError: with a `Refusal` as code.
    """
    header, commit = light_block.signed_header.header, light_block.signed_header.commit
    _check_header(header, trusted)
    if now_ms is not None and header.time.ms > now_ms + allowance_ms:
        _refuse(
            Refusal.HEADER_FROM_FUTURE,
            f"header {header.height} is {header.time.ms - now_ms} ms ahead of this machine's clock",
            hint="set the clock of this machine",
        )
    _check_fixed_set(light_block, trusted)
    digest = header_hash(header)
    if digest != commit.block_id.hash:
        _refuse(Refusal.BAD_HEADER_HASH, f"the commit is not for the header of height {header.height}")
    signers = verify_commit(trusted.chain_id, light_block.validator_set, commit.block_id, header.height, commit)
    return VerifiedHeader(header, digest, signers)


def _check_header(header: Header, trusted: TrustedGenesis) -> None:
    if header.chain_id != trusted.chain_id:
        _refuse(
            Refusal.WRONG_CHAIN,
            f"the header is of chain {header.chain_id!r}, genesis of {trusted.chain_id!r}",
            hint="use the genesis file of the grid that made this",
        )
    if header.version.block != BLOCK_PROTOCOL or len(header.proposer_address) != ADDRESS_BYTES:
        _refuse(Refusal.BAD_HEADER, "the header has another block version, or no proposer")
    if header.height < trusted.initial_height or header.time.ms < trusted.genesis_time_ms:
        _refuse(Refusal.HEADER_BEFORE_GENESIS, f"header {header.height} is older than genesis")


def _check_fixed_set(light_block: LightBlock, trusted: TrustedGenesis) -> None:
    header, members = light_block.header, light_block.validator_set.validators
    expected = trusted.validators_hash
    if header.validators_hash != expected or header.next_validators_hash != expected:
        _refuse(Refusal.VALIDATOR_SET_MISMATCH, f"header {header.height} names other validators than genesis")
    if validators_hash(members) != expected:
        _refuse(Refusal.VALIDATOR_SET_MISMATCH, "the light block brings other validators than genesis")
    proposer = light_block.validator_set.proposer
    if not any(proposer.address == member.address and proposer.pub_key == member.pub_key for member in members):
        _refuse(Refusal.BAD_VALIDATOR_SET, "the proposer is no member of the validator set")


def _refuse(reason: Refusal, message: str, *, hint: str = "") -> NoReturn:
    raise NotVerifiedError(message, code=reason.value, hint=hint)
