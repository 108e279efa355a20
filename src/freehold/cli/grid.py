"""`freehold grid`: a whole grid on this machine, for trying out and for tests."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from freehold.base.errors import InvalidInputError
from freehold.cli.connect import stop_all
from freehold.cli.output import Json, Result, Table, say
from freehold.client.home import Home, Settings
from freehold.grid import leaving, lifecycle
from freehold.grid.claims import load_layout
from freehold.grid.layout import GridLayout

app = App(name="grid", help="Start and stop a grid on this machine: a ledger, farms, nodes in namespaces of their own.")

HomeOption = Annotated[Path | None, Parameter(name="--home")]


@app.command
def up(
    *,
    nodes: int = 8,
    farms: int = 4,
    validators: int = 1,
    preset: str = "minimal",
    home: HomeOption = None,
    json: Json = False,
) -> Result:
    """Start a local grid: every node is a process with its own key, folder and network namespace. Needs root.

    Parameters
    ----------
    nodes
        How many nodes, dealt to the farms in turn.
    farms
        How many farms, each of its own owner and place.
    validators
        1 is the embedded ledger, whose one validator could rewrite it; 2 to 7 run CometBFT (`freehold ledger install`),
        each in a namespace of its own: it goes on while more than two thirds of them are up.
    preset
        `minimal` (epochs of 10 s) or `mainnet` (epochs of an hour).
    home
        Where keys, ledger and nodes live; below your own home when left out.
    """
    own = Home.default()
    layout = lifecycle.up(_folder(home), nodes=nodes, farms=farms, preset=preset, say=say, validators=validators)
    own.write(own.genesis_path, layout.genesis_path.read_bytes())
    own.save_settings(Settings(rpc=layout.url))
    document = lifecycle.status(layout)
    return Result(document, _text(document) + "\n\nnext: `freehold wallet new`, then `freehold status`")


@app.command
def down(*, home: HomeOption = None, json: Json = False) -> Result:
    """Stop the local grid and remove all that it made: processes, containers, namespaces, rules, its ledger and keys.

    Ports that `freehold connect` forwards from this grid to this machine are closed too.

    Parameters
    ----------
    home
        The grid's folder.
    """
    folder, own = _folder(home), Home.default()
    if folder.resolve() == own.grid_folder.resolve():
        for address in stop_all(own):
            say(f"grid: no more forward at {address}")
    removed = lifecycle.down(folder, say=say)
    return Result({"removed": removed, "home": str(folder)}, "the grid is gone" if removed else "there is no grid here")


@app.command
def kill(node: str, /, *, home: HomeOption = None, json: Json = False) -> Result:
    """Kill a node or validator of the local grid as a power cut would: SIGKILL to all its processes, containers too.

    Parameters
    ----------
    node
        Its name, such as ghent-1 or validator-2, or the first digits of a node's id.
    home
        The grid's folder.
    """
    killed = lifecycle.kill(_require(home), node, say)
    return Result({"killed": killed.name}, f"{killed.name} is dead; `freehold grid start {killed.name}` brings it back")


@app.command
def add(*, home: HomeOption = None, json: Json = False) -> Result:
    """Add one more node to the running local grid: it joins by transaction, as any farmer's machine would.

    Parameters
    ----------
    home
        The grid's folder.
    """
    node = lifecycle.add_node(_folder(home), say)
    text = f"{node.name} runs at {node.listen}; it is drawn and leased from the second epoch on"
    return Result({"added": node.name, "address": node.listen}, text)


@app.command
def start(node: str, /, *, home: HomeOption = None, json: Json = False) -> Result:
    """Start the agent of a node, or a validator, again.

    Parameters
    ----------
    node
        Its name, such as ghent-1 or validator-2, or the first digits of a node's id.
    home
        The grid's folder.
    """
    found, pid = lifecycle.start(_require(home), node)
    return Result({"started": found.name, "pid": pid}, f"{found.name} runs again (pid {pid})")


@app.command
def upgrade(
    *,
    to_comet: Annotated[bool, Parameter(negative="")] = False,
    validators: int = 4,
    yes: Annotated[bool, Parameter(negative="")] = False,
    force: Annotated[bool, Parameter(negative="")] = False,
    home: HomeOption = None,
    json: Json = False,
) -> Result:
    """Take the local grid from the embedded ledger to CometBFT, with its state. Shows the plan; `--yes` does it.

    It stops the grid; `freehold grid up --validators N` starts it again. Refused while deployments stand.

    Parameters
    ----------
    to_comet
        Where to; there is no other way.
    validators
        2 to 7, each in a namespace of its own.
    yes
        Do what the plan says.
    force
        Remove the validators' homes that an earlier attempt left, with their keys.
    home
        The grid's folder.
    """
    if not to_comet:
        raise InvalidInputError("say where to", code="bad_usage", hint="`freehold grid upgrade --to-comet`")
    folder, own = _folder(home), Home.default()
    layout = leaving.upgrade_plan(folder, validators)
    plan = {"kept": list(leaving.KEPT), "changed": list(leaving.CHANGED), "lost": list(leaving.LOST)}
    if not yes:
        lines = [f"{word:8}{line}" for word, rows in plan.items() for line in rows]
        text = "\n".join([*lines, "", "nothing was done; `--yes` stops the grid and does it"])
        return Result({"done": False, "plan": plan}, text)
    old = layout.genesis_path.read_bytes()
    done = leaving.upgrade_grid(folder, validators=validators, force=force, say=say)
    is_ours = own.genesis_path.exists() and own.genesis_path.read_bytes() == old
    if is_ours:
        own.write(own.folder / f"genesis.{done['old_chain']}.json", old)
        own.write(own.genesis_path, layout.genesis_path.read_bytes())
        own.save_settings(Settings(rpc=layout.url))
    counts = f"--nodes {len(layout.nodes)} --farms {len(layout.farms)} --preset {layout.preset}"
    text = (
        f"{done['old_chain']} ends; {done['chain']} begins at height {done['height']} with its state\n"
        f"the old ledger stays at {done['kept']}; never run its validator again\n"
        f"other homes that trust the old genesis: copy {layout.genesis_path} over their genesis.json\n\n"
        f"next: `freehold grid up --validators {validators} {counts}`"
    )
    return Result({"done": True, "plan": plan, "home_updated": is_ours} | done, text)


@app.command
def status(*, home: HomeOption = None, json: Json = False) -> Result:
    """Show what runs of the local grid.

    Parameters
    ----------
    home
        The grid's folder.
    """
    document = lifecycle.status(_require(home))
    return Result(document, _text(document))


def _require(home: Path | None) -> GridLayout:
    layout = load_layout(_folder(home))
    if layout is None:
        raise InvalidInputError("there is no grid here", code="no_grid", hint="start one with `freehold grid up`")
    return layout


def _folder(home: Path | None) -> Path:
    return home if home is not None else Home.default().grid_folder


def _text(document: dict[str, Any]) -> str:
    table = Table(("NODE", "FARM", "ADDRESS", "NAMESPACE", "PID"))
    for node in document["nodes"]:
        table.add(node["name"], node["farm"], node["address"], node["namespace"], node["pid"] or "stopped")
    ledger = document["ledger"]
    if not ledger["validators"]:
        state = f"pid {ledger['pid']}" if ledger["running"] else "stopped"
        note = "note    its one validator could rewrite this ledger; `--validators 4` runs CometBFT"
        return f"ledger  {ledger['url']} ({state}); open it in a browser\n{note}\n\n{table.text()}"
    validators = Table(("VALIDATOR", "URL", "NAMESPACE", "PID"))
    for row in ledger["validators"]:
        validators.add(row["name"], row["url"], row["namespace"], row["pid"] or "stopped")
    state = "more than two thirds run" if ledger["running"] else "too few run: no blocks"
    return f"ledger  {ledger['url']} ({state}); open it in a browser\n\n{validators.text()}\n\n{table.text()}"
