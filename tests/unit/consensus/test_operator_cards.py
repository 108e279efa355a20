"""Operators' keys and cards: what a home makes, what a card must prove, what genesis takes from it."""

from pathlib import Path

import msgspec
import pytest

from freehold.base.errors import InvalidInputError
from freehold.base.presets import MINIMAL
from freehold.consensus.comet.founding import genesis_of
from freehold.consensus.comet.operators import Card, OperatorHome, read_card
from freehold.ledger.genesis import app_state_document, initial_state
from freehold.ledger.genesis_beacon import is_possessed
from freehold.light.genesis import parse_genesis


def home(folder: Path, name: str, port: int) -> tuple[OperatorHome, Card]:
    made = OperatorHome(folder / name)
    return made, made.make_keys(name, f"127.0.0.1:{port}")


def test_a_home_makes_three_keys_once_and_for_itself_alone(tmp_path: Path) -> None:
    made, card = home(tmp_path, "one", 1)
    keys = {name: (made.folder / f"{name}.key") for name in ("validator", "vrf", "p2p")}
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys.values())
    assert len({path.read_bytes() for path in keys.values()}) == 3
    assert made.make_keys("one", "127.0.0.1:1") == card == made.card()
    assert is_possessed(card.vrf_member)
    assert not any(path.read_bytes().hex() in (made.folder / "operator.json").read_text() for path in keys.values())


@pytest.mark.parametrize("field", ["vrf", "possession", "validator"])
def test_a_card_that_does_not_prove_its_vrf_key_is_refused(tmp_path: Path, field: str) -> None:
    _, card = home(tmp_path, "one", 1)
    _, other = home(tmp_path, "two", 2)
    path = tmp_path / "card.json"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(card, **{field: getattr(other, field)})))
    with pytest.raises(InvalidInputError, match="does not prove") as error:
        read_card(path)
    assert error.value.code == "bad_card"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(card, possession="zz")))
    with pytest.raises(InvalidInputError, match="does not prove"):
        read_card(path)


def test_a_card_whose_address_carries_more_than_an_address_is_refused(tmp_path: Path) -> None:
    """A zone of IPv6 may hold any character: it would end the peers of validator.toml, or name more of them."""
    _, card = home(tmp_path, "one", 1)
    path = tmp_path / "card.json"
    for address in ("[fe80::1%eth0]:1", f"[::1%,{'ab' * 20}@192.0.2.6:1,]:1", '[::1%"]\nkeep_blocks = 1\n#]:1'):
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(card, address=address)))
        with pytest.raises(InvalidInputError) as error:
            read_card(path)
        assert error.value.code == "bad_address"


def test_genesis_takes_the_vrf_keys_of_the_cards(tmp_path: Path) -> None:
    cards = [home(tmp_path, f"v{number}", number + 1)[1] for number in range(3)]
    genesis = parse_genesis(genesis_of(cards, "cards", app_state_document(MINIMAL, [], []), time_ms=1_700_000_000_000))
    assert genesis.params.vote_extensions_enable_height == 1
    powers = [(one.pub_key.ed25519, one.voting_power) for one in genesis.validators.validators]
    assert initial_state(genesis.app_state, "cards", genesis.genesis_time_ms, powers)
    assert {entry["vrf_key"] for entry in genesis.app_state["vrf"]} == {card.vrf for card in cards}
    doubled = msgspec.structs.replace(cards[1], vrf=cards[0].vrf)
    with pytest.raises(InvalidInputError, match="VRF key stands twice"):
        genesis_of([cards[0], doubled], "cards", app_state_document(MINIMAL, [], []))
