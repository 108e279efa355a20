"""History: what every block did, in a database that is written from blocks and can be made anew from them.

Glossary:
    record: a durable block as the index takes it in (`records.BlockRecord`), with its events as text.
    subject: whom an event concerns: an account or farm `G...`, or a lease, deployment, node or other id as hex.
    span: heights without a gap that the index holds; blocks that were pruned before it saw them lie between two.
    cursor: a place between two rows, opaque to who carries it; blocks that come later do not move it.

Nothing here is proven, and nothing here can stop or slow the ledger. Spec: docs/spec/history.md.
"""
