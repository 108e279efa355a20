"""What the engine's words tell of why no block is made: of peers that are set up otherwise, and of a wrong clock.

The engine only goes on trying; its operator should hear what to do. Sources: CometBFT v0.38.25 p2p/node_info.go
(`CompatibleWith`), state/validation.go (`validateBlock`), node/node.go (genesis time).
"""

import time
from typing import Final

from freehold.base.errors import FreeholdError, InvalidInputError
from freehold.consensus.errors import EngineStoppedError

FAR_OFF_MS: Final = 10_000  # less is left to the fence, and to the median of the votes
_OTHER_CHAIN: Final = "peer is on a different network"
_OTHER_STATE: Final = (
    "wrong Block.Header.AppHash",
    "wrong Block.Header.ValidatorsHash",
    "wrong Block.Header.ConsensusHash",
)


def complaint(printed: bytes) -> FreeholdError | None:
    """Give the reason that the newest words of the engine name, if it is one of those known here.

    Args:
        printed: what it printed last.

    Returns:
        `other_chain` or `peers_disagree`, with what to do; None when it names neither.
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
