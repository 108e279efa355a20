"""The ledger: a pure state machine over a map of records; blocks in, results and changed keys out.

Entry points: `genesis.initial_state`, `execute.check_tx`, `execute.check_proposal`, `execute.execute_block`.

Glossary:
    account: balance and signers under a public key; farms' owners, tenants and nodes' purses are accounts.
    farm, node: who offers capacity, and the machine with a key of its own that does.
    slot: a node's row in the append-only table from which witnesses are drawn; also, on a node, the place of a lease.
    deployment, lease: what a tenant asked for, and its contract with one primary and ordered standbys.
    term: who holds a lease, numbered from 1; a new one is decided by witnesses and in force a fence time later.
    epoch, tick, void: a span of block time; a part of it that should hold a block; an epoch with too few blocks.
    report: a node's one statement for an epoch; its witnesses' reports decide whether it is paid.
    claim: settling a lease's epochs, by anyone, in order, from what reports say.
    challenge, verdict: saying that a holder is down; what a drawn witness saw.
    deposit, bond, escrow, bounty, stake: tokens that a record holds, until its rule gives them back or away.
"""
