"""Verification of commits: did more than two thirds of a validator set sign this block?

Which set may be asked is for `freehold.light.skipping`: it leads from what is trusted to any height, hop by hop.

Spec: docs/spec/light-client.md. Source: CometBFT types/validation.go `VerifyCommit`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NoReturn

import msgspec

from freehold.base.errors import NotVerifiedError
from freehold.crypto import ed25519
from freehold.light.headers import address_of, precommit_sign_bytes, sort_validators
from freehold.light.types import (
    BlockID,
    BlockIDFlag,
    Commit,
    Header,
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


_ELSEWHERE = "take nothing from it, and get it from another server or exporter"
_NEXT: Mapping[Refusal, str] = {
    Refusal.WRONG_CHAIN: "use the genesis file of the grid that made this, or ask a server of your own grid",
    Refusal.VALIDATOR_SET_MISMATCH: f"its validators are made up, or your genesis is another grid's: {_ELSEWHERE}",
    Refusal.HEADER_FROM_FUTURE: f"set the clock of this machine; when it is right, {_ELSEWHERE}",
    Refusal.DOUBLE_VOTE: f"somebody counts one vote twice: {_ELSEWHERE}",
    Refusal.NOT_ENOUGH_POWER: f"too few validators stand behind it: {_ELSEWHERE}",
    Refusal.NOT_ENOUGH_TRUST: "verify a height between first",
    Refusal.TRUST_EXPIRED: "trust a newer HEIGHT:HASH, from somebody you believe",
    Refusal.TRUST_ROOT_MISMATCH: "ask another server, and look again at where the HEIGHT:HASH came from",
    Refusal.TOO_MANY_STEPS: "trust a newer HEIGHT:HASH",
}


def next_step(reason: Refusal) -> str:
    """What whoever meets a refusal should do."""
    return _NEXT.get(reason, f"it is made up or damaged: {_ELSEWHERE}")


def refuse(reason: Refusal, message: str) -> NoReturn:
    """Refuse a commit, light block or hop.

    Raises:
        NotVerifiedError: always; with the reason as code, and what to do next.
    """
    raise NotVerifiedError(message, code=reason.value, hint=next_step(reason))


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
        refuse(Refusal.BAD_VALIDATOR_SET, "the validator set has no members, or powers out of range")
    if any(member.address != address_of(member.pub_key.ed25519) for member in members):
        refuse(Refusal.BAD_VALIDATOR_SET, "a validator's address does not belong to its key")
    if len({member.address for member in members}) != len(members):
        refuse(Refusal.BAD_VALIDATOR_SET, "a validator stands twice in the set")
    if sort_validators(members) != members:
        refuse(Refusal.BAD_VALIDATOR_SET, "the validators are not in order of power")
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
        refuse(Refusal.WRONG_COMMIT, f"the commit is not for block {height}")
    if len(commit.signatures) != len(members):
        refuse(Refusal.WRONG_COMMIT, f"the commit has {len(commit.signatures)} entries for {len(members)} validators")
    seen: set[bytes] = set()
    count = power = 0
    for member, entry in zip(members, commit.signatures, strict=True):
        if entry.block_id_flag == BlockIDFlag.ABSENT:
            continue
        if entry.validator_address in seen:
            refuse(Refusal.DOUBLE_VOTE, f"validator {entry.validator_address.hex()} stands twice in the commit")
        seen.add(entry.validator_address)
        if entry.validator_address != member.address:
            refuse(Refusal.WRONG_SIGNER, f"the entry of validator {member.address.hex()} names another")
        for_block = entry.block_id_flag == BlockIDFlag.COMMIT
        voted = block_id if for_block else None
        message = precommit_sign_bytes(chain_id, height, commit.round, voted, entry.timestamp)
        if not ed25519.verify(member.pub_key.ed25519, message, entry.signature):
            refuse(Refusal.BAD_SIGNATURE, f"the signature of validator {member.address.hex()} is wrong")
        if for_block:
            count, power = count + 1, power + member.voting_power
    if power * 3 <= total * 2:
        refuse(Refusal.NOT_ENOUGH_POWER, f"{power} of {total} power signed, more than two thirds are needed")
    return Signers(count, len(members), power, total)
