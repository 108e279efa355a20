"""The application's side of ABCI 2.0, as CometBFT v0.38.25 speaks it over a unix socket.

Glossary:
    request, response: one message each way; a connection's responses come in the order of its requests.
    connection: one of the engine's four (consensus, mempool, query, snapshot); told apart by what they ask.
    exception: the response that says that the application cannot go on; the engine stops.
    halt: what the application does after an exception; a restart replays what was not committed.

`messages` has the shapes, `framing` the bytes on the socket, `service` their meaning for an `Application`, `proposal`
the choice of a block's transactions, `server` the socket.
Spec: docs/spec/comet-engine.md.
"""
