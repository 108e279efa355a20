"""Code of an attack: run inside a container, and as a control outside of it."""

import json
import subprocess
from typing import Any

from lab import (
    Node,
)

from freehold.runtime import kernel

# Put before each attack: `attempt` tells "ok" or the error's name.
PRELUDE = """
import ctypes, errno, json, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
seen = {}
def attempt(name, work):
    try:
        work(); seen[name] = "ok"
    except OSError as error:
        seen[name] = errno.errorcode.get(error.errno, "timeout")
def call(number, *args):
    if libc.syscall(ctypes.c_long(number), *args) < 0:
        raise OSError(ctypes.get_errno(), "refused")
"""


TELL = "\nprint(json.dumps(seen))\n"


def inside(node: Node, code: str, **settings: Any) -> dict[str, Any]:
    """Run an attack in a container."""
    _, text = node.python(PRELUDE + code + TELL, **settings)
    return dict(json.loads(text.splitlines()[-1]))


def outside(code: str, *arguments: str, **settings: Any) -> dict[str, Any]:
    """Run the same on the host."""
    command = ["/usr/bin/python3", "-IS", "-c", PRELUDE + code + TELL, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **settings)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def in_namespace(node: Node, code: str) -> dict[str, Any]:
    """Run the same in the node's network namespace."""
    return kernel.in_network_namespace(node.lab.node, lambda: outside(code))
