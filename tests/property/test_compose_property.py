"""`check_compose` never raises, is bounded and deterministic, whatever it is given; plans keep their invariants."""

import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.base.errors import RefusedError
from freehold.base.limits import MAX_LEASES_PER_NODE
from freehold.base.presets import MINIMAL
from freehold.client.compose import keys
from freehold.client.compose.checking import check_compose
from freehold.client.compose.dotenv import DotenvError, parse_dotenv
from freehold.client.compose.interpolation import InterpolationError, interpolate
from freehold.client.compose.model import ComposeFile, Limits, Service
from freehold.client.compose.quantities import parse_duration_ms, parse_size_bytes
from freehold.client.compose.references import ImageReference, parse_image_reference
from freehold.client.plan import Candidate
from freehold.client.planner import Grid, Wishes, make_plan
from freehold.ledger.pricing import lease_cost, price_per_hour, reserve_per_hour
from freehold.ledger.records import NODE_VERSION, Node
from freehold.ledger.transactions import Offer, Place, Resources

patient = settings(deadline=None)  # the first example loads and compiles the schema

ENVIRONMENT = {"A": "a", "EMPTY": "", "ODD": "\udcff", "HALF": "\ud800", "NUL": "\0", "LONG": "x" * 9_000}
KNOWN_KEYS = sorted(
    {key for table in vars(keys).values() if isinstance(table, keys.KeyTable) for key in table.known}
    | {"x-freehold", "<<", "web", "db", "default", "x-other"}
)
TOKENS = st.sampled_from([
    "HALF", "ODD",
    "$A", "${A:-b}", "${", "$$", "$ODD", "$NUL", "$LONG", "80:80", "1g", "10s", "a:/b", "web", "db", "yes", "22:22",
    "../x", "0", "-1", "1.5", "service_healthy", "service_started", "always", "CMD", "NONE", "tcp", "/a", "/a/..",
    "~", "null", "é", "\t", "'", '"', "&a", "*a", "store", "empty",
])  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), TOKENS,
    st.lists(TOKENS, max_size=3).map(" ".join),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KNOWN_KEYS), inner, max_size=5),
    max_leaves=20,
)
SERVICE = st.fixed_dictionaries(
    {"image": st.sampled_from(["a", "A", "a:1"])},
    optional={key: VALUES for key in sorted(keys.SERVICE.supported | {"x-freehold", "build"}) if key != "image"},
)
FILES = st.fixed_dictionaries(
    {"services": st.dictionaries(st.sampled_from(["web", "db", "Bad"]), SERVICE | VALUES, max_size=3)},
    optional={key: VALUES for key in ("volumes", "networks", "secrets", "x-freehold", "name", "version")},
)


def check(text: str | bytes, env_file_text: str | None = None) -> None:
    result = check_compose(text, "compose.yaml", ENVIRONMENT, env_file_text)
    assert result.ok == (result.model is not None)
    assert result.ok == all(problem.is_warning for problem in result.problems)
    assert len(result.problems) <= 152
    for problem in result.problems:
        assert problem.code
        assert problem.message
        assert problem.line >= 0
    json.dumps(result.as_json())
    assert check_compose(text, "compose.yaml", ENVIRONMENT, env_file_text) == result


@patient
@given(st.text(max_size=200), st.none() | st.text(max_size=50))
def test_any_text_is_answered(text: str, env_file_text: str | None) -> None:
    check(text, env_file_text)


@patient
@given(st.binary(max_size=200))
def test_any_bytes_are_answered(data: bytes) -> None:
    check(data)


@patient
@given(st.lists(st.sampled_from([
    "services:", "\n", "  ", "a", ": ", "- ", "[", "]", "{", "}", "&x ", "*x", "<<: ", "!!str ", "!x ", "|", ">", "'",
    '"', "#", "image: a", "? ", "---", "...", "%YAML 1.1\n", "\t", ",", "$A", "${A", "\x85",
]), max_size=30).map("".join))  # fmt: skip
def test_any_shuffled_yaml_is_answered(text: str) -> None:
    check(text)


@settings(patient, max_examples=50)  # the slowest; longer runs found nothing
@given(FILES)
def test_any_structure_is_answered(value: dict[str, Any]) -> None:
    check(yaml.safe_dump(value))


@patient
@given(st.text(max_size=60) | st.lists(TOKENS, max_size=6).map("".join))
def test_interpolation_and_env_files_answer_or_refuse(text: str) -> None:
    try:
        result, _ = interpolate(text, ENVIRONMENT)
        assert "$" in text or result == text
    except InterpolationError as error:
        assert error.code in ("bad_interpolation", "variable_required", "oversized")
    try:
        parse_dotenv(text, ENVIRONMENT)
    except DotenvError as error:
        assert error.line >= 0


