"""The only module that draws randomness; everything else is given bytes or takes them from here.

Invariant: all randomness comes from the kernel's generator. Spec: docs/spec/keys.md.
"""

import secrets

from freehold.base.errors import check

_MAX_BYTES = 1 << 20


def random_bytes(count: int) -> bytes:
    """Draw unpredictable bytes.

    Args:
        count: how many, 1 to 2^20.

    Raises:
        InvariantError: count is out of range.
    """
    check(1 <= count <= _MAX_BYTES, "random_count_in_range", count=count)
    return secrets.token_bytes(count)


def random_below(bound: int) -> int:
    """Draw a whole number uniformly from 0 to bound - 1.

    Args:
        bound: at least 1.

    Raises:
        InvariantError: bound is below 1.
    """
    check(bound >= 1, "random_bound_positive", bound=bound)
    return secrets.randbelow(bound)
