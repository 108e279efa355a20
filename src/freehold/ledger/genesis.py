"""The first state of a ledger, from the `app_state` of its genesis document.

Everything is named in public keys, amounts are texts of tokens, prices integers of 10^-7 token. The document decides
every value that the rules run on. Spec: docs/spec/state.md, docs/spec/presets.md.
"""

from typing import Any, NoReturn

import msgspec

from freehold.base.amounts import MAX_AMOUNT, TOKEN, format_amount, parse_amount
from freehold.base.codec import Record, encode
from freehold.base.decoders import convert
from freehold.base.errors import InvalidInputError
from freehold.base.ids import is_name, parse_id
from freehold.base.limits import ID_BYTES, MAX_CHAIN_ID_BYTES, MAX_WITNESSES
from freehold.base.presets import ATTENDANCE, PRESETS, AttendancePreset, ElectionPreset, Preset
from freehold.crypto.strkey import decode_account, encode_account
from freehold.ledger import keys
from freehold.ledger.context import PARAMS_VERSION, TOTALS_VERSION, VALUE_NAMES, preset_values
from freehold.ledger.farms import FARM_VERSION, HISTORY_VERSION, SLOT_VERSION, check_node_fields, new_node
from freehold.ledger.fields import is_place
from freehold.ledger.genesis_beacon import GenesisVrf, VrfEntry, vrf_document, vrf_record
from freehold.ledger.genesis_elections import ElectionsEntry, GenesisBond, election_records, elections_document
from freehold.ledger.records import (
    ACCOUNT_VERSION,
    Account,
    Farm,
    NodeHistory,
    NodeSlot,
    Params,
    Totals,
)
from freehold.ledger.rules import RULE_SETS
from freehold.ledger.transactions import Offer, Place, RegisterNode, Resources

SUPPLY = 10_000_000 * TOKEN
FARM_BALANCE = 10_000 * TOKEN
FAUCET_BALANCE = 1_000_000 * TOKEN
NODE_PURSE = 10 * TOKEN
OWNER_PURSE = 10 * TOKEN  # left to a validator's owner beside its bonds
_MAX_VALIDATORS = 1_000
_MAX_DURATION_MS = 3_660 * 86_400_000
_BEACON_RING = 60  # of 64 heights kept, with room: a challenge's witnesses are drawn within its verdict window


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class AccountEntry(_Strict, frozen=True):
    """An account with its balance in tokens."""

    id: str
    balance: str


class FarmEntry(_Strict, frozen=True):
    """A farm; its owner is one of the accounts."""

    owner: str
    name: str
    country: str
    city: str


class ResourcesEntry(_Strict, frozen=True):
    """Capacity of a node."""

    vcpu_milli: int
    memory_mib: int
    disk_mib: int


class OfferEntry(_Strict, frozen=True):
    """Asking prices in 10^-7 token."""

    vcpu_hour: int
    memory_gib_hour: int
    disk_gib_hour: int


class NodeEntry(_Strict, frozen=True):
    """A node that takes part from epoch 0; stake and purse come out of its farm's balance."""

    node: str
    box_key: str
    farm: str
    addresses: list[str]
    capacity: ResourcesEntry
    offer: OfferEntry
    stake: str
    purse: str


class AppState(_Strict, frozen=True):
    """The `app_state` of a genesis document; without `elections` the validators of genesis stay.

    With `vrf` votes carry VRF proofs and the beacon is taken from them; without it a proposer signs it.
    """

    rules: int
    preset: str
    values: dict[str, int]
    accounts: list[AccountEntry]
    faucet: str | None
    treasury: str
    farms: list[FarmEntry]
    nodes: list[NodeEntry]
    elections: ElectionsEntry | None = None
    vrf: list[VrfEntry] | None = None


class GenesisFarm(msgspec.Struct, frozen=True):
    """What `app_state_document` needs of a farm."""

    owner: bytes
    name: str
    country: str
    city: str


class GenesisNode(msgspec.Struct, frozen=True):
    """What `app_state_document` needs of a node; `farm` is its owner."""

    node: bytes
    box_key: bytes
    farm: bytes
    addresses: list[str]
    capacity: Resources
    offer: Offer
    stake: int = 100 * TOKEN
    purse: int = NODE_PURSE


