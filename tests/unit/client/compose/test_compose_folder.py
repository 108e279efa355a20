"""Files beside the compose file: found, bounded, and never from outside its folder."""

import os
from pathlib import Path

import pytest

from freehold.base.errors import InvalidInputError
from freehold.client.compose.folder import MAX_BESIDE_BYTES, check_file, confined_reader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "app"
    (inside / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("outside")
    (inside / "sub" / "a.env").write_text("A=1\n")
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "inner").symlink_to("sub/a.env")
    os.mkfifo(inside / "pipe")
    (inside / "big").write_bytes(b"x" * (MAX_BESIDE_BYTES + 1))
    return inside


def test_files_inside_are_read(folder: Path) -> None:
    read = confined_reader(folder)
    assert read("sub/a.env") == read("./sub/a.env") == read("inner") == b"A=1\n"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("../secret", "outside_folder"),
        ("sub/../../secret", "outside_folder"),
        ("/etc/passwd", "outside_folder"),
        ("~/x", "outside_folder"),
        ("link", "outside_folder"),
        ("a\0b", "outside_folder"),
        ("nothing", "file_missing"),
        ("sub", "file_unreadable"),
        ("pipe", "file_unreadable"),
        ("big", "oversized"),
        ("x" * 5_000, "file_unreadable"),
    ],
)
def test_everything_else_is_refused(folder: Path, path: str, code: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        confined_reader(folder)(path)
    assert caught.value.code == code


def test_a_file_on_disk_with_its_env_files(folder: Path) -> None:
    (folder / "compose.yaml").write_text("services: {a: {image: $IMAGE, env_file: sub/a.env, environment: {B: $B}}}")
    (folder / ".env").write_text("IMAGE=nginx\nB=file\n")
    result = check_file(folder / "compose.yaml", {"B": "shell"})
    assert result.model is not None, result.problems
    assert result.model.name == "app"
    assert str(result.model.services["a"].image) == "nginx"
    assert result.model.services["a"].environment == {"A": "1", "B": "shell"}


def test_an_env_file_outside_is_a_problem_and_not_an_error(folder: Path) -> None:
    (folder / "compose.yaml").write_text("services: {a: {image: a, env_file: ../secret}}")
    (problem,) = check_file(folder / "compose.yaml", {}).problems
    assert (problem.code, problem.path) == ("outside_folder", "services.a.env_file")


def test_a_missing_file_is_the_callers_error(folder: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_file(folder / "none.yaml", {})
    assert caught.value.code == "file_missing"


def test_too_long_a_file_is_a_problem(folder: Path) -> None:
    (folder / "compose.yaml").write_text("#" * 300_000)
    (problem,) = check_file(folder / "compose.yaml", {}).problems
    assert problem.code == "oversized"
