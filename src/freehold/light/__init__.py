"""Headers, commits and state proofs in CometBFT's and ICS-23's formats, and their verification. Pure: no I/O, no clock.

Glossary:
    header: the fourteen fields of a block; its hash is what validators sign for (`types`, `headers`).
    commit: the precommits of one height, one entry for each validator of the set.
    light block: header, commit and validator set of one height: all that a light client needs (`types.LightBlock`).
    app hash: the root of the state after block H; it stands in the header of block H+1.
    genesis: CometBFT's genesis document; the root of all trust (`genesis.TrustedGenesis`).
    commitment proof: ICS-23's proof that a key has a value, or none, under a root (`ics23`).
    proof file: `freehold-proof/1`, light blocks and commitment proofs that verify against genesis alone (`proof_file`).

Spec: docs/spec/light-client.md, docs/spec/state-proofs.md.
"""
