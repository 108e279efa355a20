"""What a client remembers between runs: its newest verified light block, and evidence that servers told two stories.

One small file for each genesis and trust mode, written so that a crash leaves the old or the new one whole. It is not
believed blindly: it must name the chain's genesis and the mode, and be signed by two thirds of its own set.
Spec: docs/spec/light-client.md.
"""

import base64
import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import CodecError, InvalidInputError, NotVerifiedError
from freehold.light.blocks import LightClientAttackEvidence
from freehold.light.divergence import Divergence, story_text
from freehold.light.genesis import TrustedGenesis
from freehold.light.headers import header_hash
from freehold.light.skipping import TrustedState
from freehold.light.trust import Trust, trust_signed
from freehold.light.types import LightBlock
from freehold.lightclient.private_file import write_private

FORMAT: Final = "freehold-trust/1"
EVIDENCE_FORMAT: Final = "freehold-divergence/1"
MAX_EVIDENCE_FILES: Final = 16
_MAX_FILE_BYTES = 1 << 20


class _TrustFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    chain_id: str
    genesis: str
    trust: str
    light_block: str


class _Side(msgspec.Struct, frozen=True):
    server: str
    story: str  # for people: the block's hash, app hash and signers
    light_block: str
    evidence: str | None  # CometBFT's LightClientAttackEvidence against whoever signed it


class _EvidenceFile(msgspec.Struct, frozen=True):
    format: str
    chain_id: str
    kind: str
    common_height: int
    height: int
    primary: _Side
    witness: _Side


class TrustStore:
    """The memory of one trust mode on one chain, in a folder."""

    def __init__(self, folder: Path, genesis: TrustedGenesis, trust: Trust) -> None:
        self._folder = folder
        self._genesis = genesis
        self._trust = trust
        self._saved = 0  # height on disk, as far as is known

    @property
    def path(self) -> Path:
        """The file: `genesis-..` or `HEIGHT-..`, with the beginning of the genesis digest."""
        mode = str(self._trust).replace(":", "-")[:24]
        return self._folder / f"{mode}-{self._genesis.digest.hex()[:16]}.json"

    def load(self) -> TrustedState | None:
        """The newest light block that an earlier run verified; None when there was none.

        Raises:
            InvalidInputError: `trust_damaged`, or `trust_other_chain`.
        """
        state = self._read()
        self._saved = 0 if state is None else state.height
        return state

    def _read(self) -> TrustedState | None:
        try:
            with self.path.open("rb") as file:
                data = file.read(_MAX_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._refusal(f"cannot be read: {error.strerror}", "trust_damaged") from None
        try:
            stored = decode_json(data, _TrustFile)
            raw = base64.b64decode(stored.light_block, validate=True)
        except (ValueError, RecursionError):
            raise self._refusal("is damaged", "trust_damaged") from None
        if stored.format != FORMAT:
            raise self._refusal("is of another version", "trust_damaged")
        named = (stored.chain_id, stored.genesis, stored.trust)
        if named != (self._genesis.chain_id, self._genesis.digest.hex(), str(self._trust)):
            raise self._refusal("is of another chain, or of another trust", "trust_other_chain")
        try:
            return trust_signed(LightBlock.decode(raw), self._genesis.chain_id)
        except (CodecError, NotVerifiedError) as error:
            raise self._refusal(f"is damaged: {error.message}", "trust_damaged") from None

    def save(self, state: TrustedState) -> None:
        """Remember a verified light block, unless the one on disk is as high: several commands may share a home.

        Raises:
            OSError: it cannot be written.
            InvalidInputError: what is there was damaged meanwhile, or is of another chain; it stands.
        """
        if state.light_block is None or state.height <= self._saved:
            return
        with _alone_in(self._folder):
            known = self._read()
            if known is None or known.height < state.height:
                self._write(state.light_block)
        self._saved = state.height

    def _write(self, light_block: LightBlock) -> None:
        stored = _TrustFile(
            FORMAT,
            self._genesis.chain_id,
            self._genesis.digest.hex(),
            str(self._trust),
            _base64(light_block.encode()),
        )
        write_private(self.path, msgspec.json.encode(stored))

    def keep_evidence(self, divergence: Divergence, primary_url: str, witness_url: str) -> Path | None:
        """Keep both stories of a divergence; the same one is kept once, and at most `MAX_EVIDENCE_FILES`.

        Returns:
            The file; None when there is no room for it.

        Raises:
            OSError: it cannot be written.
        """
        height = divergence.primary.header.height
        names = sorted(header_hash(block.header).hex()[:8] for block in (divergence.primary, divergence.witness))
        path = self._folder / f"divergence-{height}-{'-'.join(names)}.json"
        if path.exists():
            return path
        if len(list(self._folder.glob("divergence-*.json"))) >= MAX_EVIDENCE_FILES:
            return None
        stored = _EvidenceFile(
            EVIDENCE_FORMAT,
            self._genesis.chain_id,
            divergence.kind.value,
            divergence.common_height,
            height,
            _side(primary_url, divergence.primary, divergence.against_primary),
            _side(witness_url, divergence.witness, divergence.against_witness),
        )
        write_private(path, msgspec.json.format(msgspec.json.encode(stored), indent=1))
        return path

    def _refusal(self, what: str, code: str) -> InvalidInputError:
        return InvalidInputError(
            f"the remembered light block at {self.path} {what}",
            code=code,
            hint=f"remove that file: trust then begins anew at {str(self._trust)[:40]}",
        )


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes, for as long as a small file is read and written."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _side(url: str, block: LightBlock, evidence: LightClientAttackEvidence | None) -> _Side:
    return _Side(
        url, story_text(block), _base64(block.encode()), None if evidence is None else _base64(evidence.encode())
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
