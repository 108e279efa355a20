"""`freehold verify`: is it really served as agreed? Online it makes a proof, offline it needs the proof and genesis."""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from freehold.base.errors import InvalidInputError
from freehold.base.ids import parse_id
from freehold.base.limits import MAX_PROOF_FILE_BYTES, MAX_PROOF_HOPS_BYTES
from freehold.cli.output import Json, Result, Table, say
from freehold.client import wallet as wallets
from freehold.client.epoch_evidence import Word
from freehold.client.home import Home
from freehold.client.mailboxes import ask_mailboxes
from freehold.client.nodes import NodeClient
from freehold.client.proving import export_proof
from freehold.client.running import find_service, list_services
from freehold.client.session import Session
from freehold.client.verifying import Verdict, verify_proof
from freehold.crypto.strkey import decode_account
from freehold.light.genesis import TrustedGenesis
from freehold.light.trust import Trust, parse_trust
from freehold.lightclient.servers import wall_ms
from freehold.lightclient.trusted_chain import Comparison

_LEASE_DIGITS = 64
_PROOF_MODE = 0o644  # public by its nature


def verify(
    target: str,
    /,
    *,
    export: Path | None = None,
    genesis: Path | None = None,
    require: str | None = None,
    trust: str | None = None,
    mailbox: Annotated[bool, Parameter(name="", negative="--no-mailbox")] = True,
    json: Json = False,
) -> Result:
    """Verify what was served: of a service of yours as the ledger stands now, or from a proof file, offline.

    Each statement carries a word, never a stronger one than the evidence: `claimed` (the node says so, signed),
    `observed 3/3` (so many of the witnesses that were drawn saw it), `attested` (a hardware quote), `reproduced` (your
    own machine repeated it). A proof file needs no grid: only the file and the genesis.

    Parameters
    ----------
    target
        A service (guestbook/web), a lease id of 64 hex digits, or a proof file.
    export
        Write the proof to this file, for others.
    genesis
        The genesis that is trusted; your own when left out.
    require
        claimed, observed, attested or reproduced: exit 5 unless every epoch of service is at least that.
    trust
        genesis: checked from genesis alone; assumes that no two thirds of past validators sold their keys. HEIGHT:HASH:
        from that header, which you have from somebody you believe, no older than the chain's trust period; an online
        export then begins there. FREEHOLD_TRUST says the same for every command.
    mailbox
        Do not ask the nodes for signed answers; then no passphrase is needed.
    """
    word = _word(require)
    home = Home.default()
    trusted = home.genesis(genesis)
    mode = home.trust() if trust is None else parse_trust(trust)
    if export is None and _names_a_file(target):
        return _result(verify_proof(_read(Path(target)), trusted, require=word, trust=mode, now_ms=wall_ms()))
    data = asyncio.run(_export(home, trusted, target, mode, with_mailbox=mailbox))
    verdict = verify_proof(data, trusted, require=word, trust=mode, now_ms=wall_ms())
    if export is None:
        return _result(verdict)
    try:
        home.write(export, data)
        export.chmod(_PROOF_MODE)
    except OSError as error:
        raise InvalidInputError(f"cannot write {export}: {error.strerror}", code="cannot_write") from None
    say(f"proof of {len(data)} bytes written to {export}; it verifies anywhere with the genesis file alone")
    return _result(verdict, export, len(data))


def _word(text: str | None) -> Word | None:
    if text is None:
        return None
    try:
        return Word(text)
    except ValueError:
        raise InvalidInputError(
            f"--require {text[:40]!r} is no word", code="bad_usage", hint=f"use one of {', '.join(Word)}"
        ) from None


def _names_a_file(target: str) -> bool:
    """Whether a target is a proof file. Services have no file name ending and no leading dot or slash."""
    if Path(target).is_file():
        return True
    if target.startswith((".", "/")) or target.endswith(".json"):
        raise InvalidInputError(f"no file {target[:200]}", code="no_file", hint="name a proof file or a service")
    return False


def _read(path: Path) -> bytes:
    """One byte more than may be: longer files are refused by their reader, and never read whole."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_PROOF_FILE_BYTES + MAX_PROOF_HOPS_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}", code="no_file") from None


async def _export(home: Home, trusted: TrustedGenesis, target: str, trust: Trust, *, with_mailbox: bool) -> bytes:
    wallet = _wallet(home) if with_mailbox else None
    session = Session(home, wallet, trust)
    try:
        if session.ledger.genesis.digest != trusted.digest:
            raise InvalidInputError(
                "--genesis names another genesis than the home's",
                code="wrong_genesis",
                hint="the home's genesis is what the ledger is read with; leave --genesis out",
            )
        lease_id = await _lease_of(session, home, target)
        if wallet is None:
            return await export_proof(session.ledger, trusted, lease_id)
        async with NodeClient(session, wallet) as nodes:
            ask = partial(ask_mailboxes, nodes, lambda line: say(f"note: {line}"))
            return await export_proof(session.ledger, trusted, lease_id, ask)
    finally:
        _say_comparison(session.ledger.comparison)
        await session.close()


def _say_comparison(comparison: Comparison | None) -> None:
    if comparison is None:
        return
    asked = comparison.agreed + comparison.behind + comparison.silent + comparison.refused + comparison.apart
    say(
        f"note: {comparison.agreed} of {asked} other servers show the same block {comparison.height}; "
        f"{comparison.behind} are behind, {comparison.silent} silent, {comparison.refused} told what does not verify, "
        f"{comparison.apart} are too far behind to be compared"
    )


def _wallet(home: Home) -> wallets.Wallet | None:
    """The wallet, whose endpoint key opens the mailboxes; without one, or unasked, the proof has no signed answers."""
    if not home.wallet_path.exists():
        return None
    if not os.environ.get("FREEHOLD_PASSPHRASE_FILE") and not sys.stdin.isatty():
        say("note: no passphrase, so no signed answers from the nodes' mailboxes (FREEHOLD_PASSPHRASE_FILE names one)")
        return None
    return wallets.open_wallet(home, wallets.read_passphrase())


async def _lease_of(session: Session, home: Home, target: str) -> bytes:
    if len(target) == _LEASE_DIGITS and "/" not in target:
        return parse_id(target)
    _, services = await list_services(session, decode_account(wallets.address(home)))
    return find_service(services, target).lease_id


def _result(verdict: Verdict, export: Path | None = None, size: int = 0) -> Result:
    document = verdict.document()
    if export is not None:
        document["export"] = {"file": str(export), "bytes": size}
    return Result(document, _text(verdict), verdict.exit_code)


def _text(verdict: Verdict) -> str:
    table = Table(("WORD", "STATEMENT", "DETAIL"))
    for statement in verdict.statements:
        table.add(statement.word, statement.subject, statement.detail)
    for gap in verdict.gaps:
        table.add("-", gap.subject, gap.detail)
    lines: list[str] = []
    if table.rows:
        lines += [table.text(), ""]
    if verdict.contract:
        contract = Table(("CONTRACT", ""))
        for line in verdict.contract:
            contract.add(line.subject, line.detail)
        lines += [contract.text(), ""]
    lines += ["assumes:", *[f"  {line}" for line in verdict.assumes], ""]
    if verdict.problem is None:
        lines.append("verified")
    else:
        lines.append(f"NOT VERIFIED: {verdict.problem.message} ({verdict.problem.code})")
        if verdict.problem.hint:
            lines.append(f"next: {verdict.problem.hint}")
    return "\n".join(lines)
