"""A proof file across changing validator sets: hops from genesis or from a pinned header, and who could forge it."""

import time
import tracemalloc

import pytest
from light_chain import GENESIS_MS, Tree
from light_history import History, genesis_state, now_at, run
from msgspec.structs import replace

from freehold.base.errors import CodecError, InvalidInputError, LocalProtocolError, NotVerifiedError
from freehold.base.limits import MAX_PROOF_FILE_BYTES, MAX_PROOF_HOPS_BYTES
from freehold.light.bisection import Bisection
from freehold.light.headers import header_hash
from freehold.light.proof_file import MAX_LIGHT_BLOCKS, parse_proof_file, verify_proof_file, write_proof_file
from freehold.light.trust import GENESIS_TRUST, PinnedTrust, trust_bounds, trust_period_ms
from freehold.light.types import LightBlock

TREE = Tree({f"key{n}".encode(): f"value {n}".encode() for n in range(9)})
# One leaves and one joins at each height: six heights on, nobody is left.
CHAIN = History([{n + k: 10 for k in range(6)} for n in range(40)])
GENESIS = CHAIN.genesis
TOP = 30
PERIOD_MS = trust_period_ms(GENESIS)


def proven(height: int = TOP) -> LightBlock:
    return CHAIN.block(height, app_hash=TREE.root)


def hops(root: int = 0, target: int = TOP) -> list[LightBlock]:
    """The blocks between, as an exporter finds them."""
    bisection = Bisection(genesis_state(CHAIN), target, trust_bounds(GENESIS_TRUST, GENESIS), None)
    run(bisection, CHAIN)
    blocks = [state.light_block for state in bisection.trace[1:-1]]
    return [block for block in blocks if block is not None and block.header.height > root]


def file_of(blocks: list[LightBlock], height: int = TOP) -> bytes:
    return write_proof_file(GENESIS, [proven(height)], [TREE.statement(height, b"key3")], hops=blocks)


def pin(height: int) -> PinnedTrust:
    return PinnedTrust(height, header_hash(CHAIN.header(height)))


def refused(data: bytes, code: str, trust: object = GENESIS_TRUST, now_ms: int | None = None) -> NotVerifiedError:
    with pytest.raises(NotVerifiedError) as caught:
        verify_proof_file(data, GENESIS, now_ms, trust=trust)  # type: ignore[arg-type]
    assert caught.value.code == code
    return caught.value


def test_hops_lead_from_genesis_across_changing_sets() -> None:
    data = file_of(hops())
    facts = verify_proof_file(data, GENESIS)
    assert facts.value(TOP, b"key3") == b"value 3" and list(facts.headers) == [TOP]
    assert facts.trace[0].height == 0 and len(facts.trace) > 5
    forgers = facts.forgers()  # more than two thirds of six
    assert forgers is not None and (forgers.count, forgers.validators, forgers.height) == (5, 6, TOP)


def test_a_missing_hop_is_told() -> None:
    error = refused(file_of([]), "not_enough_trust")
    assert "exported again" in error.hint
    blocks = hops()
    refused(file_of(blocks[:2] + blocks[5:]), "not_enough_trust")


def test_forged_hops_are_refused() -> None:
    forger = History([{n + k: 10 for k in range(6)} for n in range(100, 140)], fork=b"forged")
    blocks = [forger.block(height) for height in range(1, TOP)]
    top = forger.block(TOP, app_hash=TREE.root)
    data = write_proof_file(GENESIS, [top], [TREE.statement(TOP, b"key3")], hops=blocks)
    refused(data, "validator_set_mismatch")  # the first adjacent one
    data = write_proof_file(GENESIS, [top], [TREE.statement(TOP, b"key3")], hops=blocks[5:])
    refused(data, "not_enough_trust")
    half = [*hops(target=9), forger.block(10)]
    data = write_proof_file(GENESIS, [top], [TREE.statement(TOP, b"key3")], hops=half)
    with pytest.raises(NotVerifiedError):
        verify_proof_file(data, GENESIS)


def test_from_a_pinned_header_the_hops_below_it_are_not_needed() -> None:
    middle = hops()[-2].header.height
    data = file_of([CHAIN.block(middle), *hops(middle)])
    now_ms = now_at(TOP)
    facts = verify_proof_file(data, GENESIS, now_ms, trust=pin(middle))
    assert facts.value(TOP, b"key3") == b"value 3" and facts.trace[0].height == middle
    forgers = facts.forgers()
    assert forgers is not None and forgers.count == 3  # more than a third vouch for a set of their own
    refused(data, "not_enough_trust")  # from genesis nothing leads there
    with pytest.raises(LocalProtocolError):
        verify_proof_file(data, GENESIS, trust=pin(middle))


def test_the_pinned_header_itself_needs_nobody() -> None:
    top = PinnedTrust(TOP, header_hash(proven().header))
    facts = verify_proof_file(file_of([]), GENESIS, now_at(TOP), trust=top)
    assert facts.forgers() is None and len(facts.trace) == 1
    facts = verify_proof_file(file_of(hops()), GENESIS, now_at(TOP), trust=top)  # hops below it change nothing
    assert facts.forgers() is None


