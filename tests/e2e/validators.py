"""Validators on CometBFT in namespaces of their own, a load of signed transfers, and checkers outside all of them.

The namespaces hang on a bridge in one more, the hub, from which the load asks; the host's own network is not touched.
Nothing here believes a validator: blocks are compared between all that run and with what was seen before, states are
read from the disks of dead ones and held against the headers that the others signed.
"""

import asyncio
import base64
import contextlib
import os
import queue
import random
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
from ledger_process import LedgerProcess, account, genesis_of

from freehold.base.amounts import TOKEN
from freehold.base.presets import MINIMAL, Preset
from freehold.client.session import sign_tx
from freehold.consensus.comet.client import CometClient
from freehold.consensus.comet.founding import genesis_of as document_of
from freehold.consensus.comet.founding import settle
from freehold.consensus.comet.operators import Card, OperatorHome
from freehold.consensus.state_store import StateStore
from freehold.ledger.genesis import SUPPLY, app_state_document
from freehold.ledger.invariants import check_state, total_tokens
from freehold.ledger.keys import account_key
from freehold.ledger.records import Account
from freehold.ledger.state import read
from freehold.ledger.transactions import Transfer, tx_id
from freehold.runtime import kernel

T = TypeVar("T")
CHAIN = "e2e-faults"
SINK = b"\x0d" * 32
SENDERS = 8
AMOUNT = TOKEN // 100
SUBNET = "10.91.0"
P2P_PORT, RPC_PORT = 26_656, 4_600
WAIT_S = 60.0
METAS_A_CALL = 20  # the engine gives no more


def _ip(*arguments: str, fine: bool = False) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert fine or done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


class EndedByItselfError(AssertionError):
    """A daemon that should run has ended: its exit code and its last log line."""

    def __init__(self, index: int, code: int, lines: Sequence[dict[str, Any]]) -> None:
        super().__init__(f"v{index} ended by itself with {code}: {lines[-5:]}")
        self.index, self.code, self.last = index, code, lines[-1] if lines else {}


class Namespaces:
    """A hub with a bridge, and one namespace per validator; `close` removes all."""

    def __init__(self, count: int) -> None:
        tag = f"vld{os.getpid() % 100_000}"
        self.hub = f"{tag}h"
        self.names = [f"{tag}v{index}" for index in range(count)]
        _ip("netns", "add", self.hub)
        for command in (
            ("link", "set", "lo", "up"),
            ("link", "add", "br0", "type", "bridge"),
            ("address", "add", f"{SUBNET}.254/24", "dev", "br0"),
            ("link", "set", "br0", "up"),
        ):
            _ip("-n", self.hub, *command)
        for index, name in enumerate(self.names):
            _ip("netns", "add", name)
            _ip("-n", self.hub, "link", "add", f"v{index}", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", self.hub, "link", "set", f"v{index}", "master", "br0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "address", "add", f"{address(index)}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")

    def close(self) -> None:
        """Remove every namespace, and with it its cable."""
        for name in (*self.names, self.hub):
            _ip("netns", "delete", name, fine=True)

    def cut(self, index: int, others: Iterable[int]) -> None:
        """Drop every packet between one validator and others."""
        addresses = ", ".join(address(other) for other in others)
        rules = (
            f"table ip cut {{ chain out {{ type filter hook output priority -300; ip daddr {{ {addresses} }} drop; }}; "
            f"chain in {{ type filter hook input priority -300; ip saddr {{ {addresses} }} drop; }}; }}"
        )
        self._nft(index, rules)

    def heal(self, index: int) -> None:
        """Let packets pass again."""
        self._nft(index, "delete table ip cut")

    def _nft(self, index: int, rules: str) -> None:
        subprocess.run(["ip", "netns", "exec", self.names[index], "nft", rules], check=True, capture_output=True)


def address(index: int) -> str:
    return f"{SUBNET}.{index + 1}"


def url(index: int) -> str:
    return f"http://{address(index)}:{RPC_PORT}"


