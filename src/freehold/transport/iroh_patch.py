"""The fix of the binding's slow writer, kept apart, for the pinned version of `iroh` only.

`iroh` 1.2.0 copies every byte that is sent in a Python loop (about 7 MiB/s and 130 s of CPU per GiB). The method is
replaced by one `memmove`. `self_check` shows at start that the replacement is in place, writes the right bytes and is
fast; without it nothing may be sent.
"""

import ctypes
import time
from importlib.metadata import version
from typing import Any

from iroh import iroh_ffi

from freehold.base.errors import LocalProtocolError

PINNED_VERSION = "1.2.0"
_CHECK_SIZES = (0, 1, 15, 16, 17, 4_096, 65_537)
_SPEED_BYTES = 1 << 20
_SPEED_LIMIT_S = 0.025  # of CPU for 1 MiB; the loop takes 0.1 s or more, the copy 0.0002 s

_Builder: Any = iroh_ffi._UniffiRustBufferBuilder  # private and untyped: the reason why the version is pinned
_original_write = _Builder.write


def _write(builder: Any, value: bytes) -> None:
    size = len(value)
    if size == 0:
        return
    with builder._reserve(size):
        start = ctypes.cast(builder.rbuf.data, ctypes.c_void_p).value or 0
        ctypes.memmove(start + builder.rbuf.len, bytes(value), size)


def apply() -> None:
    """Replace the slow writer; calling it again changes nothing.

    Raises:
        LocalProtocolError: another version of iroh is installed (code `iroh_version`).
    """
    found = version("iroh")
    if found != PINNED_VERSION:
        raise LocalProtocolError(
            f"iroh {found} is installed, this code was checked with {PINNED_VERSION}",
            code="iroh_version",
            hint=f"install iroh=={PINNED_VERSION}, or review transport/iroh_patch.py against {found} and move the pin",
        )
    _Builder.write = _write


def remove() -> None:
    """Put the original writer back, for measurements and tests."""
    _Builder.write = _original_write


def self_check() -> None:
    """Show that the fast writer is in place and right.

    Raises:
        LocalProtocolError: it is not in place (code `iroh_patch_missing`), writes other bytes
            (`iroh_patch_wrong`), or is slow (`iroh_patch_slow`).
    """
    if _Builder.write is not _write:
        raise _failed("iroh_patch_missing", "the binding's slow writer is in place")
    for size in _CHECK_SIZES:
        pattern = bytes(i * 31 % 251 for i in range(size))
        if _written(b"head", pattern, b"tail") != b"head" + pattern + b"tail":
            raise _failed("iroh_patch_wrong", f"writing {size} bytes through the patched writer changed them")
    data = bytes(_SPEED_BYTES)
    if min(_cpu_seconds(data) for _ in range(3)) > _SPEED_LIMIT_S:
        raise _failed("iroh_patch_slow", "the patched writer copies slower than 40 MiB/s")


def _written(*parts: bytes) -> bytes:
    builder = _Builder()
    try:
        for part in parts:
            builder.write(part)
        return bytes(builder.rbuf.data[0 : builder.rbuf.len])
    finally:
        builder.discard()


def _cpu_seconds(data: bytes) -> float:
    builder = _Builder()
    try:
        before = time.thread_time()
        builder.write(data)
        return time.thread_time() - before
    finally:
        builder.discard()


def _failed(code: str, message: str) -> LocalProtocolError:
    return LocalProtocolError(
        message,
        code=code,
        hint=f"reinstall iroh=={PINNED_VERSION}; nothing else may replace _UniffiRustBufferBuilder.write",
    )
