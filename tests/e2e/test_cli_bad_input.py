"""Bad input at the command line, against a real grid: a clear error, its next step, the right code, nothing changed.

Exit codes: 2 wrong use or input, 3 refused, 4 unreachable, 5 not verified. Every test runs as a tenant of its own, and
fails when that tenant's balance or list of services differs afterwards.
"""

import asyncio
import base64
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from local_grid import Done, LocalGrid
from oci_layout import CONFIG, write_layout

from freehold.base.codec import encode
from freehold.client.home import Home
from freehold.client.session import Session, sign_tx
from freehold.client.wallet import Wallet, open_wallet
from freehold.crypto.hashing import sha256
from freehold.crypto.strkey import decode_account
from freehold.ledger.transactions import Transfer

pytestmark = pytest.mark.root

GOOD = 'services: {web: {image: "small:1", command: [run], x-freehold: {standbys: 0}}}'
OTHER = "GA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVSGZ"


@dataclass
class Tenant:
    """A tenant with a home of its own on the session's grid."""

    grid: LocalGrid
    home: Path

    def run(self, *arguments: str, **environment: str) -> Done:
        return self.grid.run(*arguments, **{"FREEHOLD_HOME": str(self.home), **environment})

    def json(self, *arguments: str, **environment: str) -> dict[str, Any]:
        done = self.run(*arguments, "--json", **environment)
        assert done.code == 0, done
        return done.document

    def fails(self, code: int, *arguments: str, word: str = "", **environment: str) -> dict[str, str]:
        """Run a command that must fail: one JSON document with code, message and next step; the same on stderr."""
        done = self.run(*arguments, "--json", **environment)
        assert done.code == code, done
        error = done.error
        assert set(error) == {"code", "message", "hint"}
        assert error["message"], done
        assert error["hint"], done
        assert f"error: {error['message']}" in done.stderr
        assert f"next: {error['hint']}" in done.stderr
        assert "Traceback" not in done.stderr
        assert word in ("", error["code"]), done
        return error

    def holds(self) -> tuple[str, str, list[Any]]:
        balance = self.json("wallet", "balance")
        return balance["balance"], balance["spendable"], self.json("ps")["services"]

    def file(self, text: str | bytes) -> str:
        path = self.grid.write_app("")
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    @property
    def wallet(self) -> Wallet:
        return open_wallet(Home(self.home), self.grid.passphrase_file.read_text())


def new_home(grid: LocalGrid, name: str) -> Tenant:
    """A home that knows the grid, without a wallet."""
    home = grid.folder / name
    home.mkdir(mode=0o700)
    for file in ("genesis.json", "settings.toml"):
        shutil.copy(grid.home / file, home / file)
    return Tenant(grid, home)


@pytest.fixture(scope="module")
def small_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    (folder / "root/bin").mkdir(parents=True)
    (folder / "root/bin/run").write_bytes(bytes(100_000))
    return write_layout(folder / "layout", folder / "root", CONFIG)


@pytest.fixture(scope="module")
def someone(local_grid: LocalGrid, small_layout: Path) -> Tenant:
    tenant = new_home(local_grid, "someone")
    assert tenant.json("wallet", "new")["funded"] == "1000"
    tenant.json("image", "import", str(small_layout), "--name", "small:1")
    return tenant


@pytest.fixture
def tenant(someone: Tenant) -> Iterator[Tenant]:
    before = someone.holds()
    yield someone
    assert someone.holds() == before


BOMB = "x: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"x{n}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)
SERVICE = "services: {web: {image: small:1, %s}}"
COMPOSE = {
    "alias bomb": (BOMB + GOOD, "too_large"),
    "duplicate key": ("services: {web: {image: a, image: b}}", "duplicate_key"),
    "privileged": (SERVICE % "privileged: true", "unsupported_key"),
    "host mount": (SERVICE % 'volumes: ["/etc:/etc2"]', "host_mount"),
    "socket": (SERVICE % 'volumes: ["/var/run/docker.sock:/s"]', "host_mount"),
    "host network": (SERVICE % "network_mode: host", "unsupported_key"),
    "cycle": (
        "services: {a: {image: small:1, depends_on: [b]}, b: {image: small:1, depends_on: [a]}}",
        "dependency_cycle",
    ),
    "typo": (SERVICE % "comand: x", "unknown_key"),
    "no yaml": ("services: {web: [", "yaml"),
    "no mapping": ("- 1\n- 2\n", ""),
    "empty": ("", ""),
    "not text": (b"\xff\xfe\0\0", ""),
    "NUL": (b"services:\0", ""),
    "too long": ("#" * 300_000, ""),
    "python tag": ("services: !!python/object/apply:os.system [id]", ""),
    "unset and required": (SERVICE % "command: '${MISSING:?set it}'", ""),
    "memory below nothing": (SERVICE % "mem_limit: -1", ""),
}


