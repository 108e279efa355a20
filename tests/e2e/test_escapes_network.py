"""The escape list, networks: the host, the LAN, other tenants; as `test_escapes.py` says, each with a control."""

import asyncio
import json
import subprocess
from typing import Any

import pytest
from attack import PRELUDE, TELL, in_namespace, inside, outside
from lab import (
    HOST_PORT,
    INTERNET,
    LAN,
    LAN_PUBLIC,
    METADATA,
    NODE_LAN,
    NODE_UPLINK,
    Node,
)
from test_runtime_life import wait_for_line

from freehold.runtime import kernel
from freehold.runtime.netfilter import Grant

pytestmark = pytest.mark.root


CONNECT = """
def connect(host, port):
    with socket.socket() as s:
        s.settimeout(2); s.connect((host, port)); s.recv(64)
for host, port in TARGETS: attempt(f"{host}:{port}", lambda: connect(host, port))
"""


def test_lan_and_host_addresses(node: Node) -> None:
    gateway = node.lab.run(lambda: asyncio.to_thread(node.runtime.networks.add, "deployment-a"))
    tunnel = node.runtime.networks.service_address
    service = node.lab.run(lambda: asyncio.to_thread(tunnel, "deployment-a", "database"))
    node.lab.serve_in_node(service, 5432)
    forbidden = [(LAN, 80), (LAN_PUBLIC, 80), (METADATA, 80), ("203.0.113.1", 80)]
    forbidden += [(host, HOST_PORT) for host in (NODE_LAN, NODE_UPLINK, "11.22.33.2", gateway, service)]
    mail = [(INTERNET, 25), (INTERNET, 587)]
    everything = [*forbidden, *mail, (INTERNET, 80), (service, 5432)]
    code = f"TARGETS = {everything!r}" + CONNECT
    granted = [Grant(service, "tcp", 5432)]

    def grant(*, smtp: bool) -> None:
        node.lab.run(
            lambda: asyncio.to_thread(node.runtime.networks.set_grants, "deployment-a", granted, allow_smtp=smtp)
        )

    control = in_namespace(node, code)
    assert set(control.values()) == {"ok"}, control  # all of them answer the node itself
    before = inside(node, code)
    assert before[f"{service}:5432"] != "ok"
    grant(smtp=False)
    tried = inside(node, code)
    assert {name for name, result in tried.items() if result == "ok"} == {f"{INTERNET}:80", f"{service}:5432"}
    grant(smtp=True)
    tried = inside(node, code)
    assert {name for name, result in tried.items() if result == "ok"} == {
        f"{INTERNET}:80",
        f"{INTERNET}:25",
        f"{INTERNET}:587",
        f"{service}:5432",
    }


def test_other_tenants_network(node: Node) -> None:
    server = """
import socket
s = socket.create_server(("0.0.0.0", 80)); print("up", flush=True)
while True:
    c, _ = s.accept(); c.sendall(b"hello"); c.close()"""

    async def body() -> dict[str, dict[str, Any]]:
        theirs = await node.begin("b", server, tenant="bb", deployment="deployment-b", user="user")
        await wait_for_line(node, "b", "up")
        code = f"TARGETS = [({theirs.address!r}, 80)]" + CONNECT
        results = {}
        for name, tenant, deployment in (("stranger", "aa", "deployment-a"), ("sibling", "bb", "deployment-b")):
            _, text = await node.python_in(PRELUDE + code + TELL, name, tenant=tenant, deployment=deployment)
            results[name] = json.loads(text)[f"{theirs.address}:80"]
        results["agent"] = (await asyncio.to_thread(outside, code))[f"{theirs.address}:80"]
        return results

    results = node.lab.run(body)
    assert results["stranger"] != "ok"
    assert (results["sibling"], results["agent"]) == ("ok", "ok")


def test_nobody_comes_in_from_outside(node: Node) -> None:
    server = "import socket,time\ns = socket.create_server(('0.0.0.0', 80)); print('up', flush=True); time.sleep(60)"

    async def body() -> tuple[str, str]:
        container = await node.begin("c", server)
        await wait_for_line(node, "c", "up")
        code = f"TARGETS = [({container.address!r}, 80)]" + CONNECT.replace("s.recv(64)", "pass")
        route = ["ip", "route", "replace", f"{container.address}/32", "via"]

        def from_world(via: str) -> str:
            subprocess.run([*route, via], check=True)
            return str(outside(code)[f"{container.address}:80"])

        results = [kernel.in_network_namespace(node.lab.world, lambda via=via: from_world(via)) for via in
                   (NODE_LAN, NODE_UPLINK)]  # fmt: skip
        assert "ok" not in results, results
        return (await asyncio.to_thread(outside, code))[f"{container.address}:80"], results[0]

    assert node.lab.run(body)[0] == "ok"


def test_raw_and_strange_sockets(node: Node) -> None:
    code = """
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
attempt("raw_ip", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
attempt("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
attempt("alg", lambda: socket.socket(38, socket.SOCK_SEQPACKET))
def move():
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    address = struct.pack("=BBBBI", 2, 24, 0, 0, 2) + struct.pack("=HH4s", 8, 2, bytes([198, 18, 0, 9]))
    s.send(struct.pack("=IHHII", 16 + len(address), 20, 0x605, 1, 0) + address)
    code = -struct.unpack_from("=i", s.recv(4096), 16)[0]
    if code: raise OSError(code, "netlink")
attempt("address", move)
attempt("tcp", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
"""
    tried = inside(node, code)
    assert tried.pop("tcp") == "ok"
    assert set(tried.values()) <= {"EPERM", "ENOSYS", "EACCES"}, tried
    control = outside(code.replace('attempt("address", move)', ""))
    assert {control[name] for name in ("raw", "raw_ip", "packet", "tcp")} == {"ok"}
