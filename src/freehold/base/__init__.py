"""The ground floor: ids, amounts, limits, errors, presets and the one codec.

Glossary:
    account id: 32 bytes, the ed25519 public key with which the account was created; shown as Stellar `G...`.
    node id: 32 bytes, the node's ed25519 public key and its endpoint id on the transport; shown as hex.
    lease id: 32 bytes, the hash that names a lease; people see service names instead.
    amount: a whole number of 10^-7 token ("stroops"), within int64.
    epoch: a span of block time, numbered from genesis time.
"""
