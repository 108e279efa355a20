"""The operations of ICS-23: how a leaf and an inner node are hashed.

All hashes of cosmos/ics23's Go library are here, so that its tables run; the specs that we verify against use SHA-256.
Source: cosmos/ics23 go/ops.go.
"""

import hashlib
from collections.abc import Callable
from typing import NoReturn

from freehold.base.errors import NotVerifiedError
from freehold.light.ics23_messages import HashOp, InnerOp, LeafOp, LengthOp
from freehold.light.wire import encode_varint


def refuse(what: str, message: str) -> NoReturn:
    """Refuse a proof.

    Args:
        what: the last part of the code, such as `root` for `proof_root`.
        message: what is wrong.

    Raises:
        NotVerifiedError: always.
    """
    raise NotVerifiedError(message, code=f"proof_{what}", hint="ask for the proof again, from another server")


def apply_leaf(op: LeafOp, key: bytes, value: bytes) -> bytes:
    """Hash a leaf.

    Raises:
        NotVerifiedError: `proof_spec`: key or value is empty, or the operation is not known.
    """
    if not key or not value:
        refuse("spec", "a leaf needs a key and a value")
    framed_key = _framed(op.length, prehashed(op.prehash_key, key))
    framed_value = _framed(op.length, prehashed(op.prehash_value, value))
    return hash_with(op.hash, op.prefix + framed_key + framed_value)


def apply_inner(op: InnerOp, child: bytes) -> bytes:
    """Hash an inner node around the hash of a child.

    Raises:
        NotVerifiedError: `proof_spec`: there is no child, or the operation is not known.
    """
    if not child:
        refuse("spec", "a step needs a child")
    return hash_with(op.hash, op.prefix + child + op.suffix)


def hash_with(op: int, data: bytes) -> bytes:
    """Hash data by a `HashOp`.

    Raises:
        NotVerifiedError: `proof_spec`: no such hash here.
    """
    hasher = _HASHES.get(op)
    if hasher is None:
        refuse("spec", f"hash operation {op} is not known")
    return hasher(data)


def _from_openssl(name: str, data: bytes) -> bytes:
    try:
        return hashlib.new(name, data).digest()
    except ValueError:
        refuse("spec", f"{name} is not offered by this machine's OpenSSL")


_HASHES: dict[int, Callable[[bytes], bytes]] = {
    HashOp.SHA256: lambda data: hashlib.sha256(data).digest(),
    HashOp.SHA512: lambda data: hashlib.sha512(data).digest(),
    HashOp.RIPEMD160: lambda data: _from_openssl("ripemd160", data),
    HashOp.BITCOIN: lambda data: _from_openssl("ripemd160", hashlib.sha256(data).digest()),
    HashOp.SHA512_256: lambda data: _from_openssl("sha512_256", data),
    HashOp.BLAKE2B_512: lambda data: hashlib.blake2b(data).digest(),
    HashOp.BLAKE2S_256: lambda data: hashlib.blake2s(data).digest(),
}


def prehashed(op: int, data: bytes) -> bytes:
    """Hash data unless the operation is `NO_HASH`."""
    return data if op == HashOp.NO_HASH else hash_with(op, data)


_REQUIRED_LENGTHS: dict[int, int] = {LengthOp.REQUIRE_32_BYTES: 32, LengthOp.REQUIRE_64_BYTES: 64}


def _framed(op: int, data: bytes) -> bytes:
    if op == LengthOp.NO_PREFIX:
        return data
    if op == LengthOp.VAR_PROTO:
        return encode_varint(len(data)) + data
    if op in (LengthOp.FIXED32_BIG, LengthOp.FIXED32_LITTLE):
        return len(data).to_bytes(4, "big" if op == LengthOp.FIXED32_BIG else "little") + data
    if op in (LengthOp.FIXED64_BIG, LengthOp.FIXED64_LITTLE):
        return len(data).to_bytes(8, "big" if op == LengthOp.FIXED64_BIG else "little") + data
    if len(data) != _REQUIRED_LENGTHS.get(op):
        refuse("spec", f"length operation {op} is not known or does not fit")
    return data
