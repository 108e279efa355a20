"""`freehold verify` on a file: documents, exit codes, no network."""

import json
from pathlib import Path
from typing import Any

import pytest
from proof_grid import ProofGrid

from freehold.cli.main import run


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
        (["web.proof", "--genesis", "genesis.json", "--trust", "5:abcd"], "unsupported_trust"),
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
