"""All values of the rules (docs/spec/presets.md), as two presets; no other module states one of these numbers.

Times on the ledger are whole milliseconds of block time since the Unix epoch; durations carry their unit.
"""

import msgspec

from freehold.base.amounts import TOKEN


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """The values that rule-set 1 runs on; frozen into genesis."""

    name: str
    epoch_ms: int
    tick_ms: int  # longest gap between blocks
    min_block_gap_ms: int  # shortest gap, when transactions wait
    report_window_ms: int  # after the epoch's end
    report_slot_ms: int  # a node's slot lies in the first part of the window
    report_epochs: int  # R: how long reports live and may be claimed
    state_heights: int  # N: versions of state kept for proofs
    witnesses: int  # w
    threshold: int  # t
    full_age_epochs: int
    probes_per_duty: int
    probes_required: int
    poll_ms: int  # header poll and heartbeat
    suspect_ms: int
    fence_ms: int  # F
    clock_allowance_ms: int  # D
    probe_timeout_ms: int
    verdict_window_ms: int  # V
    accept_deadline_ms: int
    prepaid_ms: int  # by default
    grace_ms: int  # sealed, after funds end
    node_stake: int = 100 * TOKEN
    challenge_bond: int = 1 * TOKEN  # = bounty
    verdict_fee: int = TOKEN // 100
    min_fee: int = TOKEN // 1000
    record_deposit: int = TOKEN // 10  # refundable, per record that a person creates
    reserve_permill: int = 200  # a standby's share of the price
    farm_permill: int = 850
    witness_permill: int = 100  # the rest, and remainders, go to the treasury
    weight_cap: int = 400 * TOKEN  # stake above this weighs no more
    void_percent: int = 50  # an epoch with fewer ticks covered is void
    bounty_every_epochs: int = 24  # at most one bounty a lease in this span


MINIMAL = Preset(
    name="minimal",
    epoch_ms=10_000,
    tick_ms=1_000,
    min_block_gap_ms=100,
    report_window_ms=10_000,
    report_slot_ms=6_000,
    report_epochs=360,
    state_heights=256,
    witnesses=3,
    threshold=2,
    full_age_epochs=1,
    probes_per_duty=3,
    probes_required=2,
    poll_ms=1_000,
    suspect_ms=3_000,
    fence_ms=5_000,
    clock_allowance_ms=1_000,
    probe_timeout_ms=1_000,
    verdict_window_ms=5_000,
    accept_deadline_ms=60_000,
    prepaid_ms=3_600_000,
    grace_ms=60_000,
)

MAINNET = Preset(
    name="mainnet",
    epoch_ms=3_600_000,
    tick_ms=5_000,
    min_block_gap_ms=1_000,
    report_window_ms=3_600_000,
    report_slot_ms=2_700_000,
    report_epochs=168,
    state_heights=1_024,
    witnesses=15,
    threshold=10,
    full_age_epochs=720,
    probes_per_duty=3,
    probes_required=2,
    poll_ms=5_000,
    suspect_ms=15_000,
    fence_ms=20_000,
    clock_allowance_ms=2_000,
    probe_timeout_ms=3_000,
    verdict_window_ms=15_000,
    accept_deadline_ms=900_000,
    prepaid_ms=86_400_000,
    grace_ms=14 * 86_400_000,
)

PRESETS = {preset.name: preset for preset in (MINIMAL, MAINNET)}


class ElectionPreset(msgspec.Struct, frozen=True, kw_only=True):
    """The values by which rule-set 2 elects validators; frozen into the ledger when elections begin."""

    seats: int  # validators at most
    max_candidates: int  # the table holds no more
    min_bond: int
    min_owners: int  # an election with fewer owners seats nobody
    min_total_bond: int  # nor does one with less bonded in all
    cap_permill: int  # of the power, for one owner; where owners are few, an equal share
    era_epochs: int
    unbonding_ms: int  # from the end of the era; longer than a light client's trust period
    unbonding_blocks: int  # both must have passed, as for CometBFT's evidence
    fee_permill: int  # the validators' share of fees
    duplicate_vote_permill: int  # what is cut of a bond
    light_attack_permill: int


MINIMAL_ELECTIONS = ElectionPreset(
    seats=8,
    max_candidates=16,
    min_bond=100 * TOKEN,
    min_owners=3,
    min_total_bond=300 * TOKEN,
    cap_permill=250,
    era_epochs=6,
    unbonding_ms=3_600_000,
    unbonding_blocks=100,
    fee_permill=800,
    duplicate_vote_permill=50,
    light_attack_permill=1_000,
)

MAINNET_ELECTIONS = ElectionPreset(
    seats=64,
    max_candidates=128,
    min_bond=10_000 * TOKEN,
    min_owners=4,
    min_total_bond=400_000 * TOKEN,
    cap_permill=200,
    era_epochs=24,
    unbonding_ms=21 * 86_400_000,
    unbonding_blocks=100_000,
    fee_permill=800,
    duplicate_vote_permill=50,
    light_attack_permill=1_000,
)

ELECTIONS = {MINIMAL.name: MINIMAL_ELECTIONS, MAINNET.name: MAINNET_ELECTIONS}


class AttendancePreset(msgspec.Struct, frozen=True, kw_only=True):
    """The values by which rule-set 3 puts out validators that do not sign; frozen into the ledger."""

    min_signed_permill: int  # of an era's blocks: who signed less loses its place in the table
    wait_eras: int  # until its owner may put it back
    max_absent_permill: int  # of the power, were all back: no more is out at once


MINIMAL_ATTENDANCE = AttendancePreset(min_signed_permill=500, wait_eras=1, max_absent_permill=250)

MAINNET_ATTENDANCE = AttendancePreset(min_signed_permill=500, wait_eras=1, max_absent_permill=250)

ATTENDANCE = {MINIMAL.name: MINIMAL_ATTENDANCE, MAINNET.name: MAINNET_ATTENDANCE}
