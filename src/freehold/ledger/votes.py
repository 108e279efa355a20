"""What the engine tells the rules of the validators: who voted for the block before, and who misbehaved."""

import msgspec


class Vote(msgspec.Struct, frozen=True):
    """A validator's entry in the commit of the block before; `signed` says that it holds its vote for that block."""

    validator: bytes  # public key
    power: int
    signed: bool


class Misbehavior(msgspec.Struct, frozen=True):
    """Evidence that the engine verified: what a validator did at a height, by ABCI's number of the kind."""

    validator: bytes  # public key
    power: int
    height: int
    time_ms: int
    kind: int
    total_power: int