def app_state_document(
    preset: Preset,
    farms: list[GenesisFarm],
    nodes: list[GenesisNode],
    *,
    faucet: bytes | None = None,
    accounts: dict[bytes, int] | None = None,
    elections: ElectionPreset | None = None,
    attendance: AttendancePreset | None = None,
    bonds: list[GenesisBond] | None = None,
    vrf: list[GenesisVrf] | None = None,
) -> dict[str, Any]:
    """Build the `app_state` of a new ledger from public keys alone: 10,000,000 tokens, and no other source.

    Args:
        preset: values of the rules; tests may scale its times.
        farms: each owner gets 10,000 tokens, out of which come deposits, stakes and purses.
        nodes: take part from epoch 0.
        faucet: an account with 1,000,000 tokens.
        accounts: further balances, in 10^-7 token.
        elections: how validators are elected (then the ledger begins with rule-set 3); None: those of genesis stay.
        attendance: how much they must sign; None for the preset's values.
        bonds: of validators of genesis; each owner gets 10,000 tokens, as a farm does, or what its bonds need.
        vrf: every validator's VRF key (then votes carry the beacon); None: the proposer signs it.
    """
    balances = {farm.owner: FARM_BALANCE for farm in farms}
    for owner in sorted({bond.owner for bond in bonds or []}):
        amounts = [bond.bond + preset.record_deposit for bond in bonds or [] if bond.owner == owner]
        least = sum(amounts) + preset.record_deposit + OWNER_PURSE
        balances[owner] = max(balances.get(owner, 0), FARM_BALANCE, least)
    if faucet is not None:
        balances[faucet] = balances.get(faucet, 0) + FAUCET_BALANCE
    for account, amount in (accounts or {}).items():
        balances[account] = balances.get(account, 0) + amount
    treasury = SUPPLY - sum(balances.values())
    if treasury < 0:
        _refuse("the accounts hold more than the whole supply", "lower their balances")
    document = {
        "rules": 1 if elections is None else 3,
        "preset": preset.name,
        "values": {name: getattr(preset, name) for name in VALUE_NAMES},
        "accounts": [
            {"id": encode_account(account), "balance": format_amount(amount)}
            for account, amount in sorted(balances.items())
        ],
        "faucet": None if faucet is None else encode_account(faucet),
        "treasury": format_amount(treasury),
        "farms": [
            {"owner": encode_account(farm.owner), "name": farm.name, "country": farm.country, "city": farm.city}
            for farm in farms
        ],
        "nodes": [
            {
                "node": node.node.hex(),
                "box_key": node.box_key.hex(),
                "farm": encode_account(node.farm),
                "addresses": node.addresses,
                "capacity": msgspec.structs.asdict(node.capacity),
                "offer": msgspec.structs.asdict(node.offer),
                "stake": format_amount(node.stake),
                "purse": format_amount(node.purse),
            }
            for node in nodes
        ],
    }
    if elections is not None:
        document["elections"] = elections_document(elections, bonds or [], attendance or ATTENDANCE[preset.name])
    if vrf is not None:
        document["vrf"] = vrf_document(vrf)
    return document


def initial_state(
    app_state: dict[str, Any], chain_id: str, genesis_time_ms: int, validators: list[tuple[bytes, int]]
) -> dict[bytes, bytes]:
    """Build the state before the first block.

    Args:
        app_state: of the genesis document, decoded JSON.
        chain_id: 1 to 50 bytes.
        genesis_time_ms: Unix time, from which epochs are counted.
        validators: public key and power of each.

    Raises:
        InvalidInputError: the document is not one that these rules can start from.
    """
    try:
        document = convert(app_state, AppState)
    except msgspec.ValidationError as error:
        _refuse(f"app_state of genesis: {error}", "make a new one with `freehold grid up`")
    _check_outer(document, chain_id, genesis_time_ms, validators)
    preset = parse_preset(document.preset, document.values)
    builder = _Builder(preset)
    for entry in document.accounts:
        builder.add_account(decode_account(entry.id), parse_amount(entry.balance))
    faucet = b"" if document.faucet is None else decode_account(document.faucet)
    if faucet and keys.account_key(faucet) not in builder.records:
        _refuse("the faucet is not one of the accounts", "give it a balance under accounts")
    treasury = parse_amount(document.treasury)
    supply = treasury + builder.supply
    if supply > MAX_AMOUNT:
        _refuse("more tokens than can exist", "lower the balances")
    for farm in document.farms:
        builder.add_farm(farm)
    for number, node in enumerate(document.nodes):
        builder.add_node(number, node)
    if document.elections is not None:
        builder.records |= election_records(document.elections, dict(validators), preset.record_deposit, builder.take)
    if document.vrf is not None:
        builder.records[keys.VRF_KEYS] = vrf_record(document.vrf, dict(validators))
    builder.records[keys.PARAMS] = Params(
        version=PARAMS_VERSION,
        chain_id=chain_id,
        genesis_ms=genesis_time_ms,
        preset=preset.name,
        values=preset_values(preset),
        validators=validators,
        faucet=faucet,
        rules=[(1, document.rules)],
    )
    builder.records[keys.TOTALS] = Totals(
        version=TOTALS_VERSION,
        supply=supply,
        treasury=treasury,
        fees=0,
        node_slots=len(document.nodes),
        epoch=-1,
        void_ms=0,
        height=0,
        time_ms=genesis_time_ms - 1,  # the first block may carry the time of genesis
    )
    return {key: encode(record) for key, record in builder.records.items()}