def test_pinned_trust_refuses_what_does_not_hold() -> None:
    data = file_of(hops())
    assert "--trust" in refused(data, "trust_root_missing", PinnedTrust(TOP + 1, bytes(32)), now_at(TOP)).hint
    first = hops()[0].header.height
    refused(data, "trust_root_mismatch", PinnedTrust(first, bytes(32)), now_at(TOP))
    verify_proof_file(data, GENESIS, GENESIS_MS + first * 1000 + PERIOD_MS - 1, trust=pin(first))
    refused(data, "trust_expired", pin(first), GENESIS_MS + first * 1000 + PERIOD_MS)
    refused(data, "header_from_future", pin(first), GENESIS_MS)
    low = write_proof_file(
        GENESIS,
        [proven(9), proven(10)],
        [TREE.statement(9, b"key3"), TREE.statement(10, b"key3")],
    )
    refused(low, "below_trusted", PinnedTrust(10, header_hash(proven(10).header)), now_at(10))


def test_blocks_below_the_pinned_one_are_no_hiding_place() -> None:
    below = hops()[0].header.height
    odd = CHAIN.block(below, set(list(CHAIN.powers(below))[:4]))  # exactly two thirds
    data = file_of([odd, *hops(below)])
    refused(data, "not_enough_power", PinnedTrust(TOP, header_hash(proven().header)), now_at(TOP))


def test_hops_do_not_count_against_the_size_of_what_is_proven() -> None:
    wide = History([{n: 1 for n in range(60)}, {n: 1 for n in range(10, 70)}, {n: 1 for n in range(20, 80)}])
    blocks = [wide.block(1), wide.block(2)]
    top = wide.block(3, app_hash=TREE.root)
    data = write_proof_file(wide.genesis, [top], [TREE.statement(3, b"key3")], [bytes(4096)] * 4, blocks)
    assert len(data) > MAX_PROOF_FILE_BYTES
    assert verify_proof_file(data, wide.genesis).value(3, b"key3") == b"value 3"
    with pytest.raises(InvalidInputError) as caught:
        write_proof_file(wide.genesis, [top], [TREE.statement(3, b"key3")], [bytes(4096)] * 7, blocks)
    assert caught.value.code == "oversized"


def test_what_a_file_may_hold_is_bounded() -> None:
    """More blocks, more bytes of them, or a larger one than may be: refused before any signature is looked at."""
    few = History([{0: 1}])

    def written(history: History, heights: range) -> None:
        top = history.block(heights[-1] + 1, app_hash=TREE.root)
        blocks = [history.block(height) for height in heights]
        write_proof_file(history.genesis, [top], [TREE.statement(heights[-1] + 1, b"key3")], hops=blocks)

    written(few, range(2, 1 + MAX_LIGHT_BLOCKS))
    with pytest.raises(InvalidInputError, match=f"1 to {MAX_LIGHT_BLOCKS} light blocks"):
        written(few, range(2, 2 + MAX_LIGHT_BLOCKS))
    wide = History([{n: 1 for n in range(150)}])
    count = MAX_PROOF_HOPS_BYTES // (len(wide.block(2).encode()) * 4 // 3)
    with pytest.raises(InvalidInputError) as caught:
        written(wide, range(2, count + 6))
    assert caught.value.code == "oversized"
    with pytest.raises(InvalidInputError) as caught:  # one block above 32 KiB
        written(History([{n: 1 for n in range(220)}]), range(2, 3))
    assert caught.value.code == "oversized"


def test_the_dearest_file_costs_no_more_than_its_signatures() -> None:
    """30 hops of 150 validators, nearly a megabyte: 4,650 signatures at some 0.1 ms, in memory that is its own size."""
    wide = History([{n: 1 for n in range(150)}])
    top = wide.block(32, app_hash=TREE.root)
    blocks = [wide.block(height) for height in range(2, 32)]
    data = write_proof_file(wide.genesis, [top], [TREE.statement(32, b"key3")], hops=blocks)
    tracemalloc.start()
    began = time.process_time()
    verify_proof_file(data, wide.genesis)
    took_s, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took_s < 10 and peak < 24 * len(data)


def test_hops_stand_below_what_is_proven() -> None:
    with pytest.raises((CodecError, InvalidInputError)):
        file_of([*hops(), CHAIN.block(TOP + 1)])


def test_flipped_bytes_of_hops_are_refused() -> None:
    data = file_of(hops())
    file = parse_proof_file(data)
    assert len(file.light_blocks) > 5
    for at in range(0, len(data), 211):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises((CodecError, NotVerifiedError)):
            verify_proof_file(changed, GENESIS)


@pytest.mark.parametrize(
    ("state", "period_ms"),
    [
        ({}, 32 * 3_600_000),
        ({"elections": {"values": {"unbonding_ms": 3_600_000}}}, 2_400_000),
        ({"elections": 1}, 32 * 3_600_000),
        ({"preset": "minimal"}, 2_400_000),  # an upgrade can begin elections by the preset's values
        ({"preset": "mainnet"}, 32 * 3_600_000),
        ({"preset": "minimal", "elections": {"values": {"unbonding_ms": 7_200_000}}}, 4_800_000),
        ({"preset": ["minimal"]}, 32 * 3_600_000),
    ],
)
def test_the_trust_period_is_two_thirds_of_what_can_be_punished(state: dict[str, object], period_ms: int) -> None:
    assert trust_period_ms(replace(GENESIS, app_state=state)) == period_ms
