"""`verify`: from a proof file and a genesis to statements that each carry one of four words; no network.

The reader's clock, where it is given, refuses what is from the future, and trust that has expired.

Spec: docs/spec/proofs.md.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from freehold.base.errors import CodecError, ExitCode, NotVerifiedError
from freehold.client.epoch_evidence import Word
from freehold.client.forgers import beacon_line, forger_document, forger_lines
from freehold.client.proof_facts import ProofFacts, read_facts
from freehold.client.proof_statements import Line, Statement, contract_lines, lease_statements, service_name
from freehold.light.genesis import TrustedGenesis
from freehold.light.proof_file import VerifiedFacts, verify_proof_file
from freehold.light.trust import GENESIS_TRUST, Forgers, GenesisTrust, Trust, trust_period_ms
from freehold.light.verify import Signers

_EXPORT_AGAIN = "take nothing from this file: have it exported again, by somebody else if you can"
VERIFIED, NOT_VERIFIED = "verified", "not verified"


@dataclass(frozen=True)
class Problem:
    """Why a proof is not verified."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a proof shows.

    Attributes:
        chain_id: of the genesis that it was checked against.
        validators: how many made the header that was verified; 0 when none was.
        trust: the mode.
        signers: who signed that header; None when nothing was verified.
        forgers: the smallest group that could have made it up; None when the reader named its hash.
        owners: of validators, by public key, as far as the file names them.
        height: of the light block; 0 when nothing was verified.
        time_ms: of its header.
        statements: about the service, each with its word.
        gaps: epochs for which nobody claims service, or about which the file is silent.
        contract: what the ledger itself decided.
        assumes: what could make all this false.
        problem: why it is not verified; None when it is.
    """

    chain_id: str
    validators: int
    trust: Trust
    signers: Signers | None = None
    forgers: Forgers | None = None
    owners: dict[bytes, bytes] = field(default_factory=dict)
    height: int = 0
    time_ms: int = 0
    statements: list[Statement] = field(default_factory=list)
    gaps: list[Line] = field(default_factory=list)
    contract: list[Line] = field(default_factory=list)
    assumes: list[str] = field(default_factory=list)
    problem: Problem | None = None

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return ExitCode.DONE if self.problem is None else ExitCode.NOT_VERIFIED

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        document: dict[str, Any] = {
            "verdict": VERIFIED if self.problem is None else NOT_VERIFIED,
            "statements": [{"subject": s.subject, "word": s.word, "detail": s.detail} for s in self.statements],
            "gaps": [{"subject": line.subject, "detail": line.detail} for line in self.gaps],
            "contract": [{"subject": line.subject, "detail": line.detail} for line in self.contract],
            "validators": self.validators,
            "assumes": self.assumes,
            "trust": str(self.trust),
            "chain_id": self.chain_id,
        }
        if self.signers is not None:
            document["signers"] = msgspec.structs.asdict(self.signers)
            document["forgers"] = None if self.forgers is None else forger_document(self.forgers, self.owners)
        if self.height:
            document["height"] = self.height
            document["time"] = datetime.fromtimestamp(self.time_ms / 1000, UTC).isoformat(timespec="milliseconds")
        if self.problem is not None:
            document["problem"] = {
                "code": self.problem.code,
                "message": self.problem.message,
                "hint": self.problem.hint,
            }
        return document


def verify_proof(
    data: bytes,
    trusted: TrustedGenesis,
    *,
    require: Word | None = None,
    trust: Trust = GENESIS_TRUST,
    now_ms: int | None = None,
) -> Verdict:
    """Verify a proof file.

    Args:
        data: the file.
        trusted: the genesis of the chain.
        require: the weakest word that every epoch of service must carry.
        trust: where trust begins.
        now_ms: the reader's clock; None when there is none to trust, which a pinned header does not allow.

    Returns:
        The verdict; a file that does not verify, or says less than is required, has a `problem`.
    """
    try:
        verified = verify_proof_file(data, trusted, now_ms, trust=trust)
        facts = read_facts(verified)
        statements: list[Statement] = []
        gaps: list[Line] = []
        contract: list[Line] = []
        for lease_id in sorted(facts.leases, key=lambda id_: (service_name(facts, id_), id_)):
            said, silent = lease_statements(facts, lease_id)
            statements += said
            gaps += silent
            contract += contract_lines(facts, lease_id)
    except (CodecError, NotVerifiedError) as error:
        problem = Problem(error.code, error.message, error.hint or _EXPORT_AGAIN)
        return Verdict(trusted.chain_id, 0, trust, assumes=[_trust_line(trusted, trust)], problem=problem)
    forgers = verified.forgers(facts.owners)
    return Verdict(
        chain_id=trusted.chain_id,
        validators=facts.header.signers.validators,
        trust=trust,
        signers=facts.header.signers,
        forgers=forgers,
        owners=facts.owners,
        height=facts.header.height,
        time_ms=facts.header.time_ms,
        statements=statements,
        gaps=gaps,
        contract=contract,
        assumes=_assumes(facts, statements, verified, forgers),
        problem=None if require is None else _unmet(require, statements, gaps),
    )


def _unmet(require: Word, statements: list[Statement], gaps: list[Line]) -> Problem | None:
    """Whether an epoch of service, or one that should have been, falls short of what is required."""
    epochs = [statement for statement in statements if statement.is_epoch]
    short = [statement.subject for statement in epochs if not statement.level.is_at_least(require)]
    short += [line.subject for line in gaps if line.counts]
    if epochs and not short:
        return None
    message = f"{len(short)} epochs of service are not {require.value}: {', '.join(short[:3])}"
    if len(short) > len(short[:3]):
        message += ", .."
    return Problem(
        "requirement_not_met",
        message if short else f"the proof shows no epoch of service, so none is {require.value}",
        "the proof itself holds: without --require it says what it can",
    )


def _trust_line(trusted: TrustedGenesis, trust: Trust) -> str:
    if isinstance(trust, GenesisTrust):
        return (
            f"trust: genesis {trusted.digest.hex()[:16]} of {trusted.chain_id}: no two thirds of its validators, or of "
            "their successors, ever sold their keys"
        )
    hours = trust_period_ms(trusted) / 3_600_000
    return (
        f"trust: block {trust.height} of {trusted.chain_id}, {trust.hash.hex()[:16]}, as you named it, within the "
        f"trust period of {hours:.4g} h: less than a third of its validators' power is hostile"
    )


def _assumes(
    facts: ProofFacts, statements: list[Statement], verified: VerifiedFacts, forgers: Forgers | None
) -> list[str]:
    time = datetime.fromtimestamp(facts.header.time_ms / 1000, UTC)
    signers = facts.header.signers
    lines = [
        _trust_line(facts.trusted, verified.trust),
        *forger_lines(signers.validators, forgers, facts.owners),
        beacon_line(facts.trusted, verified.trace[-1].validators),
        f"signed by {signers.count} of {signers.validators} validators, who hold "
        f"{signers.power * 100 / signers.total_power:.4g} % of the power; the proof speaks of the ledger at "
        f"{time:%Y-%m-%d %H:%M:%S} UTC, not of now",
        "observed: something answered the witnesses under the node's key; that it is the tenant's image is claimed",
        "contract: decided by the ledger's rules and signed by its validators; no witness is needed or heard",
    ]
    if any(statement.on_ledgers_count for statement in statements):
        lines.append(
            "counted by the ledger: its rules counted the witnesses' reports when the epoch was claimed; this proof "
            "does not hold them all"
        )
    return lines
