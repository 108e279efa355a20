"""What a container may reach, as one nftables table per node (the text is pure; libnftables applies it by ctypes).

The whole table is replaced in one transaction at every change, so it always equals the state that it was made from.
"""

import ctypes
import re
import threading
from typing import Final

import msgspec

from freehold.base.errors import FreeholdError, check

# Everything that is not the public IPv4 Internet. Source: IANA special-purpose registry, RFC 6890.
PRIVATE: Final = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
)
BRIDGE_PREFIX: Final = "fhb"
MAIL_PORTS: Final = (25, 465, 587)
MAX_FLOWS: Final = 8_192
_TABLE = re.compile(r"freehold_[0-9a-f]{8}\Z")


class Grant(msgspec.Struct, frozen=True, order=True):
    """A port of the node itself that a deployment's containers may reach, where the agent's tunnel listens."""

    address: str
    protocol: str  # tcp or udp
    port: int


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment's network, as the rules see it."""

    bridge: str
    subnet: str
    allow_smtp: bool = False
    grants: tuple[Grant, ...] = ()


def build_rules(table: str, reaches: list[Reach], lan: list[str], guarded_uplinks: list[str]) -> str:
    """The nft script that replaces a node's table.

    Args:
        table: `freehold_` and eight hex digits.
        reaches: every deployment's network.
        lan: networks that the node reaches without its default route.
        guarded_uplinks: links on which only we switched forwarding on, and which shall forward nothing else.
    """
    check(_TABLE.match(table) is not None, "table_name", table=table)
    bridges = [f'"{reach.bridge}"' for reach in reaches]
    pairs = [f'"{reach.bridge}" . "{reach.bridge}"' for reach in reaches]
    mail = [f'"{reach.bridge}"' for reach in reaches if reach.allow_smtp]
    subnets = [reach.subnet for reach in reaches]
    grants = [
        f'"{reach.bridge}" . {grant.address} . {grant.protocol} . {grant.port}'
        for reach in reaches
        for grant in reach.grants
    ]
    guards = "".join(f'    iifname "{link}" oifname != "{BRIDGE_PREFIX}*" drop\n' for link in guarded_uplinks)
    ports = ", ".join(str(port) for port in MAIL_PORTS)
    return f"""
table inet {table}
delete table inet {table}
table inet {table} {{
  set bridges {{ type ifname; {_elements(bridges)} }}
  set pairs {{ type ifname . ifname; {_elements(pairs)} }}
  set mail {{ type ifname; {_elements(mail)} }}
  set subnets {{ type ipv4_addr; flags interval; {_elements(subnets)} }}
  set private {{ type ipv4_addr; flags interval; auto-merge; {_elements([*PRIVATE, *lan])} }}
  set grants {{ type ifname . ipv4_addr . inet_proto . inet_service; {_elements(grants)} }}
  set flows {{ type ifname; size 4096; flags dynamic; }}

  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }}
  chain to_host {{
    ct state established,related accept
    iifname . ip daddr . meta l4proto . th dport @grants accept
    goto refuse
  }}
  chain to_world {{
    meta nfproto ipv6 drop
    fib saddr . iif oif missing drop
    ct state established,related accept
    ct state invalid drop
    ip daddr @private goto refuse
    iifname != @mail tcp dport {{ {ports} }} goto refuse
    meta l4proto != {{ tcp, udp, icmp }} drop
    ct state new add @flows {{ iifname ct count over {MAX_FLOWS} }} drop
    accept
  }}
  chain input {{
    type filter hook input priority -5; policy accept;
    iifname @bridges goto to_host
  }}
  chain forward {{
    type filter hook forward priority -5; policy accept;
    iifname . oifname @pairs accept
    iifname @bridges goto to_world
    oifname @bridges ct state established,related accept
    oifname @bridges drop
{guards}  }}
  chain postrouting {{
    type nat hook postrouting priority 95; policy accept;
    ip saddr @subnets oifname != "{BRIDGE_PREFIX}*" masquerade
  }}
}}
"""


def remove_rules(table: str) -> str:
    """The nft script that removes a node's table, whether or not it is there."""
    check(_TABLE.match(table) is not None, "table_name", table=table)
    return f"table inet {table}\ndelete table inet {table}\n"


def _elements(items: list[str]) -> str:
    return f"elements = {{ {', '.join(items)} }};" if items else ""


class Nftables:
    """libnftables; each call speaks to the network namespace of the calling thread."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL("libnftables.so.1")
        except OSError:
            raise FreeholdError(
                "libnftables.so.1 is missing", code="no_runtime", hint="apt-get install nftables"
            ) from None
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        library.nft_ctx_buffer_output.argtypes = [ctypes.c_void_p]
        library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library = library
        self._lock = threading.Lock()

    def run(self, script: str) -> None:
        """Apply a script in one transaction.

        Raises:
            FreeholdError: the kernel or the library refused it (`nft_failed`); nothing changed.
        """
        with self._lock:
            context = self._library.nft_ctx_new(0)
            try:
                self._library.nft_ctx_buffer_output(context)
                self._library.nft_ctx_buffer_error(context)
                failed = self._library.nft_run_cmd_from_buffer(context, script.encode()) != 0
                reason = (self._library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace")
            finally:
                self._library.nft_ctx_free(context)
        if failed:
            raise FreeholdError(f"nftables refused the rules: {reason.strip()[:400]}", code="nft_failed")