class Validators:
    """Homes made from public cards alone, a daemon with its engine on each, and what was ever seen of their blocks."""

    def __init__(
        self,
        folder: Path,
        count: int = 4,
        *,
        preset: Preset = MINIMAL,
        spare: int = 0,
        app_state: Callable[[list[Card]], dict[str, Any]] | None = None,
        genesis_ms: int | None = None,
    ) -> None:
        """`spare` namespaces are left for others; `app_state` makes the ledger's beginning from the cards."""
        self.preset = preset
        self.homes = [OperatorHome(folder / f"v{index}") for index in range(count)]
        self.cards = [home.make_keys(f"v{n}", f"{address(n)}:{P2P_PORT}") for n, home in enumerate(self.homes)]
        beginning = app_state(self.cards) if app_state else app_state_document(preset, [], [], accounts=rich())
        now = time.time_ns() // 1_000_000 if genesis_ms is None else genesis_ms
        document = document_of(self.cards, CHAIN, beginning, time_ms=now)
        for index, home in enumerate(self.homes):
            write_settings(home, index)
            settle(home, document, self.cards, rpc="127.0.0.1:0")
        self.genesis = genesis_of(self.homes[0].folder)
        self.daemons: dict[int, LedgerProcess] = {}
        self.blocks: dict[int, str] = {}  # block ids by height: whatever is seen later must agree
        self.app_hashes: dict[int, bytes] = {}
        self.proposers: dict[int, bytes] = {}
        self.roots: dict[int, bytes] = {}  # read from disks, by height
        self.restored: set[int] = set()  # they have no old blocks
        self._compared: Counter[int] = Counter()
        self.net = Namespaces(count + spare)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for daemon in self.daemons.values():
                daemon.close()
            for home in self.homes:
                wait_gone(home)
        finally:
            self.net.close()

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine in the hub."""

        async def main() -> T:
            return await work()

        return kernel.in_network_namespace(Path("/run/netns") / self.net.hub, lambda: asyncio.run(main()))

    def start(self, index: int, *, program: Sequence[str] = (), **environment: str) -> LedgerProcess:
        """Start a daemon in its namespace."""
        inside = ("nsenter", f"--net=/run/netns/{self.net.names[index]}", "--")
        chosen = {"program": program} if program else {}
        daemon = LedgerProcess(self.homes[index].folder, before=inside, environment=environment, **chosen)
        self.daemons[index] = daemon
        return daemon

    async def started(self, index: int) -> None:
        """Wait until a daemon serves."""
        try:
            await asyncio.to_thread(self.daemons[index].wait_for, "started", WAIT_S)
        except queue.Empty:
            raise AssertionError(f"v{index} did not reach its start in {WAIT_S:.0f} s") from None

    async def start_all(self) -> None:
        """Start all and wait for a first block."""
        for index in range(len(self.homes)):
            self.start(index)
        for index in range(len(self.homes)):
            await self.started(index)
        await self.reach(1, range(len(self.homes)))

    async def kill(self, index: int) -> None:
        """kill -9 of a daemon; its engine goes with it."""
        daemon = self.daemons.pop(index)
        daemon.process.kill()
        await self.buried(index, daemon)

    async def buried(self, index: int, daemon: LedgerProcess) -> None:
        """Wait until a dying daemon and its engine are gone."""
        code = await asyncio.to_thread(daemon.wait_ended)
        assert code == -9, (code, daemon.lines[-3:])
        daemon.close()
        self.daemons.pop(index, None)
        await asyncio.to_thread(wait_gone, self.homes[index])

    async def stop_all(self) -> None:
        """Ask all to end, and look at every disk."""
        for daemon in self.daemons.values():
            daemon.process.terminate()
        for index, daemon in list(self.daemons.items()):
            code = await asyncio.to_thread(daemon.wait_ended)
            assert code == 0, (index, code, daemon.lines[-3:])
            daemon.close()
            del self.daemons[index]
        for index in range(len(self.homes)):
            self.check_disk(index)

    def check_disk(self, index: int) -> StateStore:
        """Check every invariant over a dead validator's state, and remember its root for `agree`; a closed store."""
        with StateStore.open(self.homes[index].data / "state", self.preset.state_heights) as state:
            whole = dict(state.items())
            check_state(whole)
            assert total_tokens(whole) == SUPPLY, "tokens are not conserved"
            known = self.roots.setdefault(state.height, state.app_hash)
            assert known == state.app_hash, f"two states of height {state.height}"
        return state

    def nonces(self, index: int) -> tuple[int, list[int], int]:
        """Height, nonces of the senders and what the sink got, from a dead validator's disk."""
        with StateStore.open(self.homes[index].data / "state", self.preset.state_heights) as state:
            records = [read(state, account_key(account(n).public), Account) for n in range(SENDERS)]
            sink = read(state, account_key(SINK), Account)
            return state.height, [row.nonce if row else 0 for row in records], sink.balance if sink else 0

    async def height(self, index: int) -> int:
        """As a validator tells it; -1 when it does not answer."""
        try:
            return int((await ask(index, "/v1/status"))["height"])
        except (httpx2.HTTPError, OSError, KeyError):
            return -1

    def check_alive(self, index: int) -> None:
        """A daemon that ended by itself is told with its last words, not by a timeout."""
        daemon = self.daemons[index]
        if (code := daemon.process.poll()) is not None:
            daemon.wait_ended()
            raise EndedByItselfError(index, code, daemon.lines)

    async def reach(self, height: int, members: Iterable[int], timeout_s: float = WAIT_S) -> None:
        """Wait until each of `members` has a block of that height."""
        for index in members:
            try:
                async with asyncio.timeout(timeout_s):
                    while await self.height(index) < height:  # HTTP has no other way
                        self.check_alive(index)
                        await asyncio.sleep(0.05)
            except TimeoutError:
                told = await status_text(index)
                raise AssertionError(f"v{index} did not reach {height} in {timeout_s:.0f} s: {told}") from None

    async def agree(self) -> int:
        """Wait until all that run have the newest block; then hold every block of each against all seen before.

        Returns:
            The height up to which all agree.
        """
        members = sorted(self.daemons)
        newest = max([await self.height(index) for index in members])
        await self.reach(newest, members)
        for index in members:
            async for height, block_id, header in block_metas(self.homes[index], self._compared[index] + 1, newest):
                self.saw(height, block_id, bytes.fromhex(header["app_hash"]))
                self.proposers[height] = bytes.fromhex(header["proposer_address"])
            self._compared[index] = newest
        for height, root in list(self.roots.items()):
            if height + 1 in self.app_hashes:
                assert self.app_hashes[height + 1] == root, f"the state of height {height} is not the signed one"
        return newest

    def begins_at(self, index: int, height: int) -> None:
        """Of a validator that was restored from a snapshot: it has no blocks below that height."""
        self.restored.add(index)
        self._compared[index] = height - 1

    def saw(self, height: int, block_id: str, app_hash: bytes) -> None:
        """Hold a block against what was seen of its height."""
        assert self.blocks.setdefault(height, block_id) == block_id, f"a fork: two blocks of height {height}"
        assert self.app_hashes.setdefault(height, app_hash) == app_hash, f"two application hashes at {height}"