@pytest.mark.parametrize("kind", COMPOSE)
def test_compose_files(someone: Tenant, kind: str) -> None:
    text, _ = COMPOSE[kind]
    path = someone.file(text)
    error = someone.fails(2, "deploy", path)
    assert path in error["message"]
    done = someone.run("compose", "check", path, "--json")
    assert done.code == 2
    problems = done.document["problems"]
    assert done.document["ok"] is False
    assert problems
    assert {"code", "path", "line", "message", "hint"} == set(problems[0])
    assert error["code"] in {problem["code"] for problem in problems}


def test_compose_codes_that_people_may_rely_on(tenant: Tenant) -> None:
    for kind, (text, code) in COMPOSE.items():
        if code and kind in ("privileged", "host mount", "cycle", "duplicate key"):
            assert tenant.fails(2, "deploy", tenant.file(text))["code"] == code
    missing = str(tenant.home / "none.yaml")
    assert tenant.fails(2, "deploy", missing, word="file_missing")
    assert tenant.fails(2, "deploy", str(tenant.home), word="file_unreadable")


def test_images(tenant: Tenant, local_grid: LocalGrid, small_layout: Path, tmp_path: Path) -> None:
    unknown = tenant.file(GOOD.replace("small:1", "never:1"))
    tenant.fails(2, "deploy", unknown, word="unknown_image")
    tenant.fails(2, "deploy", unknown, "--plan", word="unknown_image")
    tenant.fails(2, "image", "import", str(tmp_path / "none"), word="file_missing")
    tenant.fails(2, "image", "import", str(small_layout), "--name", "NOT a name", word="bad_image_name")
    damaged = tmp_path / "damaged"
    shutil.copytree(small_layout, damaged)
    layer = max((damaged / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(layer.read_bytes())
    data[len(data) // 2] ^= 1
    layer.write_bytes(data)
    fresh = new_home(local_grid, "fresh")  # a store that holds the good bytes already has no use for the damaged ones
    assert fresh.run("image", "import", str(damaged), "--name", "damaged:1", "--json").code in (2, 5)
    assert fresh.json("image", "list")["images"] == []
    garbage = tmp_path / "garbage.tar"
    garbage.write_bytes(bytes(range(256)) * 40)
    tenant.fails(2, "image", "import", str(garbage), "--name", "garbage:1")
    names = [image["name"] for image in tenant.json("image", "list")["images"]]
    assert names == ["small:1"]


def test_an_image_damaged_in_the_local_store_is_noticed_before_anything_is_paid(
    tenant: Tenant, small_layout: Path
) -> None:
    store = tenant.home / "images/blobs"
    layer = max((path for path in store.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    good = layer.read_bytes()
    mode = layer.stat().st_mode
    layer.chmod(0o600)
    try:
        layer.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        tenant.fails(2, "deploy", tenant.file(GOOD), word="damaged_image")
    finally:
        layer.write_bytes(good)
        layer.chmod(mode)


def test_money_and_room(tenant: Tenant, local_grid: LocalGrid) -> None:
    good = tenant.file(GOOD)
    tenant.fails(3, "deploy", good, "--max-price", "0.0000001", word="price_above_limit")
    tenant.fails(3, "deploy", good, "--max-price", "0.0000001", "--plan", word="price_above_limit")
    tenant.fails(3, "deploy", tenant.file(SERVICE % "mem_limit: 900g"), word="no_node_fits")
    tenant.fails(3, "deploy", tenant.file(SERVICE % "x-freehold: {standbys: 4}"), word="no_node_fits")
    tenant.fails(3, "deploy", good, "--prefer", "farm=!ghent,farm=!vienna,farm=!porto,farm=!brno", word="no_node_fits")
    tenant.fails(2, "deploy", good, "--prefer", "city=Ghent", word="bad_preference")
    tenant.fails(2, "deploy", good, "--max-price", "-1")
    tenant.fails(2, "deploy", good, "--max-price", "cheap", word="bad_amount")


def test_a_balance_that_is_too_small(local_grid: LocalGrid, small_layout: Path) -> None:
    poor = new_home(local_grid, "poor")
    poor.json("wallet", "new")
    poor.json("image", "import", str(small_layout), "--name", "small:1")
    poor.json("wallet", "send", OTHER, "999.8")
    before = poor.holds()
    error = poor.fails(3, "deploy", poor.file(GOOD), word="balance_too_small")
    assert "tokens" in error["hint"]
    poor.fails(3, "deploy", poor.file(GOOD), "--plan", word="balance_too_small")
    poor.fails(3, "wallet", "send", OTHER, "999", word="insufficient_balance")
    assert poor.holds() == before


@pytest.mark.parametrize(
    "amount",
    ["0", "-5", "1e3", "0.00000001", "99999999999999999999", "922337203685.4775808", "1,5", "0x10", "", "NaN", "１"],
)
def test_amounts(someone: Tenant, amount: str) -> None:
    someone.fails(2, "wallet", "send", OTHER, amount)


def test_accounts(tenant: Tenant) -> None:
    for account in ("", "G", OTHER[:-1], OTHER[:-1] + "A", OTHER.lower(), "S" + OTHER[1:], "../../etc/passwd"):
        tenant.fails(2, "wallet", "send", account, "1")
        tenant.fails(2, "wallet", "balance", account or "x")


def test_wrong_use(tenant: Tenant, local_grid: LocalGrid) -> None:
    for arguments in (
        ["fly"],
        ["wallet", "fly"],
        ["ps", "--fly"],
        ["deploy"],
        ["connect", "a/b"],
        ["connect", "a/b", "port"],
        ["logs", "a/b", "--tail", "many"],
        ["wallet", "send", OTHER],
        ["grid", "up", "--nodes", "x"],
    ):
        tenant.fails(2, *arguments, word="bad_usage")
    tenant.fails(2, "logs", "a/b", word="unknown_service")
    tenant.fails(2, "connect", "a/b", "80", word="unknown_service")
    tenant.fails(2, "down", "nothing", word="unknown_deployment")
    tenant.fails(2, "node", "show", "zzzz", word="unknown_node")
    tenant.fails(2, "connect", "a/b", "80", "--stop", word="not_forwarded")
    folder = ["--home", str(local_grid.home / "grid")]
    tenant.fails(2, "grid", "up", "--nodes", "0", word="bad_count")
    tenant.fails(2, "grid", "up", "--nodes", "2", "--farms", "3", word="bad_count")
    tenant.fails(2, "grid", "up", "--validators", "8", word="bad_count")
    tenant.fails(2, "grid", "up", "--preset", "huge", word="bad_preset")
    tenant.fails(2, "grid", "up", "--nodes", "2", "--farms", "2", *folder, word="other_grid")
    tenant.fails(2, "grid", "kill", "nobody-1", *folder, word="unknown_node")
    tenant.fails(2, "grid", "status", word="no_grid")


def test_wallets_and_passphrases(tenant: Tenant, local_grid: LocalGrid, tmp_path: Path) -> None:
    nobody = new_home(local_grid, "nobody")
    shutil.copytree(tenant.home / "images", nobody.home / "images")
    for arguments in (["ps"], ["wallet", "show"], ["wallet", "balance"], ["deploy", tenant.file(GOOD), "--plan"]):
        nobody.fails(2, *arguments, word="no_wallet")
    wrong, short = tmp_path / "wrong", tmp_path / "short"
    wrong.write_text("not the passphrase")
    short.write_text("short")
    tenant.fails(2, "ps", FREEHOLD_PASSPHRASE_FILE=str(wrong), word="bad_passphrase")
    tenant.fails(2, "wallet", "send", OTHER, "1", FREEHOLD_PASSPHRASE_FILE=str(wrong), word="bad_passphrase")
    tenant.fails(2, "ps", FREEHOLD_PASSPHRASE_FILE=str(tmp_path / "none"), word="no_passphrase")
    tenant.fails(2, "ps", FREEHOLD_PASSPHRASE_FILE="", word="no_passphrase")
    tenant.fails(2, "wallet", "new", word="wallet_exists")
    nobody.fails(2, "wallet", "new", FREEHOLD_PASSPHRASE_FILE=str(short), word="short_passphrase")
    words = tmp_path / "words"
    words.write_text("abandon " * 23 + "zoo")
    nobody.fails(2, "wallet", "new", "--words-file", str(words))
    assert not (nobody.home / "wallet.json").exists()
    damaged = new_home(local_grid, "damaged")
    (damaged.home / "wallet.json").write_bytes(b"{" + (tenant.home / "wallet.json").read_bytes())
    damaged.fails(2, "ps", word="bad_wallet")


def test_another_ledger_than_the_trusted_one(tenant: Tenant, local_grid: LocalGrid) -> None:
    stranger = new_home(local_grid, "stranger")
    path = stranger.home / "genesis.json"
    document = json.loads(path.read_bytes())
    other_key = base64.b64encode(decode_account(OTHER)).decode()
    stranger.json("wallet", "new")
    shutil.copytree(tenant.home / "images", stranger.home / "images")
    for change in ("chain", "validator"):
        altered = json.loads(json.dumps(document))
        if change == "chain":
            altered["chain_id"] = "freehold-local-00000000"
        else:
            altered["validators"][0]["pub_key"]["value"] = other_key
            altered["validators"][0]["address"] = sha256(decode_account(OTHER))[:20].hex().upper()
        path.write_text(json.dumps(altered))
        for arguments in (
            ["status"],
            ["wallet", "balance"],
            ["deploy", tenant.file(GOOD)],
            ["wallet", "send", OTHER, "1"],
        ):
            if arguments[0] == "deploy" and not (stranger.home / "images").exists():
                shutil.copytree(tenant.home / "images", stranger.home / "images")
            stranger.fails(5, *arguments)
    path.write_text("{}")
    stranger.fails(2, "status")
    path.unlink()
    stranger.fails(2, "status", word="no_genesis")


def test_nobody_answers(tenant: Tenant) -> None:
    for url in ("http://127.0.0.1:1", "http://127.0.0.1:22222"):
        tenant.fails(4, "status", FREEHOLD_RPC=url)
        tenant.fails(4, "deploy", tenant.file(GOOD), FREEHOLD_RPC=url)
    for url in ("no url", "ftp://127.0.0.1", "http://"):
        tenant.fails(2, "status", FREEHOLD_RPC=url)


def test_a_disk_that_cannot_be_written(tenant: Tenant, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    error = tenant.fails(1, "wallet", "new", FREEHOLD_HOME=str(file / "home"))
    assert error["code"] == "system_error"


def post(url: str, data: bytes) -> tuple[int, dict[str, Any]]:
    """POST a transaction as anybody might; returns status and answer."""
    request = urllib.request.Request(  # noqa: S310
        f"{url}/v1/tx",
        json.dumps({"tx": base64.b64encode(data).decode(), "wait": "proven"}).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_transactions_made_by_hand(tenant: Tenant) -> None:
    wallet, to = tenant.wallet, decode_account(OTHER)

    async def facts() -> tuple[str, str, int, int]:
        session = Session(Home(tenant.home), wallet)
        try:
            header = await session.ledger.refresh()
            nonce = await session.next_nonce(wallet.id)
            return session.ledger.url, session.ledger.chain_id, nonce, header.height
        finally:
            await session.close()

    url, chain, nonce, height = asyncio.run(facts())
    fee, until = 10_000, height + 500

    def tx(amount: int = 1, **change: Any) -> bytes:
        said = {"chain_id": chain, "nonce": nonce, "fee": fee, "valid_until": until} | change
        return sign_tx(
            said["chain_id"], wallet.account, said["nonce"], said["fee"], said["valid_until"], Transfer(to, amount)
        )

    def refused(data: bytes) -> str:
        status, answer = post(url, data)
        if status == 200:
            assert answer["code"] != 0, answer
            assert answer["height"] == 0
            return str(answer["code_name"]).lower()
        assert 400 <= status < 500, answer
        return str(answer["code"])

    assert refused(tx(chain_id="freehold-local-00000000")) == "wrong_chain"
    assert refused(tx(amount=-1)) in ("bad_amount", "undecodable")
    assert refused(tx(amount=1 << 63)) in ("bad_amount", "undecodable")
    assert refused(tx(amount=(1 << 63) - 1)) == "insufficient_balance"
    assert refused(tx(fee=0)) == "fee_too_low"
    assert refused(tx(fee=-1)) in ("fee_too_low", "bad_amount", "undecodable")
    assert refused(tx(valid_until=1)) == "expired"
    assert refused(tx(valid_until=1 << 40)) == "valid_until_too_far"
    if nonce:
        assert refused(tx(nonce=nonce - 1)) == "wrong_nonce"
    good = bytearray(tx())
    good[-1] ^= 1
    assert refused(bytes(good)) == "bad_signature"
    assert refused(tx() + b"\0") in ("undecodable", "malformed_body")
    assert refused(b"") in ("undecodable", "bad_request")
    assert refused(b"\xc1" * 100) == "undecodable"
    assert refused(bytes(20_000)) in ("oversized", "bad_request")
    assert refused(bytes(100_000)) in ("oversized", "bad_request")
    unknown = encode([1, chain, wallet.id, nonce, fee, until, ["fly", 1], []])
    assert refused(unknown) in ("undecodable", "malformed_body")
    version = encode([99, chain, wallet.id, nonce, fee, until, ["transfer", to, 1], []])
    assert refused(version) in ("unknown_version", "undecodable")


def test_a_replayed_transaction_moves_nothing_twice(someone: Tenant) -> None:
    wallet, to = someone.wallet, decode_account(OTHER)

    async def sign() -> tuple[str, bytes, bytes]:
        session = Session(Home(someone.home), wallet)
        try:
            header = await session.ledger.refresh()
            nonce = await session.next_nonce(wallet.id)
            until = header.height + 500
            both = [
                sign_tx(session.ledger.chain_id, wallet.account, n, 10_000, until, Transfer(to, 5))
                for n in (nonce, nonce + 1)
            ]
            return session.ledger.url, both[0], both[1]
        finally:
            await session.close()

    url, first, second = asyncio.run(sign())
    assert post(url, first)[1]["code"] == 0
    assert post(url, second)[1]["code"] == 0
    after = someone.holds()
    for data in (first, second, first):
        status, answer = post(url, data)
        assert status in (200, 400, 409, 422), answer
    assert someone.holds() == after


COMMANDS = (
    ["status"],
    ["node", "list"],
    ["wallet", "show"],
    ["wallet", "balance"],
    ["image", "list"],
    ["ps"],
    ["events"],
    ["completion"],
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_json_is_one_document_also_when_it_fails(someone: Tenant, tmp_path: Path, arguments: list[str]) -> None:
    assert isinstance(someone.json(*arguments), dict)
    if arguments[0] != "completion":
        empty = {"FREEHOLD_HOME": str(tmp_path / "none")}
        done = someone.run(*arguments, "--json", **empty)
        assert (done.code == 0) == (arguments == ["image", "list"])
        assert ("error" in done.document) == (done.code != 0)


def test_words_for_people_stay_off_stdout(someone: Tenant) -> None:
    done = someone.run("ps", "--fly")
    assert (done.code, done.stdout) == (2, "")
    assert "error:" in done.stderr
    assert "next:" in done.stderr


def test_a_plan_pays_nothing(tenant: Tenant) -> None:
    document = tenant.json("deploy", tenant.file(GOOD), "--plan")
    assert {"services", "price", "placement", "warnings", "who_can_read"} <= set(document)
    assert {"per_hour", "first_charge", "runs_out"} <= set(document["price"])
    assert "deployment" not in document
    assert msgspec.json.encode(document)
