"""The layout of a local grid: everything of it has a name and address of its own, whoever keeps the ledger."""

import json
import shutil
from pathlib import Path

import pytest

from freehold.base.errors import InvalidInputError
from freehold.cli.main import run
from freehold.client.home import Home, Settings
from freehold.grid.claims import load_layout, remove_folder, write_marker
from freehold.grid.layout import MAX_NODES, MAX_VALIDATORS, GridLayout, make_layout


def layout_of(folder: Path, validators: int, nodes: int = 8) -> GridLayout:
    return make_layout(folder, nodes=nodes, farms=4, preset="minimal", validators=validators)


def test_the_embedded_ledger_is_one_server_on_the_host(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, 1)
    assert layout.validators == () and layout.url == layout.url_for(3) == f"http://{layout.host_ip}:4600"
    assert layout.ledger_homes == (layout.ledger_home,)


@pytest.mark.parametrize("validators", range(2, MAX_VALIDATORS + 1))
def test_all_places_differ(tmp_path: Path, validators: int) -> None:
    layout = layout_of(tmp_path, validators, MAX_NODES)
    places = layout.places
    assert len(places) == MAX_NODES + validators
    for what in ("ip", "link", "namespace", "name", "home"):
        assert len({getattr(place, what) for place in places}) == len(places), what
    assert all(len(place.link) <= 15 for place in places)


def test_readers_spread_over_the_same_servers(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, 4)
    lists = [layout.url_for(index).split(",") for index in range(5)]
    assert all(set(urls) == set(layout.urls) for urls in lists)
    assert [urls[0] for urls in lists] == [*layout.urls, layout.urls[0]] and lists[0] == layout.url.split(",")


def test_the_marker_gives_the_same_layout(tmp_path: Path) -> None:
    for validators in (1, 4):
        layout = layout_of(tmp_path, validators)
        write_marker(layout)
        assert load_layout(tmp_path) == layout


def test_a_folder_of_something_else_is_no_place_for_a_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`grid down` removes the whole folder."""
    monkeypatch.setenv("FREEHOLD_HOME", str(tmp_path / "own"))
    mine = tmp_path / "documents"
    mine.mkdir()
    (mine / "letters.txt").write_text("mine")
    assert run(["grid", "up", "--home", str(mine), "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "home_not_empty" and "letters.txt" in error["message"] and error["hint"]
    assert run(["grid", "down", "--home", str(mine)]) == 0
    assert [path.name for path in mine.iterdir()] == ["letters.txt"]


def test_a_damaged_marker_is_told_and_nothing_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "grid.json").write_text("{")
    for command in ("down", "status"):
        assert run(["grid", command, "--home", str(tmp_path), "--json"]) == 2
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["code"] == "bad_grid" and "grid.json" in error["message"] and "by hand" in error["hint"]
    assert (tmp_path / "grid.json").read_text() == "{"


def test_a_removal_that_is_cut_off_leaves_what_says_that_it_is_a_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = layout_of(tmp_path / "grid", 1)
    (layout.folder / "nodes").mkdir(parents=True)
    (layout.folder / "ledger").mkdir()
    write_marker(layout)

    def cut(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", cut)
        remove_folder(layout.folder)
    assert load_layout(layout.folder) == layout
    remove_folder(layout.folder)
    assert not layout.folder.exists()


@pytest.mark.parametrize("validators", [0, -1, MAX_VALIDATORS + 1])
def test_other_counts_are_refused(tmp_path: Path, validators: int) -> None:
    with pytest.raises(InvalidInputError, match="validators"):
        layout_of(tmp_path, validators)


def test_settings_take_several_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, urls = Home(tmp_path), layout_of(tmp_path, 4).url
    home.save_settings(Settings(rpc=urls))
    assert home.settings().rpc == urls
    for named in ("http://127.0.0.1:1,http://127.0.0.1:2", "http://127.0.0.1:1"):
        monkeypatch.setenv("FREEHOLD_RPC", named)
        assert home.settings().rpc == named
    for named in ("http://127.0.0.1:1,", "http://127.0.0.1:1,ftp://x", ","):
        monkeypatch.setenv("FREEHOLD_RPC", named)
        with pytest.raises(InvalidInputError, match="URL"):
            home.settings()


def test_a_grid_on_cometbft_has_nowhere_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FREEHOLD_HOME", str(tmp_path / "person"))
    write_marker(layout_of(tmp_path, 2))
    for options in ((), ("--yes",)):
        assert run(["grid", "upgrade", "--to-comet", *options, "--home", str(tmp_path), "--json"]) == 2
        error = json.loads(capsys.readouterr().out)["error"]
        assert error == {
            "code": "not_embedded",
            "message": "this grid runs on CometBFT",
            "hint": "nothing has to be done",
        }
    assert run(["grid", "upgrade", "--to-comet", "--home", str(tmp_path / "none"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "no_grid"
