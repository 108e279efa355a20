"""`freehold verify` on a file: documents, exit codes, no network."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from proof_grid import ProofGrid, SignedChain

from freehold.cli.main import run
from freehold.light.headers import header_hash, make_validator_set
from freehold.light.proof_file import parse_proof_file
from freehold.light.types import LightBlock


@pytest.fixture(scope="module")
def proof() -> tuple[bytes, bytes]:
    """A proof and its genesis document."""
    grid = ProofGrid()
    grid.next_epoch()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 3]])
    for _ in range(3):
        grid.next_epoch()
    return grid.export(lease), grid.chain.document


@pytest.fixture
def files(proof: tuple[bytes, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FREEHOLD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FREEHOLD_RPC", "http://127.0.0.1:9")  # nothing may be asked
    (tmp_path / "home").mkdir()
    (tmp_path / "web.proof").write_bytes(proof[0])
    (tmp_path / "genesis.json").write_bytes(proof[1])
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    code = run(["verify", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_proof_verifies_with_the_genesis_alone(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = call(capsys, files / "web.proof", "--genesis", files / "genesis.json", "--require", "observed")
    assert (code, document["verdict"], document["validators"]) == (0, "verified", 1)
    assert document["statements"][0]["word"] == "observed 3/3"
    (files / "home" / "genesis.json").write_bytes((files / "genesis.json").read_bytes())
    assert call(capsys, files / "web.proof")[0] == 0


def test_people_read_a_table(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(files / "web.proof"), "--genesis", str(files / "genesis.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["WORD", "STATEMENT", "DETAIL"]
    assert lines[1].startswith("observed 3/3  shop/web-0 epoch ")
    assert "validators: 1: its operator can rewrite this ledger" in "\n".join(lines)
    assert lines[-1] == "verified"


def test_what_does_not_verify_exits_with_5(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    genesis = ("--genesis", files / "genesis.json")
    code, document = call(capsys, files / "web.proof", *genesis, "--require", "attested")
    assert (code, document["verdict"], document["problem"]["code"]) == (5, "not verified", "requirement_not_met")
    assert document["statements"]  # what it can say, it says
    (files / "other.json").write_bytes(ProofGrid(powers=(7, 7)).chain.document)
    code, document = call(capsys, files / "web.proof", "--genesis", files / "other.json")
    assert (code, document["verdict"], document["statements"]) == (5, "not verified", [])
    data = bytearray((files / "web.proof").read_bytes())
    data[len(data) // 2] ^= 1
    (files / "bad.proof").write_bytes(bytes(data))
    code, document = call(capsys, files / "bad.proof", *genesis)
    assert (code, document["verdict"], document["statements"]) == (5, "not verified", [])
    (files / "big.proof").write_bytes(b"{" * 100_000)
    assert call(capsys, files / "big.proof", *genesis)[0] == 5
    assert run(["verify", str(files / "bad.proof"), *map(str, genesis)]) == 5
    assert "NOT VERIFIED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["web.proof", "--genesis", "absent.json"], "no_genesis"),
        (["web.proof", "--genesis", "web.proof"], None),
        (["web.proof", "--genesis", "genesis.json", "--require", "proven"], "bad_usage"),
        (["web.proof", "--genesis", "genesis.json", "--trust", "5:abcd"], "bad_trust"),
        (["./absent", "--genesis", "genesis.json"], "no_file"),
        (["absent.json", "--genesis", "genesis.json"], "no_file"),
        (["guestbook/web"], "no_genesis"),
    ],
)
def test_wrong_use_exits_with_2(
    files: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: str | None,
) -> None:
    monkeypatch.chdir(files)
    exit_code, document = call(capsys, *arguments)
    assert exit_code == 2
    assert code in (None, document["error"]["code"])


# -- who is believed --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def four() -> tuple[bytes, ProofGrid]:
    """A proof signed by four validators of equal power, and its grid."""
    return exported((10, 10, 10, 10))


def exported(powers: tuple[int, ...]) -> tuple[bytes, ProofGrid]:
    grid = ProofGrid(powers=powers)
    grid.next_epoch()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 3]])
    grid.next_epoch()
    return grid.export(lease), grid


def resigned(data: bytes, change: Callable[[LightBlock], LightBlock]) -> bytes:
    """The file with another light block."""
    document = json.loads(data)
    block = LightBlock.decode(base64.b64decode(document["light_blocks"][0]))
    document["light_blocks"] = [base64.b64encode(change(block).encode()).decode()]
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@pytest.fixture
def verify_four(
    four: tuple[bytes, ProofGrid], files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, Any]]:
    """Verify the file, or another, at a clock that many ms after its header's time."""
    data, grid = four
    header = parse_proof_file(data).light_blocks[0].header

    def verify(other: bytes = data, *options: object, document: bytes = b"", late_ms: int = 0) -> tuple[int, Any]:
        (files / "four.proof").write_bytes(other)
        (files / "four.json").write_bytes(document or grid.chain.document)
        monkeypatch.setattr("freehold.cli.verify.wall_ms", lambda: header.time.ms + late_ms)
        return call(capsys, files / "four.proof", "--genesis", files / "four.json", *options)

    return verify


