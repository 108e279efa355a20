"""The text of a node's rules."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.base.errors import InvariantError
from freehold.runtime.netfilter import PRIVATE, Grant, Reach, build_rules, remove_rules

TABLE = "freehold_0123abcd"
REACH = Reach(bridge="fhb0123abcd001", subnet="198.18.1.0/24")


def test_everything_is_replaced_in_one_script() -> None:
    text = build_rules(TABLE, [REACH], ["192.168.77.0/24"], [])
    assert text.index(f"delete table inet {TABLE}") < text.index("chain input")
    assert "192.168.77.0/24" in text and '"fhb0123abcd001" . "fhb0123abcd001"' in text
    assert "elements" not in text.split("set grants")[1].split("}")[0]


def test_grants_name_bridge_address_protocol_and_port() -> None:
    reach = Reach(bridge=REACH.bridge, subnet=REACH.subnet, grants=(Grant("198.18.1.2", "tcp", 5432),))
    assert '"fhb0123abcd001" . 198.18.1.2 . tcp . 5432' in build_rules(TABLE, [reach], [], [])


def test_mail_is_open_only_for_bridges_that_may() -> None:
    assert "elements" not in build_rules(TABLE, [REACH], [], []).split("set mail")[1].split("}")[0]
    open_reach = Reach(bridge=REACH.bridge, subnet=REACH.subnet, allow_smtp=True)
    assert REACH.bridge in build_rules(TABLE, [open_reach], [], []).split("set mail")[1].split("set subnets")[0]


def test_uplinks_forward_for_our_bridges_alone() -> None:
    assert 'iifname "eth0" oifname != "fhb*" drop' in build_rules(TABLE, [REACH], [], ["eth0"])


@pytest.mark.parametrize(
    "name", ["", "freehold_", "freehold_0123abcd; flush ruleset", "freehold_0123ABCD", "other_0123abcd"]
)
def test_a_table_has_our_name_or_none(name: str) -> None:
    with pytest.raises(InvariantError):
        build_rules(name, [], [], [])
    with pytest.raises(InvariantError):
        remove_rules(name)


@given(st.integers(0, (1 << 32) - 1).map(IPv4Address))
def test_private_covers_what_is_not_global(address: IPv4Address) -> None:
    covered = any(address in IPv4Network(network) for network in PRIVATE)
    if not address.is_global or address.is_multicast:
        assert covered or address in IPv4Network("192.88.99.0/24")