def rich() -> dict[bytes, int]:
    """The balances of the load's senders, and of who is paid."""
    return {SINK: TOKEN} | {account(n).public: 10_000 * TOKEN for n in range(SENDERS)}


def write_settings(home: OperatorHome, index: int) -> None:
    """An HTTP face in the namespace that does not count points."""
    home.rpc_settings_path.write_text(
        f'listen = ["{address(index)}:{RPC_PORT}"]\npoints_per_second = 100000.0\npoints_burst = 100000.0\n'
    )


async def block_metas(home: OperatorHome, lowest: int, newest: int) -> AsyncIterator[tuple[int, str, dict[str, Any]]]:
    """Height, block id and header of blocks, as an engine holds them, asked directly."""
    async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(home.rpc_socket)), timeout=20) as http:
        for first in range(lowest, newest + 1, METAS_A_CALL):
            params = {"minHeight": str(first), "maxHeight": str(min(first + METAS_A_CALL - 1, newest))}
            call = {"jsonrpc": "2.0", "id": 1, "method": "blockchain", "params": params}
            for meta in (await http.post("http://engine/", json=call)).json()["result"]["block_metas"]:
                yield int(meta["header"]["height"]), f"{meta['block_id']}", meta["header"]


async def ask(index: int, path: str) -> dict[str, Any]:
    async with httpx2.AsyncClient(trust_env=False, timeout=5.0) as http:
        found = (await http.get(f"{url(index)}{path}")).json()
    assert isinstance(found, dict)
    return found


async def status_text(index: int) -> str:
    """A validator's status for a failure's message."""
    try:
        return str(await ask(index, "/v1/status"))
    except (httpx2.HTTPError, OSError) as error:
        return repr(error)


def engine_pids(home: OperatorHome) -> list[int]:
    """The engines that run on a home."""
    wanted, found = str(home.engine).encode(), []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def wait_gone(home: OperatorHome) -> None:
    """Wait until no engine holds a home; it dies with its daemon."""
    deadline = time.monotonic() + 20
    while engine_pids(home):
        assert time.monotonic() < deadline, f"an engine outlived its daemon on {home.folder}"
        time.sleep(0.02)


