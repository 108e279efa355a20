"""Keys of the state: one byte of family, then the id. Their meaning is fixed here, for verifiers too."""

PARAMS = b"P"
TOTALS = b"T"
VRF_KEYS = b"K"
ELECTIONS = b"E"
CANDIDATES = b"C"
VALIDATOR_SETS = b"V"
ATTENDANCE = b"A"
UPGRADE = b"U"
CARRIED = b"O"


def account_key(account: bytes) -> bytes:
    """Key of an `Account`."""
    return b"a" + account


def farm_key(owner: bytes) -> bytes:
    """Key of a `Farm`."""
    return b"f" + owner


def node_key(node: bytes) -> bytes:
    """Key of a `Node`."""
    return b"n" + node


def node_history_key(node: bytes) -> bytes:
    """Key of a `NodeHistory`."""
    return b"m" + node


def node_slot_key(slot: int) -> bytes:
    """Key of a `NodeSlot`."""
    return b"s" + slot.to_bytes(4, "big")


def deployment_key(deployment: bytes) -> bytes:
    """Key of a `Deployment`."""
    return b"d" + deployment


def lease_key(lease: bytes) -> bytes:
    """Key of a `Lease`."""
    return b"l" + lease


def epoch_key(epoch: int, report_epochs: int) -> bytes:
    """Key of an `EpochRecord`: a ring of R."""
    return b"e" + (epoch % report_epochs).to_bytes(4, "big")


def beacon_key(height: int) -> bytes:
    """Key of a `BeaconRecord`: a ring of 64."""
    return b"b" + bytes([height % 64])


def report_key(node: bytes, epoch: int, report_epochs: int) -> bytes:
    """Key of a `ReportRecord`: a ring of R per node."""
    return b"r" + node + (epoch % report_epochs).to_bytes(4, "big")


def challenge_key(challenge: bytes) -> bytes:
    """Key of a `ChallengeRecord`."""
    return b"c" + challenge


def node_lease_key(node: bytes, slot: int) -> bytes:
    """Key of a `NodeLease`: which lease holds a node's lease slot; how an agent finds its own work."""
    return b"k" + node + bytes([slot])


def tenant_key(account: bytes) -> bytes:
    """Key of a `TenantIndex`: the deployments of an account, so that one mnemonic finds them all again."""
    return b"t" + account


def bond_key(validator: bytes) -> bytes:
    """Key of a `ValidatorBond`."""
    return b"v" + validator


def validator_address_key(address: bytes) -> bytes:
    """Key of a `ValidatorAddress`: the key behind a bonded validator's address, 20 bytes."""
    return b"w" + address
