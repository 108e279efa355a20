"""Messages and signed statements between tenant, node and witness; no I/O.

Glossary:
    spec: what a service runs, in clear only for tenant and members; the ledger holds its salted hash.
    sealed spec: the spec in a box for one member, signed by the tenant.
    evidence: what a node says it served in an epoch; one leaf per lease, their root in the node's report.
    duty: what a witness saw of its targets in an epoch; one leaf per target, their root in the witness's report.
"""