@patient
@given(st.text(max_size=200).map(lambda text: text.replace("$", "$$")))
def test_a_doubled_dollar_protects_any_text(text: str) -> None:
    assert interpolate(text, {})[0] == text.replace("$$", "$")


@patient
@given(st.text(max_size=40))
def test_quantities_and_references_answer_anything(text: str) -> None:
    assert (parse_duration_ms(text) or 0) >= 0
    assert (parse_size_bytes(text) or 0) >= 0
    reference = parse_image_reference(text)
    assert reference is None or str(reference) == text


NODES = st.builds(
    lambda number, farm, memory, disk, used, offer, country, age, leases: Candidate(
        bytes([number]) * 32,
        f"farm{farm}",
        Node(
            version=NODE_VERSION, farm=bytes([farm]) * 32, slot=number, box_key=b"", addresses=[],
            place=Place(country, ""), capacity=Resources(2_000, memory, disk), used=Resources(0, min(used, memory), 0),
            lease_slots=((1 << leases) - 1).to_bytes(32, "little"), offer=Offer(*offer), stake=0, deposit=0,
            registered_epoch=0, retired_epoch=0, last_report_epoch=100 - age, history_count=0, history_root=b"",
        ),
    ),
    st.integers(0, 255), st.integers(1, 5), st.integers(64, 2_048), st.integers(0, 1_000), st.integers(0, 2_048),
    st.tuples(*[st.integers(0, 10**9)] * 3), st.sampled_from(["BE", "NL"]), st.integers(0, 4),
    st.sampled_from([0, 1, 255, 256]),
)  # fmt: skip
SERVICES = st.builds(
    lambda name, replicas, standbys, limits: Service(
        name=name, image=ImageReference("a"), replicas=replicas, standbys=standbys, limits=limits
    ),
    st.sampled_from("abcd"), st.integers(1, 3), st.integers(0, 2),
    st.builds(Limits, st.integers(10, 1_000), st.integers(16, 512), st.just(10), st.integers(0, 256)),
)  # fmt: skip


@patient
@given(
    st.lists(NODES, max_size=12, unique_by=lambda candidate: candidate.id),
    st.lists(SERVICES, min_size=1, max_size=4, unique_by=lambda service: service.name),
    st.none() | st.integers(0, 10**10),
    st.randoms(use_true_random=False),
)
def test_a_plan_keeps_its_promises(
    nodes: list[Candidate], services: list[Service], limit: int | None, rng: Any
) -> None:
    model = ComposeFile(name="x", services={service.name: service for service in services})
    grid = Grid(preset=MINIMAL, candidates=nodes, epoch=100, now_ms=0, power_warning="")
    wishes = Wishes(prefer=(("country", "BE"),), max_price_per_hour=limit)
    try:
        plan = make_plan(model, grid, wishes, 1 << 62)
    except RefusedError as error:
        assert error.code in ("no_node_fits", "price_above_limit")
        return
    used = {candidate.id: candidate.node.used for candidate in nodes}
    leases = {candidate.id: int.from_bytes(candidate.node.lease_slots, "little").bit_count() for candidate in nodes}
    by_id = {candidate.id: candidate.node for candidate in nodes}
    per_hour = escrow = 0
    for placement in plan.placements:
        order = placement.order
        assert len({by_id[member].farm for member in order.members}) == len(order.members)
        assert len(order.members) == 1 + model.services[order.service].standbys
        reserve, standbys = reserve_per_hour(MINIMAL, order.price_per_hour), len(order.members) - 1
        per_hour += order.price_per_hour + standbys * reserve
        escrow += lease_cost(order.price_per_hour, reserve, standbys, 0, order.prepaid_ms)
        for member in order.members:
            assert by_id[member].last_report_epoch >= 98
            assert price_per_hour(by_id[member].offer, order.resources) <= order.price_per_hour
            used[member] = Resources(
                used[member].vcpu_milli + order.resources.vcpu_milli,
                used[member].memory_mib + order.resources.memory_mib,
                used[member].disk_mib + order.resources.disk_mib,
            )
            leases[member] += 1
            capacity = by_id[member].capacity
            assert used[member].vcpu_milli <= capacity.vcpu_milli
            assert used[member].memory_mib <= capacity.memory_mib
            assert used[member].disk_mib <= capacity.disk_mib
            assert leases[member] <= MAX_LEASES_PER_NODE
    assert plan.price.per_hour == per_hour
    assert limit is None or per_hour <= limit
    assert plan.price.first_charge >= escrow
    shuffled = list(nodes)
    rng.shuffle(shuffled)
    again = make_plan(
        model, Grid(preset=MINIMAL, candidates=shuffled, epoch=100, now_ms=0, power_warning=""), wishes, 1 << 62
    )
    assert again == plan