@dataclass
class Load:
    """Senders that pay one token's hundredth after the other, each asking a validator by chance, and remember answers.

    A payment that was not answered is sent again, the same bytes, to another validator, until one says its height.
    """

    rng: random.Random
    members: list[int]
    acknowledged: dict[bytes, int] = field(default_factory=dict)
    nonces: list[int] = field(default_factory=lambda: [0] * SENDERS)
    open: dict[int, int] = field(default_factory=dict)  # sender: the validator that has been asked
    refusals: list[str] = field(default_factory=list)
    unanswered: str = ""  # the last reason for sending again
    late: int = 0  # committed, but told only by a later refusal
    took_s: list[float] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self._http = httpx2.AsyncClient(trust_env=False, timeout=20.0)
        self._tasks = [asyncio.create_task(self._send_on(sender)) for sender in range(SENDERS)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        _, late = await asyncio.wait(self._tasks, timeout=WAIT_S if kind is None else 0.1)
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()
        if kind is not None:
            return
        assert not late, f"{len(late)} payments were never answered: {self.unanswered}"
        assert outcomes == [None] * SENDERS, outcomes

    async def more(self, count: int = 1, timeout_s: float = WAIT_S) -> None:
        """Wait until so many more payments are acknowledged."""
        wanted = len(self.acknowledged) + count
        try:
            async with asyncio.timeout(timeout_s):
                while len(self.acknowledged) < wanted:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        except TimeoutError:
            told = {index: await status_text(index) for index in self.members}
            raise AssertionError(f"no payment for {timeout_s:.0f} s: {told}; {self.unanswered}") from None

    def at(self, index: int) -> int:
        """How many payments a validator holds unanswered."""
        return sum(asked == index for asked in self.open.values())

    async def _send_on(self, sender: int) -> None:
        while not self._stop.is_set():
            nonce = self.nonces[sender]
            data = sign_tx(CHAIN, account(sender), nonce, MINIMAL.min_fee, 9_000, Transfer(SINK, AMOUNT))
            begun = time.monotonic()
            while (height := await self._send(sender, data)) is None and not self.refusals:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            if height is None:
                return
            if height:
                self.acknowledged[tx_id(data)] = height
                self.took_s.append(time.monotonic() - begun)
            else:
                self.late += 1
            self.nonces[sender] = nonce + 1

    async def _send(self, sender: int, data: bytes) -> int | None:
        """Give the height, 0 when only a refusal tells that it got in, None when nothing is known."""
        self.open[sender] = index = self.rng.choice(self.members)
        try:
            body = {"tx": base64.b64encode(data).decode(), "wait": "committed"}
            answer = (await self._http.post(f"{url(index)}/v1/tx", json=body)).json()
        except (httpx2.HTTPError, OSError) as error:
            self.unanswered = f"{url(index)}: {error!r}"
            return None
        finally:
            del self.open[sender]
        if answer["code"] == 0:
            return int(answer["height"]) or None
        name = answer.get("code_name", answer["code"])
        if name == "WRONG_NONCE":  # the same bytes are in a block that this validator has no memory of
            return 0
        self.unanswered = str(answer)
        if not isinstance(answer["code"], str):
            self.refusals.append(str(answer))
            self._stop.set()
        return None


async def check_load(net: Validators, load: Load) -> None:
    """Everything that was acknowledged is in the block that was told, on one that has it, by chance; once, and paid.

    All validators must run, and are stopped.
    """
    await net.agree()
    by_height: dict[int, set[bytes]] = {}
    for id_, height in load.acknowledged.items():
        by_height.setdefault(height, set()).add(id_)
    async with CometClient(net.homes[load.rng.choice(sorted(set(net.daemons) - net.restored))].rpc_socket) as engine:
        for height, wanted in by_height.items():
            block = await engine.final_block(height)
            done = {tx_id(tx) for tx, result in zip(block.txs, block.results, strict=True) if result.code == 0}
            assert wanted <= done, f"{len(wanted - done)} acknowledged transactions are not in block {height}"
    assert not load.refusals, load.refusals[:3]
    await net.stop_all()
    for index in range(len(net.homes)):
        height, nonces, received = net.nonces(index)
        assert height >= max(load.acknowledged.values())
        assert nonces == load.nonces, f"acknowledged transfers are lost at v{index}: {nonces}, sent {load.nonces}"
        assert received == TOKEN + sum(nonces) * AMOUNT, "paid twice, or not at all"


def with_validators(folder: Path, work: Callable[[Validators], Awaitable[T]], **settings: Any) -> T:
    """Run a test's coroutine in the hub of new validators, and leave nothing behind."""
    with Validators(folder, **settings) as net:
        return net.run(lambda: work(net))
