"""The shell around `light`: reads the ledger over HTTP and believes nothing that it has not verified.

Glossary:
    header: the newest light block that was fetched and verified against genesis.
    snapshot: values of the state with their proofs checked against one header's app hash.
    outcome: what the ledger said to a transaction: its code, and the height at which it was committed.
"""
