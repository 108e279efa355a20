"""The transport: endpoints that are dialled by key, and one framed RPC over them (docs/spec/transport.md).

Glossary:
    endpoint: our side of the network, with a key of its own; its public key is the node id.
    connection: to one peer whose key the handshake proved; carries many streams.
    stream: a two-way pipe of bytes; one call, or one tunnel.
    link: a connection that we dialled and keep, with its signs of life.
    splice: a call after which the stream carries raw bytes.
"""