def parse_preset(name: str, values: dict[str, int]) -> Preset:
    """Build a preset from a name and all of its values.

    Raises:
        InvalidInputError: an unknown name, a missing or unknown value, or values that the rules cannot run on.
    """
    if name not in PRESETS:
        _refuse(f"unknown preset {name[:40]!r}", f"use one of {', '.join(sorted(PRESETS))}")
    if set(values) != set(VALUE_NAMES):
        wrong = sorted(set(values) ^ set(VALUE_NAMES))
        _refuse(f"missing or unknown preset values: {', '.join(wrong)[:200]}", "list every value of the preset once")
    preset = Preset(name=name, **values)
    problem = _preset_problem(preset)
    if problem:
        _refuse(f"the preset cannot work: {problem}", "see docs/spec/presets.md")
    return preset


def _preset_problem(preset: Preset) -> str:
    for field in VALUE_NAMES:
        if not 0 <= getattr(preset, field) <= MAX_AMOUNT:
            return f"{field} is out of range"
    durations = [field for field in VALUE_NAMES if field.endswith("_ms")]
    for field in durations:
        if not 1 <= getattr(preset, field) <= _MAX_DURATION_MS:
            return f"{field} is not a positive duration"
    counts = ("report_epochs", "state_heights", "witnesses", "threshold", "full_age_epochs", "weight_cap", "min_fee")
    for field in counts:
        if getattr(preset, field) < 1:
            return f"{field} must be at least 1"
    rules = {
        "more witnesses than a report can name": preset.witnesses <= MAX_WITNESSES,
        "threshold must be 2 to the number of witnesses": 2 <= preset.threshold <= preset.witnesses,
        "a tick is longer than an epoch": preset.tick_ms <= preset.epoch_ms,
        "the report window is longer than an epoch": preset.report_window_ms <= preset.epoch_ms,
        "the report slots do not fit in the window": preset.report_slot_ms <= preset.report_window_ms,
        "reports live for less than four epochs": 4 <= preset.report_epochs <= 1 << 20,
        "the verdict window outlasts the kept beacons": preset.verdict_window_ms
        <= _BEACON_RING * preset.min_block_gap_ms,
        "verdicts are still open when reports close": preset.verdict_window_ms <= preset.report_window_ms,
        "the bond does not cover the verdict fees": preset.verdict_fee * preset.witnesses <= preset.challenge_bond,
        "shares are more than the whole": preset.farm_permill + preset.witness_permill <= 1_000,
        "the reserve is more than the price": preset.reserve_permill <= 1_000,
        "void_percent is more than 100": preset.void_percent <= 100,
    }
    return next((problem for problem, holds in rules.items() if not holds), "")


def _check_outer(document: AppState, chain_id: str, genesis_ms: int, validators: list[tuple[bytes, int]]) -> None:
    if document.rules not in RULE_SETS:
        _refuse(f"rules version {document.rules} is not known", "upgrade Freehold, or use the genesis of this network")
    if document.elections is not None and document.rules < 2:
        _refuse("rule-set 1 elects nobody", "take out elections, or begin with rule-set 2")
    if document.elections is not None and (document.elections.attendance is None) != (document.rules < 3):
        _refuse("elections name `attendance` from rule-set 3 on, and only then", "see docs/spec/validators.md")
    if not 1 <= len(chain_id.encode("utf-8")) <= MAX_CHAIN_ID_BYTES:
        _refuse(f"the chain id must have 1 to {MAX_CHAIN_ID_BYTES} bytes", "choose another")
    if not 1 <= genesis_ms <= 1 << 53:
        _refuse("the genesis time is out of range", "use the present")
    if not 1 <= len(validators) <= _MAX_VALIDATORS:
        _refuse(f"1 to {_MAX_VALIDATORS} validators are needed, not {len(validators)}", "name each once")
    if any(len(key) != ID_BYTES or not 1 <= power <= 1 << 53 for key, power in validators):
        _refuse("a validator has a malformed key or no power", "use ed25519 public keys of 32 bytes")
    if len({key for key, _ in validators}) != len(validators):
        _refuse("a validator is named twice", "name each once")


