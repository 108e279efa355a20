"""CometBFT as the engine: how it is installed, set up, started and watched.

Glossary:
    engine: the `cometbft` program of one pinned release, a child of the process that is its application.
    pin: the module's version with the sums of its source and of everything it is built from (`pins`).
    operator: who runs one validator; others know public keys and an address of it alone (`operators`).
    home: an operator's folder: keys, genesis.json, validator.toml, the application's `data`, the engine's `engine`.

Spec: docs/spec/comet-engine.md.
"""
