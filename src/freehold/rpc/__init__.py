"""The ledger's public face: HTTP with JSON over an engine, and the daemon that runs both.

Glossary:
    desk: what the HTTP layer asks of an engine (`desk.Desk`); the daemon's is `engine_desk.EngineDesk`.
    route: one method on one path with its schemas and limits (`routes.ROUTES`); OpenAPI is generated from them.
    history: what the newest 1,000 blocks did, in memory, for lists and the status page; never proven.
    committed: in a durable block; `checked`: it waits in the mempool.

What a client believes of all this is up to its own verification (`freehold.lightclient`). Spec: docs/spec/rpc.md.
"""