class _Builder:
    """Collects the records of the first state; every amount that a record holds leaves an account."""

    def __init__(self, preset: Preset) -> None:
        self.preset = preset
        self.records: dict[bytes, Record] = {}
        self.supply = 0

    def add_account(self, account: bytes, balance: int) -> None:
        """Add an account; its record deposit stays reserved."""
        if keys.account_key(account) in self.records:
            _refuse(f"account {encode_account(account)} is named twice", "name each once")
        if balance < self.preset.record_deposit:
            _refuse(f"account {encode_account(account)} has less than its record deposit", "give it more")
        self.supply += balance
        self._put_account(account, balance)

    def _put_account(self, account: bytes, balance: int) -> None:
        self.records[keys.account_key(account)] = Account(
            ACCOUNT_VERSION, balance, 0, self.preset.record_deposit, 0, []
        )

    def take(self, account: bytes, amount: int) -> None:
        """Take an amount from an account's balance, which keeps its own deposit."""
        record = self.records.get(keys.account_key(account))
        if not isinstance(record, Account):
            _refuse(f"{encode_account(account)} is not one of the accounts", "give it a balance under accounts")
        if record.balance - record.reserved < amount:
            _refuse(
                f"{encode_account(account)} cannot pay {format_amount(amount)} for its deposits, stakes and purses",
                "give it more",
            )
        self._put_account(account, record.balance - amount)

    def add_farm(self, entry: FarmEntry) -> None:
        """Add a farm; its deposit comes out of its owner's balance."""
        owner = decode_account(entry.owner)
        place = Place(entry.country, entry.city)
        if not is_name(entry.name) or not is_place(place):
            _refuse(f"farm {entry.name[:63]!r} has a bad name or place", "use a-z 0-9 and a two-letter country")
        if keys.farm_key(owner) in self.records:
            _refuse(f"{entry.owner} owns two farms", "one farm for each account")
        deposit = self.preset.record_deposit
        self.take(owner, deposit)
        self.records[keys.farm_key(owner)] = Farm(FARM_VERSION, entry.name, place, 0, deposit)

    def add_node(self, slot: int, entry: NodeEntry) -> None:
        """Add a node that takes part from epoch 0 and counts as fully aged."""
        farm_id = decode_account(entry.farm)
        farm = self.records.get(keys.farm_key(farm_id))
        if not isinstance(farm, Farm):
            _refuse(f"node {entry.node[:64]} names a farm that is not there", "list its farm under farms")
        body = RegisterNode(
            node=parse_id(entry.node),
            box_key=parse_id(entry.box_key),
            possession=b"",  # whoever makes a genesis vouches for its nodes
            addresses=entry.addresses,
            capacity=Resources(**msgspec.structs.asdict(entry.capacity)),
            offer=Offer(**msgspec.structs.asdict(entry.offer)),
            stake=parse_amount(entry.stake),
            purse=parse_amount(entry.purse),
        )
        code = check_node_fields(body, self.preset.node_stake)
        if code:
            _refuse(f"node {entry.node} is refused: {code.name.lower()}", "see docs/spec/state.md")
        if keys.node_key(body.node) in self.records or keys.account_key(body.node) in self.records:
            _refuse(f"node {entry.node} is named twice", "name each once, with a key of its own")
        deposit = self.preset.record_deposit
        if 0 < body.purse < deposit:
            _refuse(f"node {entry.node} has a purse below its record deposit", "give it more, or nothing")
        self.take(farm_id, body.stake + body.purse + deposit)
        if body.purse:
            self._put_account(body.node, body.purse)
        self.records[keys.farm_key(farm_id)] = msgspec.structs.replace(farm, nodes=farm.nodes + 1)
        self.records[keys.node_key(body.node)] = new_node(
            body, farm=farm_id, place=farm.place, slot=slot, deposit=deposit, epoch=0
        )
        self.records[keys.node_history_key(body.node)] = NodeHistory(HISTORY_VERSION, 0, [])
        self.records[keys.node_slot_key(slot)] = NodeSlot(
            SLOT_VERSION, body.node, farm_id, [(0, body.stake)], 0, -1, True
        )


def _refuse(message: str, hint: str) -> NoReturn:
    raise InvalidInputError(message, code="bad_genesis", hint=hint)
