"""The story of the demo, chapter by chapter."""

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from freehold.base.errors import FreeholdError
from freehold.demo.cli import Cli
from freehold.demo.images import build_images
from freehold.demo.view import View
from freehold.demo.visitor import read_entries, write_entry

NODES, FARMS = 8, 4
WEB, DB = "guestbook/web", "guestbook/db"
PORT = 8080
PAID_S = 60.0
FAILOVER_S = 45.0
BUSY_S = 30.0
BLOCKS_AFTER_DEATH = 6  # so that the dead one's turn to propose has come and gone


def in_words(time: str) -> str:
    """A moment of a `--json` document for people: `26 Nov 01:20 UTC, in 1.0 hours`."""
    moment = datetime.fromisoformat(time).astimezone(UTC)
    hours = (moment - datetime.now(UTC)).total_seconds() / 3600
    return f"{moment:%d %b %H:%M} UTC, in {hours:.1f} hours"


class Story:
    """See the module."""

    def __init__(
        self, home: Path, passphrase_file: Path, example: Path, cache: Path, view: View, *, validators: int = 1
    ) -> None:
        self._home = home
        self._example = example
        self._cache = cache
        self._view = view
        self._validators = validators
        self._cli = Cli(home, passphrase_file, view.command)
        self._names: dict[str, str] = {}
        self._address = ""
        self._tenant = ""
        self._grid: dict[str, Any] = {}

    async def clear(self, text: str) -> None:
        """Stop the forward and the grid of this home, whatever state they are in."""
        if not self._home.exists():
            return
        self._view.step(text)
        self._view.show([], {}, [])
        if (self._home / "grid").exists() or (self._home / "forwards").exists():
            await self._take_down()
            self._view.line("no process, mount, namespace or rule of the grid is left")
        shutil.rmtree(self._home, ignore_errors=True)

    async def _take_down(self) -> None:
        """`grid down`, which ends the forwards too; waits for a command of a killed run that still holds the grid."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + BUSY_S
        while True:
            try:
                await self._cli.run("grid", "down")
                return
            except FreeholdError as error:
                if error.code != "grid_busy" or loop.time() > deadline:
                    raise
            await asyncio.sleep(0.5)

    async def _try(self, *arguments: str) -> Any:
        try:
            return await self._cli.run(*arguments)
        except FreeholdError:
            return None

    async def tell(self) -> None:
        """All chapters."""
        building = asyncio.ensure_future(self._images())
        try:
            await self._start_grid()
            images = await building
        finally:  # nothing of a chapter may run on beside the cleaning up
            building.cancel()
            await asyncio.wait((building,))
        await self._deploy(images)
        await self._visit()
        if self._validators > 1:
            await self._kill_a_validator()
        await self._see_payments()
        before = await self._prove("proof.json")
        await self._kill_the_front()
        await self._prove_again(before)
        self._close()

    async def _images(self) -> dict[str, Path]:
        self._view.step("images: a web front and a database, built from Debian packages over one base")
        built = await build_images(self._example, self._cache / "images", self._view.progress)
        return built.names

    async def _start_grid(self) -> None:
        self._view.step(f"a grid: a ledger, {FARMS} farms of {FARMS} owners, {NODES} nodes in namespaces of their own")
        counts = ["--nodes", str(NODES), "--farms", str(FARMS)]
        if self._validators > 1:
            counts += ["--validators", str(self._validators)]
        self._grid = await self._cli.run("grid", "up", *counts)
        self._names = {node["node"]: node["name"] for node in self._grid["nodes"]}
        self._view.line(f"status page: {self._grid['ledger']['url']}  (open it in a browser)")
        if self._validators == 1:
            self._view.line(
                "the embedded ledger has one validator, which could rewrite it: fine for a try, said everywhere"
            )
        for row in self._grid["ledger"]["validators"]:
            self._view.line(f"{row['name']} in namespace {row['namespace']}, {row['url']}")
        wallet = await self._cli.run("wallet", "new")
        self._tenant = wallet["account"]
        self._view.line(f"wallet {wallet['account']} with {wallet['funded']} tokens from the grid's faucet")

    async def _deploy(self, images: dict[str, Path]) -> None:
        self._view.step("import the images and look at the price before paying")
        for name, path in images.items():
            image = await self._cli.run("image", "import", str(path), "--name", name)
            self._view.line(f"{image['name']}  {image['digest'][:19]}  {image['size_bytes'] / 1e6:.1f} MB")
        compose = str(self._example / "compose.yaml")
        plan = await self._cli.run("deploy", compose, "--plan")
        price = plan["price"]
        self._view.line(f"price {price['per_hour']} tokens an hour, standbys included")
        self._view.line(f"first charge {price['first_charge']} tokens; it runs out {in_words(price['runs_out'])}")
        for row in plan["placement"]:
            standbys = ", ".join(self._name(standby["node"]) for standby in row["standbys"]) or "no standby"
            self._view.line(f"{row['service']} on {self._name(row['node'])}; {standbys}")
        for reader in plan["who_can_read"]:
            self._view.line(f"who could read: {reader['who']}: {reader['what']}")
        for warning in plan["warnings"]:
            self._view.line(f"before you pay: {warning}")
        self._view.step("deploy: the contract, then sealed specs and image bytes to every member")
        await self._cli.run("deploy", compose)
        await self._show()
        for row in await self._services():
            self._view.line(f"{row['service']} runs on {self._name(row['node'])} under term {row['term']}")

    async def _visit(self) -> None:
        self._view.step("visit the site at an address of this machine that stays, wherever the site runs")
        forward = await self._try("connect", WEB, str(PORT), "--detach")
        if forward is None:
            forward = await self._cli.run("connect", WEB, str(PORT), "--detach", "--local", "0")
        self._address = forward["address"]
        await write_entry(self._address, "Ada", "Hello from the first visitor")
        entries = await read_entries(self._address)
        self._view.line(f"http://{self._address} answers; entry: {entries[0]['name']}: {entries[0]['message']}")

    async def _kill_a_validator(self) -> None:
        second = self._grid["ledger"]["validators"][1]
        self._view.step(f"kill {second['name']}: SIGKILL to its daemon and its engine; some nodes' agents ask it first")
        before = await self._cli.run("status", quiet=True)
        await self._cli.run("grid", "kill", second["name"])
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PAID_S
        while True:
            now = await self._cli.run("status", quiet=True)
            if now["height"] >= before["height"] + BLOCKS_AFTER_DEATH:
                break
            if loop.time() > deadline:
                raise FreeholdError("the ledger stands still without one validator", code="demo_timeout")
            await asyncio.sleep(0.5)
        grid = await self._cli.run("grid", "status", quiet=True)
        left = sum(row["running"] for row in grid["ledger"]["validators"])
        self._view.line(
            f"the ledger goes on: height {before['height']} then, {now['height']} now, with {left} of "
            f"{self._validators} validators; agents ask the others"
        )

    async def _see_payments(self) -> None:
        self._view.step("let epochs pass: each farmer is paid for what witnesses of other farms saw")
        await self._await_observed()
        for row in await self._services():
            self._view.line(f"{row['service']}: paid {row['paid']} tokens so far, {row['refunded']} back to the tenant")
        payments = (await self._cli.run("events", "--kind", "payment", quiet=True))["events"]
        earned: dict[str, int] = {}
        for payment in payments:
            who = payment["attributes"]["to"] or "the treasury"
            if who == self._tenant:
                continue  # a refund, told above
            earned[who] = earned.get(who, 0) + int(payment["attributes"]["amount"])
        owners = {row["owner"]: row["farm"] for row in (await self._cli.run("node", "list", quiet=True))["nodes"]}
        for who, amount in sorted(earned.items(), key=lambda item: -item[1]):
            self._view.line(f"{owners.get(who, who)} earned {amount / 1e7:.7f} tokens")

    async def _prove(self, name: str) -> dict[str, Any]:
        self._view.step("a proof of what was served, checked offline with the genesis file alone")
        path = self._home / name
        await self._cli.run("verify", WEB, "--export", str(path))
        verdict = await self._cli.run("verify", str(path), "--genesis", self._grid["genesis"])
        self._view.line(
            f"{path.stat().st_size / 1024:.1f} KiB: {verdict['verdict']}, validators: {verdict['validators']}"
        )
        for statement in verdict["statements"][:12]:
            self._view.line(f"{statement['word']:<14} {statement['subject']}: {statement['detail']}")
        return dict(verdict)

    async def _kill_the_front(self) -> None:
        front = self._row(await self._services(), WEB)
        name = self._name(front["node"])
        self._view.step(f"kill the node of the front: SIGKILL to the agent and every container process of {name}")
        await self._cli.run("grid", "kill", name)
        loop = asyncio.get_running_loop()
        began = loop.time()
        watch = asyncio.ensure_future(self._watch())
        try:
            entries = await read_entries(self._address, patience_s=FAILOVER_S)
        finally:
            watch.cancel()
        took = loop.time() - began
        row = self._row(await self._services(), WEB)
        for event in (await self._cli.run("events", quiet=True))["events"]:
            attributes = event["attributes"]
            if event["kind"] == "challenge":
                self._view.line(f"{self._name(attributes['challenger'])} challenged {name} (height {event['height']})")
            elif event["kind"] == "verdict":
                saw = "down" if attributes["down"] == "true" else "up"
                self._view.line(f"witness {self._name(attributes['node'])} says: {saw} (height {event['height']})")
            elif event["kind"] == "term":
                self._view.line(f"the ledger gives term {attributes['term']} to {self._name(attributes['node'])}")
        self._view.line(
            f"{row['service']} runs on {self._name(row['node'])} under term {row['term']}, after {took:.1f} s"
        )
        await self._show()
        self._view.line(f"http://{self._address} still has: {entries[0]['name']}: {entries[0]['message']}")

    async def _prove_again(self, before: dict[str, Any]) -> None:
        after = await self._prove("proof-after-failover.json")
        known = {statement["subject"] for statement in after["statements"]}
        served = [row["subject"] for row in before["statements"] if row["word"].startswith("observed")]
        kept = sum(subject in known for subject in served)
        self._view.line(f"{kept} of {len(served)} statements about the dead node's time still stand, proven")

    def _close(self) -> None:
        self._view.step("done")
        self._view.line("try next: `.venv/bin/freehold-demo --keep` leaves the grid up; `.venv/bin/freehold --help`")
        self._view.line("read next: README.md, docs/compose.md, docs/spec/, docs/threat-model.md")

    def say_how_to_go_on(self) -> None:
        """After --keep."""
        self._view.line(f"the grid stays up: export FREEHOLD_HOME={self._home}")
        self._view.line(f"                   export FREEHOLD_PASSPHRASE_FILE={self._home / 'passphrase'}")
        self._view.line(f"the site: http://{self._address}   the grid: {self._grid['ledger']['url']}")
        self._view.line("when done: freehold grid down (or run the demo again)")

    def keep_logs(self, target: Path) -> None:
        """After a failure: copy the daemons' logs out of the home before it goes."""
        shutil.rmtree(target, ignore_errors=True)
        for log in self._home.glob("grid/**/*.log"):
            copy = target / log.parent.relative_to(self._home)
            copy.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, copy / log.name)
        self._view.line(f"the daemons' logs are in {target}")

    async def _services(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (await self._cli.run("ps", quiet=True))["services"]
        return rows

    async def _show(self) -> None:
        farms = (await self._cli.run("status", quiet=True))["farms"]
        balances = [(farm["farm"], farm["balance"]) for farm in farms]
        self._view.show(await self._services(), self._names, balances)

    async def _watch(self) -> None:
        """Keep the live table fresh while the story waits."""
        while True:
            try:
                await self._show()
            except FreeholdError as error:
                self._view.progress(error.message)
            await asyncio.sleep(1.0)

    async def _await_observed(self) -> None:
        """Wait until an epoch of the front is paid because its witnesses saw it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PAID_S
        self._view.progress("waiting for an epoch that witnesses saw and the ledger paid")
        while not self._row(await self._services(), WEB)["epochs_observed"]:
            if loop.time() > deadline:
                raise FreeholdError(f"no epoch was paid within {PAID_S:.0f} s", code="demo_timeout")
            await self._show()
            await asyncio.sleep(0.5)

    def _row(self, rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
        return next(row for row in rows if row["service"] == name)

    def _name(self, node: str) -> str:
        return self._names.get(node, node[:12])