def pin_of(data: bytes) -> str:
    header = parse_proof_file(data).light_blocks[0].header
    return f"{header.height}:{header_hash(header).hex()}"


def test_it_says_who_signed_and_who_could_have_forged_it(
    four: tuple[bytes, ProofGrid], verify_four: Callable[..., tuple[int, Any]]
) -> None:
    code, document = verify_four()
    assert (code, document["trust"], document["validators"]) == (0, "genesis", 4)
    assert document["signers"] == {"count": 4, "validators": 4, "power": 40, "total_power": 40}
    assert document["forgers"]["count"] == 3
    assert "validators: 4; 3 of them together could have forged it" in document["assumes"]
    code, document = verify_four(four[0], "--trust", pin_of(four[0]))
    assert (code, document["trust"], document["forgers"]) == (0, pin_of(four[0]), None)
    assert any("nobody could have forged it" in line for line in document["assumes"])


def test_each_way_to_cheat_is_refused_by_its_own_code(
    four: tuple[bytes, ProofGrid], verify_four: Callable[..., tuple[int, Any]]
) -> None:
    data, grid = four

    def code(*arguments: Any, **fields: Any) -> str:
        exit_code, document = verify_four(*arguments, **fields)
        assert (exit_code, document["verdict"], document["statements"]) == (5, "not verified", [])
        assert document["problem"]["message"]
        return str(document["problem"]["code"])

    def signed_by(signers: list[int]) -> bytes:
        return resigned(data, lambda block: grid.chain.sign(block.header, signers))

    def doubled(block: LightBlock) -> LightBlock:
        commit = block.signed_header.commit
        twice = replace(commit, signatures=(commit.signatures[0], *commit.signatures[:3]))
        return replace(block, signed_header=replace(block.signed_header, commit=twice))

    other_chain = json.dumps({**json.loads(grid.chain.document), "chain_id": "another"}).encode()
    assert code(document=other_chain) == "wrong_chain"
    strangers = SignedChain(grid.preset, (10,) * 9)
    assert code(document=strangers.document) == "not_enough_trust"
    forged = make_validator_set(strangers.validators.validators[:4])
    assert code(resigned(data, lambda block: replace(block, validator_set=forged))) == "validator_set_mismatch"
    assert code(resigned(data, doubled)) == "double_vote"
    assert code(signed_by([0, 1])) == "not_enough_power"
    three, grid_of_three = exported((10, 10, 10))
    two_thirds = resigned(three, lambda block: grid_of_three.chain.sign(block.header, [0, 2]))
    assert code(two_thirds, document=grid_of_three.chain.document) == "not_enough_power"
    assert code(data, "--trust", pin_of(data), late_ms=32 * 3_600_000) == "trust_expired"
    assert code(data, "--trust", pin_of(data)[:-2] + "00") == "trust_root_mismatch"
    assert code(data, "--trust", "1" + pin_of(data)) == "trust_root_missing"
    assert code(data, late_ms=-10_000) == "header_from_future"
    tampered = json.loads(data)
    path = bytearray(base64.b64decode(tampered["proofs"][0]["commitment_proof"]))
    path[-1] ^= 1
    tampered["proofs"][0]["commitment_proof"] = base64.b64encode(path).decode()
    assert code(json.dumps(tampered, sort_keys=True, separators=(",", ":")).encode()) == "proof_root"


def test_an_unreachable_ledger_exits_with_4(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "home" / "genesis.json").write_bytes((files / "genesis.json").read_bytes())
    code, document = call(capsys, "ab" * 32)
    assert (code, document["error"]["code"]) == (4, "ledger_unreachable")


def test_an_export_is_written_whole_and_for_everyone(
    proof: tuple[bytes, bytes], files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def made(*_: object, **__: object) -> bytes:
        return proof[0]

    monkeypatch.setattr("freehold.cli.verify._export", made)
    target = files / "out.proof"
    genesis = ("--genesis", files / "genesis.json")
    code, document = call(capsys, "shop/web-0", *genesis, "--export", target)
    assert (code, document["export"]) == (0, {"file": str(target), "bytes": len(proof[0])})
    assert target.read_bytes() == proof[0]
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in files.iterdir() if path.name.startswith(".")] == []
    assert call(capsys, target, *genesis)[0] == 0
    code, document = call(capsys, "shop/web-0", *genesis, "--export", files)
    assert (code, document["error"]["code"]) == (2, "cannot_write")
