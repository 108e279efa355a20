"""`freehold connect`: a service's port on this machine."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from freehold.base.errors import FreeholdError, InvalidInputError
from freehold.cli.output import Json, Result, print_result, say
from freehold.cli.parent import follow_parent, marked, outlive_parent
from freehold.client import wallet as wallets
from freehold.client.forwarding import LOCALHOST, Forward, PublishedPorts
from freehold.client.home import Home
from freehold.client.nodes import NodeClient
from freehold.client.running import find_service, list_services
from freehold.client.session import Session

START_S = 15.0


def connect(
    service: str,
    port: int,
    /,
    *,
    local: int | None = None,
    detach: bool = False,
    stop: bool = False,
    json: Json = False,
) -> Result:
    """Open a service's port at 127.0.0.1, following the service wherever it runs, also through a failover.

    Runs until Ctrl-C; with --detach it goes on in the background until --stop.

    Parameters
    ----------
    service
        Such as guestbook/web.
    port
        The port in the container: 80 where the compose file publishes 8080:80.
    local
        The port on this machine; what the compose file publishes it as when left out, 0 for any free one.
    detach
        Go on in the background.
    stop
        Stop the one that runs in the background.
    """
    home = Home.default()
    record = home.forwards_folder / f"{service.replace('/', '_')}-{port}"
    if stop:
        return _stop(record, service, port)
    if detach:
        return _detach(record, service, port, local)
    if not follow_parent():
        raise FreeholdError("whoever asked for this forward is gone", code="forward_failed")
    wallet = wallets.open_wallet(home, wallets.read_passphrase())
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve(home, wallet, service, port, local, record, as_json=json))
    return Result(None)


async def _serve(
    home: Home, wallet: wallets.Wallet, service: str, port: int, local: int | None, record: Path, *, as_json: bool
) -> None:
    session = Session(home, wallet)
    try:
        _, views = await list_services(session, wallet.id)
        view = find_service(views, service)
        if port not in view.lease.ports:
            published = ", ".join(map(str, view.lease.ports)) or "none"
            raise InvalidInputError(
                f"{view.name} does not publish port {port}; published: {published}", code="port_not_published"
            )
        async with NodeClient(session, wallet) as nodes:
            forward = Forward(session, nodes, view.lease_id, port)
            bound = await forward.listen(PublishedPorts(home).local_port(view.name, port) if local is None else local)
            address = f"{LOCALHOST}:{bound}"
            home.write(record, f"{os.getpid()} {address}\n".encode())
            outlive_parent()
            print_result(Result({"service": view.name, "port": port, "address": address}, address), as_json=as_json)
            say(f"{view.name} port {port} is at {address}; Ctrl-C ends")
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, task.cancel if task else lambda: None)
            try:
                await forward.serve()
            finally:
                record.unlink(missing_ok=True)
    finally:
        await session.close()


def _detach(record: Path, service: str, port: int, local: int | None) -> Result:
    """Start the same command in a session of its own and wait for the address that it writes down."""
    if _running(record):
        raise InvalidInputError(
            f"{service} port {port} is forwarded already",
            code="already_forwarded",
            hint="add --stop to end it",
        )
    record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    extra = [] if local is None else ["--local", str(local)]
    # -P: what lies in the folder where someone stands, such as a downloaded project, is never imported.
    command = [sys.executable, "-P", "-m", "freehold.cli.main", "connect", service, str(port), *extra]
    with record.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            env=marked(dict(os.environ)),
        )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        running = _running(record)
        if running:
            document = {"service": service, "port": port, "address": running[1], "pid": running[0]}
            return Result(document, running[1])
        if process.poll() is not None:
            break
        time.sleep(0.05)
    reason = record.with_suffix(".log").read_text(encoding="utf-8", errors="replace").strip()
    raise FreeholdError(f"the forward did not start: {reason or 'no answer'}", code="forward_failed")


def _stop(record: Path, service: str, port: int) -> Result:
    running = _running(record)
    if not running:
        raise InvalidInputError(f"no forward of {service} port {port} runs", code="not_forwarded")
    os.kill(running[0], signal.SIGTERM)
    deadline = time.monotonic() + START_S
    while _running(record) and time.monotonic() < deadline:
        time.sleep(0.05)
    record.unlink(missing_ok=True)
    return Result({"service": service, "port": port, "stopped": True}, f"stopped {running[1]}")


def stop_all(home: Home) -> list[str]:
    """End every forward of a home that runs in the background or elsewhere; returns their addresses."""
    running = {record: found for record in home.forwards_folder.glob("*-*") if (found := _running(record))}
    for pid, _ in running.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + START_S
    while any(map(_running, running)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [address for _, address in running.values()]


def _running(record: Path) -> tuple[int, str] | None:
    """Pid and address of a running forward; the pid must still be one of ours."""
    try:
        pid, address = record.read_text().split()
        command = Path(f"/proc/{int(pid)}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return (int(pid), address) if b"connect" in command.split(b"\0") else None
