"""What an operator should mend: why no block is made, as the engine's words tell it, a wrong clock, a lost place.

The engine only goes on trying; its operator should hear what to do. Sources: CometBFT v0.38.25 p2p/node_info.go
(`CompatibleWith`), state/validation.go (`validateBlock`), node/node.go (genesis time), node/setup.go
(`startStateSync`), statesync/syncer.go, light/errors.go, consensus/state.go (`reconstructLastCommit`).
"""

import time
from typing import Final

from freehold.base.errors import FreeholdError, InvalidInputError, NotVerifiedError, UnreachableError
from freehold.consensus.errors import EngineStoppedError
from freehold.ledger.records import Attendance
from freehold.ledger.state import decode_record

FAR_OFF_MS: Final = 10_000  # less is left to the fence, and to the median of the votes
_OTHER_CHAIN: Final = "peer is on a different network"
_OTHER_STATE: Final = (
    "wrong Block.Header.AppHash",
    "wrong Block.Header.ValidatorsHash",
    "wrong Block.Header.ConsensusHash",
)
_EXPIRED: Final = "old header has expired"
# Of a state without its votes, and of one without any block (blocksync/reactor.go); both only after a restore.
_CUT_OFF: Final = ("failed to reconstruct last extended commit", "and store (0) height mismatch")
_NO_PROVIDER: Final = "failed to set up light client state provider"
_OTHER_FORMAT: Final = "Snapshot format rejected"
_ACCEPTED: Final = "Snapshot accepted, restoring"
_RESTORED: Final = "Snapshot restored"
SYNC_FAILED: Final = "State sync failed"


def complaint(printed: bytes) -> FreeholdError | None:
    """Give the reason that the newest words of the engine name, if it is one of those known here.

    Args:
        printed: what it printed last.

    Returns:
        `other_chain`, `peers_disagree` or one of `restore_complaint`, with what to do; None when they name none.
    """
    tail = printed.decode(errors="replace")
    if any(words in tail for words in _OTHER_STATE):
        return EngineStoppedError(
            "the other validators' blocks do not follow from this one's genesis",
            code="peers_disagree",
            hint="compare the SHA-256 of genesis.json with theirs; begin in a new folder from the agreed document",
        )
    if _OTHER_CHAIN in tail:
        return EngineStoppedError(
            "a peer belongs to another chain",
            code="other_chain",
            hint="correct peers in validator.toml: its address is used by a validator of another chain",
        )
    return restore_complaint(tail)


def restore_complaint(tail: str) -> FreeholdError | None:
    """Give the reason that the engine's newest words name for a state sync that does not succeed.

    Args:
        tail: those words. What was said before a snapshot was restored is of the past, and other formats are of no
            matter once a snapshot of ours is accepted.

    Returns:
        `trust_expired`, `snapshot_version`, `restore_cut_off`, `servers_unusable` or `state_sync_failed`; or None.
    """
    tail = tail.rpartition(_RESTORED)[2]
    if _EXPIRED in tail:
        return NotVerifiedError(
            "the header that this home trusts for state sync is older than the trust period",
            code="trust_expired",
            hint="give the same `freehold ledger join` again: it takes a newer header",
        )
    if any(words in tail for words in _CUT_OFF):
        return EngineStoppedError(
            "the engine died after a restore and before its first block",
            code="restore_cut_off",
            hint="start the validator again: the restore begins anew; said again, its blocks are lost: join anew",
        )
    if _NO_PROVIDER in tail:
        return UnreachableError(
            "the servers of state_sync do not answer as they should, or do not know the trusted header",
            code="servers_unusable",
            hint="give `freehold ledger join` again with servers that answer: it checks them",
        )
    if _OTHER_FORMAT in tail.rpartition(_ACCEPTED)[2]:
        return EngineStoppedError(
            "the peers' snapshots are of another version than this program reads",
            code="snapshot_version",
            hint="install the release that they run, or empty state_sync in validator.toml to fetch all blocks",
        )
    if SYNC_FAILED in tail:
        return EngineStoppedError(
            "state sync failed",
            code="state_sync_failed",
            hint="engine/engine.log says why; it is tried again. Else `freehold ledger join` with other servers",
        )
    return None


def check_clock(begun_ms: int, now_ms: int | None = None) -> None:
    """Refuse to start with a clock that is far behind the ledger.

    Args:
        begun_ms: the time of the newest block that this home holds, or of genesis.
        now_ms: the wall clock; read when None.

    Raises:
        InvalidInputError: `clock_behind`.
    """
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    if now + FAR_OFF_MS < begun_ms:
        raise InvalidInputError(
            f"this machine's clock is {(begun_ms - now) / 1_000:.0f} s behind the ledger's newest block or genesis",
            code="clock_behind",
            hint="set the clock (`timedatectl set-ntp true`), or wait until genesis' time; then start again",
        )


def absence(record: bytes | None, validator: bytes) -> FreeholdError | None:
    """Give `validator_absent` when a validator lost its place in the table because it did not sign.

    Args:
        record: the state's `Attendance`, encoded; None where nobody counts.
        validator: its public key.
    """
    if record is None:
        return None
    era = dict(decode_record(record, Attendance).absent).get(validator)
    if era is None:
        return None
    return InvalidInputError(
        f"this validator signed too few blocks and lost its place in era {era}: its votes count for nothing",
        code="validator_absent",
        hint=f"once it follows the chain, its owner puts it back: `freehold ledger rejoin {validator.hex()}`",
    )
