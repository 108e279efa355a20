"""Getting onto a running ledger: what an operator is told to believe is checked before a home is written.

The genesis document names the chain, and its SHA-256 names the document: one that comes from a server is taken only
when the operator says which it must be. Servers are then asked for theirs, and for headers, which the light client
verifies from that genesis, or from a header that the operator trusts, and compares among the servers.
Spec: docs/spec/snapshots.md.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from freehold.base.errors import InvalidInputError, NotVerifiedError, RefusedError, UnreachableError
from freehold.base.presets import ElectionPreset
from freehold.consensus.comet.addresses import check_server, check_servers
from freehold.consensus.comet.operators import DEFAULT_SNAPSHOT_INTERVAL
from freehold.crypto.hashing import sha256
from freehold.ledger import keys
from freehold.ledger.elections import preset_of
from freehold.ledger.records import Elections
from freehold.light.genesis import MAX_GENESIS_BYTES, TrustedGenesis, parse_genesis
from freehold.light.headers import header_hash
from freehold.light.skipping import check_not_expired
from freehold.light.trust import PinnedTrust, Trust, trust_bounds
from freehold.lightclient.client import LedgerClient
from freehold.lightclient.servers import Servers, wall_ms

ANSWER_S: Final = 20.0
_GENESIS: Final = "/v1/genesis"

Say = Callable[[str], None]


class Footing(Struct, frozen=True):
    """What a home begins from, verified.

    Attributes:
        height: of the header that it trusts.
        hash: of that header.
        newest: the highest verified height.
        validators: how many had the vote there.
        elections: how validators are elected; None where those of genesis stay.
    """

    height: int
    hash: bytes
    newest: int
    validators: int
    elections: ElectionPreset | None


def parse_digest(text: str) -> bytes:
    """Read the SHA-256 of a genesis document.

    Raises:
        InvalidInputError: `bad_digest`.
    """
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32 or len(text) != 64:
        raise InvalidInputError(
            f"{text[:70]!r} is no SHA-256", code="bad_digest", hint="it has 64 hex digits: `sha256sum genesis.json`"
        )
    return digest


def check_genesis(data: bytes, source: str, digest: bytes | None) -> TrustedGenesis:
    """Read a genesis document, and compare it with what it must be.

    Args:
        data: the document.
        source: where it comes from, for people.
        digest: its SHA-256, if the operator named one.

    Raises:
        InvalidInputError: it is malformed.
        NotVerifiedError: `wrong_digest`.
    """
    genesis = parse_genesis(data)
    if digest is not None and genesis.digest != digest:
        raise NotVerifiedError(
            f"the genesis of {source} has SHA-256 {genesis.digest.hex()}, not {digest.hex()}",
            code="wrong_digest",
            hint="it is another chain's, or was changed on its way: take it from somebody else, or correct --digest",
        )
    return genesis


async def fetch_genesis(url: str, digest: bytes | None) -> bytes:
    """Fetch a genesis document from an HTTP face.

    Args:
        url: of it.
        digest: what its SHA-256 must be.

    Raises:
        InvalidInputError: a malformed URL, or it serves no genesis.
        RefusedError: `needs_digest`: nobody says that this is the right one.
        NotVerifiedError: `wrong_digest`.
        UnreachableError: no answer.
    """
    server = check_server(url)
    data = await _genesis_of(server)
    if digest is None:
        found = parse_genesis(data)
        raise RefusedError(
            f"{server} serves a genesis of {found.chain_id} with SHA-256 {found.digest.hex()}, on its word alone",
            code="needs_digest",
            hint=f"ask an operator whom you trust for it; where it is the same, add --digest {found.digest.hex()}",
        )
    check_genesis(data, server, digest)
    return data


async def find_footing(servers: Sequence[str], genesis: TrustedGenesis, trust: Trust, say: Say) -> Footing:
    """Ask servers where the ledger stands, verify it, and choose the header from which a restore begins.

    The header is one snapshot's distance below the newest: the engine verifies forward from it in a few steps, and
    walks back block by block below it.

    Args:
        servers: URLs of at least two different HTTP faces.
        genesis: of the chain.
        trust: where trust begins.
        say: takes a line for each step.

    Raises:
        InvalidInputError: `bad_state_sync`: they are not two different ones; `other_genesis`: one has another chain.
        UnreachableError: one does not answer.
        NotVerifiedError: what they say does not verify, or is too old; `DivergedError` when they tell two stories.
    """
    urls = check_servers(servers)
    await _check_different(urls)
    for url in urls:
        digest = sha256(await _genesis_of(url))
        if digest != genesis.digest:
            raise InvalidInputError(
                f"{url} has a genesis with SHA-256 {digest.hex()}, yours has {genesis.digest.hex()}",
                code="other_genesis",
                hint="nothing was changed; find out with its operator which document is the chain's",
            )
    say(f"genesis {genesis.digest.hex()} is also that of {', '.join(urls)}")
    client = LedgerClient(",".join(urls), genesis, trust=trust, timeout_s=ANSWER_S)
    try:
        return await _verify(client, genesis, trust, say)
    finally:
        await client.close()


async def _verify(client: LedgerClient, genesis: TrustedGenesis, trust: Trust, say: Say) -> Footing:
    found = await client.read([keys.ELECTIONS])
    newest, elections = found.light_block, found.get(keys.ELECTIONS, Elections)
    compared = client.comparison
    if compared is None or not compared.agreed + compared.behind or compared.refused:
        raise UnreachableError(
            "the servers could not be compared: all but one are silent, or told what does not verify",
            code="not_compared",
            hint="give servers that are up and know the chain's blocks",
        )
    lowest = trust.height if isinstance(trust, PinnedTrust) else genesis.initial_height
    height = max(lowest, newest.header.height - DEFAULT_SNAPSHOT_INTERVAL)
    try:
        block = await client.light_block(height) if height < newest.header.height else newest
    except RefusedError as error:
        if error.code != "height_pruned":
            raise
        block = newest
    header = block.header
    check_not_expired(header.time, header.height, trust_bounds(PinnedTrust(header.height, b""), genesis), wall_ms())
    say(
        f"block {newest.header.height} follows from {trust}, {compared.agreed} of the other servers agree,"
        f" {compared.behind} are behind"
    )
    return Footing(
        header.height,
        header_hash(header),
        newest.header.height,
        len(newest.validator_set.validators),
        None if elections is None else preset_of(elections),
    )


async def _genesis_of(url: str) -> bytes:
    servers = Servers(url, ANSWER_S, stale_ms=0)
    try:
        answer = await servers.ask(url, _GENESIS, ANSWER_S)
    finally:
        await servers.close()
    if answer.status != 200 or len(answer.content) > MAX_GENESIS_BYTES:
        raise InvalidInputError(
            f"{url} serves no genesis: status {answer.status}, {len(answer.content)} bytes",
            code="no_genesis",
            hint="give the HTTP face of a ledger, as `listen` in its ledger.toml",
        )
    return answer.content


async def _check_different(urls: Sequence[str]) -> None:
    """Two names of one server are one server."""
    known: dict[tuple[str, int], str] = {}
    for url in urls:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise UnreachableError(
                f"nobody knows the address of {host}: {error.strerror}",
                code="server_unreachable",
                hint="correct the URL, or give the server's address",
            ) from None
        for place in {(str(row[4][0]), port) for row in found}:
            if known.setdefault(place, url) != url:
                raise InvalidInputError(
                    f"{known[place]} and {url} are one server: it cannot be compared with itself",
                    code="bad_state_sync",
                    hint="give the HTTP faces of validators of different operators",
                )
