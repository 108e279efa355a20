"""Keys, signatures, boxes, hashes and Merkle trees: the only floor that touches cryptographic libraries.

Glossary:
    purpose: what a hash or signature is for; a versioned tag framed in front of the bytes (`hashing.Purpose`).
    part: one length-framed field under a purpose; framing makes ("a", "bc") and ("ab", "c") different bytes.
    seed: the 32 secret bytes of an ed25519 key; shown as StrKey `S...`, only when its owner asks.
    public key: 32 bytes; of an account shown as StrKey `G...`.
    mnemonic: 12 to 24 BIP-39 words from which every key of a tenant is derived (`mnemonic`, `slip10`).
    box: an X25519 sealed box, which only the holder of the box key opens and which does not say who sealed it.
    keystore: a secret encrypted under a passphrase, as JSON text (`keystore`).
    leaf hash, inner hash: the two kinds of node of a Merkle tree, told apart by a prefix or a purpose.
    mountain range: an append-only list of perfect Merkle trees; its peaks are all that an appender keeps (`mmr`).
    ZIP-215: the rule by which a consensus signature counts, the same for every verifier (`ed25519.verify`).

Nothing here prints a secret: classes that hold one hide it from `repr`, errors never quote it.
Spec: docs/spec/keys.md and docs/spec/hashes.md.
"""
