"""The pure reconcile core of the node agent: facts in, instructions out; no I/O, no clock.

Glossary:
    desired: what the verified ledger wants of this node for one lease (`desired.desired_of`).
    phase: where this node's part of a lease stands; all transitions are in one table (`machine.TRANSITIONS`).
    instruction: one thing for the shell to do; its outcome comes back as an event.
"""
