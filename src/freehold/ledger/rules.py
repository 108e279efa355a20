"""Which rules hold at which height: each version is a table from body to its rule; old versions stay for replay."""

from collections.abc import Callable
from typing import Any

import msgspec

from freehold.base.errors import LocalProtocolError
from freehold.ledger import accounts, challenges, deployments, farms, reports, settlement, transactions
from freehold.ledger.codes import Code
from freehold.ledger.context import Context
from freehold.ledger.records import Params
from freehold.ledger.transactions import Tx

Process = Callable[[Context, Tx, Any], Code]


class RuleSet(msgspec.Struct, frozen=True):
    """One version of the rules."""

    version: int
    processes: dict[type, Process]


_RULES_1 = RuleSet(
    version=1,
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
    },
)

RULE_SETS = {rules.version: rules for rules in (_RULES_1,)}
LATEST_VERSION = max(RULE_SETS)


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
            hint="upgrade Freehold before starting this node",
        )
    return rules
