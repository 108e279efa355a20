"""`verify`: from a proof file and a genesis to statements that each carry one of four words; no network, no clock.

Spec: docs/spec/proofs.md.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from freehold.base.errors import CodecError, ExitCode, NotVerifiedError
from freehold.client.epoch_evidence import Word
from freehold.client.proof_facts import ProofFacts, read_facts
from freehold.client.proof_statements import Line, Statement, contract_lines, lease_statements, service_name
from freehold.ledger.lottery import most_left_out
from freehold.light.genesis import TrustedGenesis
from freehold.light.proof_file import verify_proof_file

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
        validators: how many that chain has.
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
            "trust": "genesis",
            "chain_id": self.chain_id,
        }
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


def verify_proof(data: bytes, trusted: TrustedGenesis, *, require: Word | None = None) -> Verdict:
    """Verify a proof file.

    Args:
        data: the file.
        trusted: the genesis; all trust comes from there.
        require: the weakest word that every epoch of service must carry.

    Returns:
        The verdict; a file that does not verify, or says less than is required, has a `problem`.
    """
    validators = len(trusted.validators.validators)
    try:
        facts = read_facts(verify_proof_file(data, trusted))
        statements: list[Statement] = []
        gaps: list[Line] = []
        contract: list[Line] = []
        for lease_id in sorted(facts.leases, key=lambda id_: (service_name(facts, id_), id_)):
            said, silent = lease_statements(facts, lease_id)
            statements += said
            gaps += silent
            contract += contract_lines(facts, lease_id)
    except (CodecError, NotVerifiedError) as error:
        problem = Problem(error.code, error.message, error.hint)
        return Verdict(trusted.chain_id, validators, assumes=_trust(trusted), problem=problem)
    return Verdict(
        chain_id=trusted.chain_id,
        validators=validators,
        height=facts.header.height,
        time_ms=facts.header.time_ms,
        statements=statements,
        gaps=gaps,
        contract=contract,
        assumes=_assumes(facts, statements),
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


def _trust(trusted: TrustedGenesis) -> list[str]:
    count = len(trusted.validators.validators)
    lines = [
        f"trust: genesis {trusted.digest.hex()[:16]} of {trusted.chain_id}: no two thirds of its validators ever "
        "sold their keys"
    ]
    if count == 1:
        lines.append("validators: 1: its operator can rewrite this ledger")
    else:
        lines.append(f"validators: {count}: two thirds of their power together can rewrite this ledger")
    return [*lines, _beacon_trust(trusted)]


def _beacon_trust(trusted: TrustedGenesis) -> str:
    """Say who can bend the draw of witnesses, by the form that genesis chose for the beacon."""
    powers = [member.voting_power for member in trusted.validators.validators]
    if "vrf" not in trusted.app_state:
        if len(powers) == 1:
            return "the validator can choose the witnesses"
        return "the validator that proposes an epoch's first block can choose the epoch's witnesses"
    if len(powers) == 1:
        return "the validator knows the witnesses of every epoch in advance"
    return (
        "witnesses are drawn by VRF outputs of more than two thirds of the validators' power: a proposer can "
        f"choose among at most {most_left_out(powers) + 1} draws with genesis' validators, more with several turns"
    )


def _assumes(facts: ProofFacts, statements: list[Statement]) -> list[str]:
    time = datetime.fromtimestamp(facts.header.time_ms / 1000, UTC)
    signers = facts.header.signers
    lines = [
        *_trust(facts.trusted),
        f"signed by {signers.count} of {signers.validators} validators; the proof speaks of the ledger at "
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
