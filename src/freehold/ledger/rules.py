"""Which rules hold at which height: each version is a table from body to its rule; old versions stay for replay."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from freehold.base.errors import LocalProtocolError
from freehold.ledger import (
    accounts,
    attendance,
    bonds,
    challenges,
    deployments,
    elections,
    farms,
    fee_shares,
    keys,
    reports,
    settlement,
    slashing,
    transactions,
    upgrades,
)
from freehold.ledger.codes import Code
from freehold.ledger.context import Context
from freehold.ledger.records import Elections, Params
from freehold.ledger.transactions import Tx
from freehold.ledger.votes import Misbehavior, Vote

Process = Callable[[Context, Tx, Any], Code]


class RuleSet(msgspec.Struct, frozen=True):
    """One version of the rules.

    Attributes:
        version: as `Params.rules` names it.
        processes: the rule of each body that this version knows.
        begin: what a block does before its transactions, given the evidence and the last commit that came with it.
        end: how a block books the fees that its transactions paid.
    """

    version: int
    processes: dict[type, Process]
    begin: Callable[[Context, Sequence[Misbehavior], Sequence[Vote]], None]
    end: Callable[[Context, int], None]


def _begin_1(_: Context, __: Sequence[Misbehavior], ___: Sequence[Vote]) -> None:
    """Rule-set 1 has one fixed validator set."""


def _end_1(ctx: Context, fees: int) -> None:
    ctx.add_totals(fees=fees)


def _begin_2(ctx: Context, misbehavior: Sequence[Misbehavior], _: Sequence[Vote]) -> None:
    record = elections.begin_rules_2(ctx)
    if record is not None:
        elections.choose_set(ctx, record, slashing.slash(ctx, record, misbehavior))


def _begin_3(ctx: Context, misbehavior: Sequence[Misbehavior], votes: Sequence[Vote]) -> None:
    record = elections.begin_rules_2(ctx)
    if record is None:
        return
    removed = slashing.slash(ctx, record, misbehavior)
    attendance.count_votes(ctx, votes)
    if elections.is_new_era(ctx, record):
        attendance.close_era(ctx, record)
    elections.choose_set(ctx, record, removed)


def _end_2(ctx: Context, fees: int) -> None:
    record = ctx.state.get(keys.ELECTIONS, Elections)
    if record is None:
        _end_1(ctx, fees)
    else:
        fee_shares.book_fees(ctx, fees, elections.preset_of(record).fee_permill)


_RULES_1 = RuleSet(
    version=1,
    begin=_begin_1,
    end=_end_1,
    processes={
        transactions.Transfer: accounts.process_transfer,
        transactions.SetSigners: accounts.process_set_signers,
        transactions.RegisterFarm: farms.process_register_farm,
        transactions.RegisterNode: farms.process_register_node,
        transactions.UpdateNode: farms.process_update_node,
        transactions.AddStake: farms.process_add_stake,
        transactions.RetireNode: farms.process_retire_node,
        transactions.ReleaseNode: farms.process_release_node,
        transactions.Deploy: deployments.process_deploy,
        transactions.Accept: deployments.process_accept,
        transactions.Refund: deployments.process_refund,
        transactions.TopUp: deployments.process_top_up,
        transactions.Close: deployments.process_close,
        transactions.Claim: settlement.process_claim,
        transactions.Report: reports.process_report,
        transactions.Challenge: challenges.process_challenge,
        transactions.Verdict: challenges.process_verdict,
        transactions.Resolve: challenges.process_resolve,
        transactions.Upgrade: upgrades.process_upgrade,
    },
)

_RULES_2 = RuleSet(
    version=2,
    begin=_begin_2,
    end=_end_2,
    processes={
        **_RULES_1.processes,
        transactions.Bond: bonds.process_bond,
        transactions.AddBond: bonds.process_add_bond,
        transactions.WithdrawBond: bonds.process_withdraw_bond_2,
        transactions.ReleaseBond: bonds.process_release_bond_2,
        transactions.ClaimFees: bonds.process_claim_fees,
    },
)

_RULES_3 = RuleSet(
    version=3,
    begin=_begin_3,
    end=_end_2,
    processes={
        **_RULES_2.processes,
        transactions.WithdrawBond: bonds.process_withdraw_bond,
        transactions.ReleaseBond: bonds.process_release_bond,
        transactions.Rejoin: bonds.process_rejoin,
    },
)

RULE_SETS = {rules.version: rules for rules in (_RULES_1, _RULES_2, _RULES_3)}


def rules_at(params: Params, height: int) -> RuleSet:
    """Give the rules by which the block at a height is executed.

    Raises:
        LocalProtocolError: this program does not know them and must not go on.
    """
    version = 0
    for first_height, candidate in params.rules:
        if first_height <= height:
            version = candidate
    rules = RULE_SETS.get(version)
    if rules is None:
        raise LocalProtocolError(
            f"height {height} needs rules version {version}, this program knows {sorted(RULE_SETS)}",
            code="unknown_rules",
            hint="install the Freehold release that knows them, then start this node again: its data stays as it is",
        )
    return rules
