"""The engine that orders transactions, and the state on disk under it.

Glossary:
    application: the ledger behind ABCI's calls (`application`, `ledger_application`).
    engine: what decides blocks; here the embedded one, a single validator in process (`embedded`, over `chain`).
    app hash: the root of the state after a block; it stands in the header of the next block.
    proof block: the block that follows one with transactions at once, so that its app hash stands in a header.
    final: in a block with a commit, durable on disk; only then is a transaction acknowledged.
    pending: a proposal that is durable and not final; after a crash it, and no other, becomes the next block.
    lane: a class of transactions with room of its own in the mempool and in each block (`mempool`).
    version: the state after one height; recent ones are kept and can be proven (`state_store`).
    path: SHA-256 of a key, its place in the tree (`tree`); bucket: the leaves below one node of the upper tree.

Start from `ledger_engine.open_ledger_engine`.
Spec: docs/spec/state-tree.md and docs/spec/embedded-engine.md.
"""
