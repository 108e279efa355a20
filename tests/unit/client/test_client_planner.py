"""The planner: distinct owners, free capacity, the ledger's price, and errors that say why nothing fits."""

import json
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from freehold.base.amounts import TOKEN
from freehold.base.errors import InvalidInputError, RefusedError
from freehold.base.presets import MINIMAL
from freehold.client.compose.checking import check_compose
from freehold.client.compose.model import ComposeFile
from freehold.client.plan import Candidate, Plan
from freehold.client.planner import Grid, Wishes, make_plan
from freehold.ledger.codes import Code
from freehold.ledger.deployments import check_order
from freehold.ledger.pricing import lease_charge, price_per_hour, reserve_per_hour
from freehold.ledger.records import NODE_VERSION, Node
from freehold.ledger.transactions import Offer, Place, ProbeKind, Resources

GUESTBOOK = """
name: guestbook
services:
  web: {image: web, ports: ["8080:80"], x-freehold: {probe: {http: /health, port: 80}}}
  db: {image: db, expose: [5432], volumes: ["data:/data"], secrets: [pw]}
volumes: {data: {x-freehold: {size: 2GiB}}}
secrets: {pw: {environment: PW}}
"""
OFFER = Offer(TOKEN // 100, TOKEN // 200, TOKEN // 10_000)
UNUSED = Resources(0, 0, 0)
RICH = 1_000 * TOKEN


@dataclass(frozen=True)
class Shape:
    """What of a node matters to a test."""

    farm: int
    memory_mib: int = 4_096
    offer: Offer = OFFER
    country: str = "BE"
    used: Resources = UNUSED
    last_report_epoch: int = 99
    registered_epoch: int = 0
    retired_epoch: int = 0
    leases: int = 0


def candidate(number: int, shape: Shape) -> Candidate:
    node = Node(
        version=NODE_VERSION,
        farm=bytes([shape.farm]) * 32,
        slot=number,
        box_key=bytes(32),
        addresses=[],
        place=Place(shape.country, "city"),
        capacity=Resources(4_000, shape.memory_mib, 50_000),
        used=shape.used,
        lease_slots=((1 << shape.leases) - 1).to_bytes(32, "little"),
        offer=shape.offer,
        stake=0,
        deposit=0,
        registered_epoch=shape.registered_epoch,
        retired_epoch=shape.retired_epoch,
        last_report_epoch=shape.last_report_epoch,
        history_count=0,
        history_root=b"",
    )
    return Candidate(bytes([number]) * 32, f"farm{shape.farm}", node)


def grid(*shapes: Shape) -> Grid:
    candidates = [candidate(number, shape) for number, shape in enumerate(shapes, 1)]
    return Grid(preset=MINIMAL, candidates=candidates, epoch=100, now_ms=1_700_000_000_000, power_warning="")


FOUR = [Shape(farm) for farm in (1, 1, 2, 2, 3, 3, 4, 4)]


def model(text: str = GUESTBOOK) -> ComposeFile:
    result = check_compose(text, environment={"PW": "x"})
    assert result.model is not None, result.problems
    return result.model


def plan(text: str = GUESTBOOK, shapes: list[Shape] = FOUR, balance: int = RICH, **wishes: object) -> Plan:
    return make_plan(model(text), grid(*shapes), Wishes(**wishes), balance)  # type: ignore[arg-type]


def refusal(*args: object, **kwargs: object) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        plan(*args, **kwargs)  # type: ignore[arg-type]
    assert caught.value.hint
    return caught.value


def test_services_are_spread_over_owners_and_members_are_distinct() -> None:
    web, db = plan().placements
    assert (len(web.members), len(db.members)) == (2, 1)
    assert len({member.owner for member in (*web.members, *db.members)}) == 3


def test_orders_pass_the_ledgers_own_check() -> None:
    for placement in plan().placements:
        order = placement.complete(b"i" * 32, b"s" * 32)
        assert check_order(order, MINIMAL.epoch_ms) is Code.OK
    web, db = plan().placements
    assert (web.order.probe.kind, web.order.probe.port, web.order.probe.path) == (ProbeKind.HTTP, 80, "/health")
    assert (db.order.probe.kind, db.order.ports, db.order.local_volume) == (ProbeKind.NONE, [5432], True)
    assert db.order.resources == Resources(250, 256, 256 + 2_048)


def test_the_price_is_what_the_ledger_takes() -> None:
    made = plan()
    orders = [placement.order for placement in made.placements]
    charge = sum(lease_charge(MINIMAL, order).total for order in orders) + MINIMAL.record_deposit + MINIMAL.min_fee
    assert made.price.first_charge == charge
    web, db = (order.price_per_hour for order in orders)
    assert made.price.per_hour == web + db + reserve_per_hour(MINIMAL, web)
    assert [part.refundable for part in made.price.parts] == [True, True, True, False]


def test_the_price_of_a_lease_covers_its_dearest_member() -> None:
    dear = replace(OFFER, vcpu_hour=TOKEN)
    made = plan("services: {a: {image: a}}", [Shape(1), Shape(2, offer=dear)])
    (placement,) = made.placements
    assert placement.order.price_per_hour == price_per_hour(dear, placement.order.resources)
    assert placement.members[0].owner == bytes([1]) * 32  # the cheaper one serves


def test_the_plan_does_not_depend_on_the_order_of_candidates() -> None:
    forwards = grid(*FOUR)
    backwards = replace(forwards, candidates=list(reversed(forwards.candidates)))
    plans = [make_plan(model(), each, Wishes(), RICH).as_json() for each in (forwards, backwards)]
    assert plans[0] == plans[1]


def test_preferences_are_met_where_they_can_be_and_told_where_not() -> None:
    shapes = [Shape(1), Shape(2), Shape(3, country="NL")]
    made = plan("services: {a: {image: a}}", shapes, prefer=(("country", "NL"),))
    (placement,) = made.placements
    assert placement.members[0].country == "NL"
    assert len(made.unmet) == 1
    assert "country=NL" in made.unmet[0]
    assert plan("services: {a: {image: a}}", shapes, prefer=(("country", "NL"), ("country", "BE"))).unmet == ()


def test_a_files_own_wishes_count_too() -> None:
    text = "services: {a: {image: a, x-freehold: {standbys: 0}}}\nx-freehold: {prefer: {farm: farm3}}"
    (placement,) = plan(text).placements
    assert placement.members[0].farm == "farm3"


def test_why_no_node_fits_is_counted() -> None:
    shapes = [
        *[Shape(farm, memory_mib=128) for farm in (1, 2, 3, 4, 5)],
        Shape(6, country="US"),
        Shape(7, country="US"),
        Shape(8, last_report_epoch=90),
        Shape(9, retired_epoch=3),
        Shape(10, leases=256),
        Shape(11, used=Resources(4_000, 0, 0)),
        Shape(12, used=Resources(0, 0, 50_000)),
    ]
    error = refusal("services: {a: {image: a}}", shapes, prefer=(("country", "!US"),))
    assert error.code == "no_node_fits"
    for words in (
        "5 with too little free memory",
        "2 in an excluded country",
        "1 without a fresh report",
        "1 retired",
        "1 with no free lease slot",
        "1 with too little free CPU",
        "1 with too little free disk",
    ):
        assert words in error.message


def test_standbys_need_other_owners() -> None:
    error = refusal("services: {a: {image: a}}", [Shape(1), Shape(1), Shape(1)])
    assert "3 of an owner who already holds this lease" in error.message
    assert "standbys: 0" in error.hint


def test_no_nodes_at_all() -> None:
    assert refusal(shapes=[]).code == "no_node_fits"


def test_a_node_that_registered_just_now_counts_as_fresh() -> None:
    text = "services: {a: {image: a, x-freehold: {standbys: 0}}}"
    assert plan(text, [Shape(1, last_report_epoch=-1, registered_epoch=99)]).placements
    assert refusal(text, [Shape(1, last_report_epoch=-1, registered_epoch=97)]).code == "no_node_fits"


def test_capacity_is_counted_across_the_plan() -> None:
    text = "services: {a: {image: a, mem_limit: 3g, x-freehold: {standbys: 0}}, " \
        "b: {image: a, mem_limit: 3g, x-freehold: {standbys: 0}}}"  # fmt: skip
    placements = plan(text, [Shape(1), Shape(1)]).placements
    assert placements[0].members[0].node != placements[1].members[0].node
    assert refusal(text, [Shape(1)]).code == "no_node_fits"


def test_a_tight_grid_is_packed_when_spreading_fails() -> None:
    """Spread over owners, `b` and `c` would each take the larger node's owner; only best fit leaves room for all."""
    text = (
        "services: {"
        "a: {image: a, mem_limit: 2g, x-freehold: {standbys: 0}}, "
        "b: {image: a, mem_limit: 1g, x-freehold: {standbys: 0}}, "
        "c: {image: a, mem_limit: 1g, x-freehold: {standbys: 0}}}"
    )
    cheap = replace(OFFER, vcpu_hour=0)
    shapes = [Shape(1, memory_mib=2_048), Shape(2, memory_mib=2_048, offer=cheap)]
    assert len(plan(text, shapes).placements) == 3


def test_a_price_limit_finds_the_cheap_nodes_or_says_what_they_cost() -> None:
    dear = Offer(TOKEN, TOKEN, TOKEN)
    text = "services: {a: {image: a, x-freehold: {standbys: 0}}, b: {image: a, x-freehold: {standbys: 0}}}"
    shapes = [Shape(1), Shape(2, offer=dear)]
    spread = plan(text, shapes)
    assert len({placement.members[0].owner for placement in spread.placements}) == 2
    cheap = plan(text, shapes, max_price_per_hour=TOKEN // 10)
    assert {placement.members[0].owner for placement in cheap.placements} == {bytes([1]) * 32}
    error = refusal(text, shapes, max_price_per_hour=1)
    assert error.code == "price_above_limit"
    assert "tokens an hour" in error.message
    assert refusal(text + "\nx-freehold: {max_price_per_hour: 0}", shapes, max_price_per_hour=TOKEN).code == (
        "price_above_limit"
    )


def test_a_small_balance_is_refused_with_what_is_missing() -> None:
    needed = plan().price.first_charge
    assert plan(balance=needed).price.first_charge == needed
    error = refusal(balance=needed - 1)
    assert error.code == "balance_too_small"
    assert "0.0000001" in error.hint


@pytest.mark.parametrize("prepaid_ms", [0, MINIMAL.epoch_ms - 1, 1 << 50])
def test_prepaid_time_has_bounds(prepaid_ms: int) -> None:
    with pytest.raises(InvalidInputError):
        plan(prepaid_ms=prepaid_ms)


def test_json_face() -> None:
    face = plan().as_json()
    assert set(face) == {"services", "price", "placement", "warnings", "who_can_read"}
    assert face["services"] == ["web", "db"]
    assert set(face["price"]) == {"per_hour", "first_charge", "runs_out", "parts"}
    assert face["price"]["runs_out"] == "2023-11-14T23:13:20Z"
    assert {"service", "replica", "node", "farm", "country", "city", "price_per_hour", "standbys"} == set(
        face["placement"][0]
    )
    json.dumps(face)


def test_warnings_are_told_before_paying() -> None:
    warnings = "\n".join(plan().warnings())
    assert "the volume `data` (2048 MiB) of `db` lives on one node and dies with it" in warnings
    assert "`db` has no standby" in warnings
    assert "`db` has no probe" in warnings
    assert "`web` has no standby" not in warnings
    one_hand = replace(grid(*FOUR), power_warning="it can rewrite the ledger")
    assert "it can rewrite the ledger" in make_plan(model(), one_hand, Wishes(), RICH).warnings()
    assert "" not in make_plan(model(), grid(*FOUR), Wishes(), RICH).warnings()


def test_failover_with_empty_volumes_is_told() -> None:
    text = "services: {a: {image: a, volumes: ['v:/v'], x-freehold: {failover: empty}}}\nvolumes: {v: }"
    assert any("EMPTY" in warning for warning in plan(text).warnings())


def test_who_can_read_names_farmers_and_what_is_public() -> None:
    entries = plan().who_can_read()
    (db,) = (entry for entry in entries if entry["service"] == "db")
    assert all(word in db["what"] for word in ("memory", "environment", "secrets", "volume `data`"))
    assert db["tier"] == "0"
    primary, standby = (entry for entry in entries if entry["service"] == "web")
    assert "memory" in primary["what"]
    assert "memory" not in standby["what"]
    assert "image and environment" in standby["what"]
    public = " ".join(entry["what"] for entry in entries if not entry["service"])
    assert all(word in public for word in ("`guestbook`", "`web`", "`db`", "ports", "path /health"))
