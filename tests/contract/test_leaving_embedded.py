"""An embedded ledger's state in a genesis on CometBFT: what changes, what is refused, and how the chain goes on."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from leaving import ALICE, BOB, GENESIS_MS, OLD, VALIDATOR, make_ledger, old_genesis
from vrf_chain import validator_key, vrf_key

from freehold.base.amounts import TOKEN
from freehold.base.codec import encode
from freehold.base.errors import InvalidInputError
from freehold.base.presets import MINIMAL
from freehold.client.session import sign_tx
from freehold.consensus import application as abci
from freehold.consensus.carried_genesis import carried_app_state, check_origin, continued_state, state_root
from freehold.consensus.leaving import LastState
from freehold.consensus.ledger_application import LedgerApplication
from freehold.ledger import keys
from freehold.ledger.carrying import check_leavable
from freehold.ledger.codes import Code
from freehold.ledger.genesis_beacon import prove_possession, vrf_document
from freehold.ledger.records import Account, Deployment, Params
from freehold.ledger.state import decode_record
from freehold.ledger.transactions import Transfer
from freehold.light.genesis import ConsensusParams, TrustedGenesis, genesis_document, parse_genesis
from freehold.light.skipping import check_light_block
from freehold.light.types import Timestamp
from freehold.light.verify import verify_commit

NEW = "new-1"
KEY = validator_key(0)


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> LastState:
    return make_ledger(tmp_path_factory.mktemp("old"))


def new_genesis(last: LastState, chain_id: str = NEW, edit: Callable[[dict[str, Any]], None] = lambda _: None) -> bytes:
    state = carried_app_state(last.light_block, last.records)
    state["vrf"] = vrf_document([prove_possession(vrf_key(0), KEY.public)])
    edit(state)
    return genesis_document(
        chain_id=chain_id,
        genesis_time=Timestamp.from_ms(GENESIS_MS + 60_000),
        validators=[(KEY.public, 10, "v0")],
        app_state=state,
        initial_height=last.light_block.header.height,
        params=ConsensusParams(vote_extensions_enable_height=1),
    )


def init_request(
    genesis: TrustedGenesis, time_ms: int, height: int, members: tuple[abci.Validator, ...]
) -> abci.InitChainRequest:
    return abci.InitChainRequest(
        chain_id=genesis.chain_id,
        time_ms=time_ms,
        initial_height=height,
        validators=members,
        app_state=genesis.app_state,
    )


def begin(genesis: TrustedGenesis) -> dict[bytes, bytes]:
    return continued_state(
        genesis.app_state,
        genesis.chain_id,
        initial_height=genesis.initial_height,
        genesis_time_ms=genesis.genesis_time.ms,
        validators=[(member.pub_key.ed25519, member.voting_power) for member in genesis.validators.validators],
    )


def test_the_state_is_carried_byte_for_byte_but_for_the_listed_records(last: LastState) -> None:
    genesis = parse_genesis(new_genesis(last))
    state = begin(genesis)
    listed = {keys.PARAMS, keys.VRF_KEYS, keys.ELECTIONS, keys.CANDIDATES, keys.CARRIED, keys.ATTENDANCE}
    assert {key for key in state if state[key] != last.records.get(key)} == listed
    assert last.records.keys() <= state.keys()
    before, after = (decode_record(records[keys.PARAMS], Params) for records in (last.records, state))
    height = last.light_block.header.height
    assert (after.genesis_ms, after.values, after.faucet) == (before.genesis_ms, before.values, before.faucet)
    assert (after.chain_id, after.validators, after.rules) == (NEW, [(KEY.public, 10)], [(1, 1), (height, 3)])
    assert begin(parse_genesis(new_genesis(last))) == state  # anybody computes the same
    assert genesis.genesis_time_ms == GENESIS_MS  # epochs go on


def test_the_old_header_verifies_against_the_old_genesis(last: LastState) -> None:
    old, block = old_genesis(), last.light_block
    check_light_block(block, OLD)
    commit = block.signed_header.commit
    verify_commit(OLD, old.validators, commit.block_id, block.header.height, commit)
    assert block.header.app_hash == state_root(last.records)
    assert check_origin(parse_genesis(new_genesis(last)), old) == block.header.height - 1


def test_another_chains_genesis_is_no_origin(last: LastState) -> None:
    genesis = parse_genesis(new_genesis(last))
    for other, of in ((genesis, old_genesis("old-2")), (old_genesis(), old_genesis())):
        with pytest.raises(InvalidInputError) as caught:
            check_origin(other, of)
        assert caught.value.code == "other_origin"


def tamper_balance(state: dict[str, Any]) -> None:
    name = base64.b64encode(keys.account_key(BOB.public)).decode()
    rows = state["carried"]["records"]
    index = next(number for number, row in enumerate(rows) if row[0] == name)
    account = decode_record(base64.b64decode(rows[index][1]), Account)
    account = Account(account.version, account.balance + 1, *[getattr(account, field) for field in FIELDS])
    rows[index][1] = base64.b64encode(encode(account)).decode()


FIELDS = ("nonce", "reserved", "threshold", "signers")


def tamper_header(state: dict[str, Any]) -> None:
    raw = bytearray(base64.b64decode(state["carried"]["light_block"]))
    at = raw.find(OLD.encode())
    raw[at + 4] ^= 3  # another chain's name in the header
    state["carried"]["light_block"] = base64.b64encode(bytes(raw)).decode()


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (tamper_balance, "carried_state_mismatch"),
        (lambda state: state["carried"]["records"].pop(), "carried_state_mismatch"),
        (tamper_header, "carried_header_invalid"),
        (lambda state: state["carried"]["records"].reverse(), "bad_genesis"),
        (lambda state: state["carried"].update(genesis_ms=GENESIS_MS + 1), "bad_genesis"),
        (lambda state: state["values"].update(min_fee=MINIMAL.min_fee + 1), "bad_genesis"),
        (lambda state: state.update(rules=1), "bad_genesis"),
        (lambda state: state.update(unknown=1), "bad_genesis"),
        (lambda state: state["carried"].update(light_block="AAAA"), "bad_genesis"),
    ],
)
def test_a_tampered_document_is_refused(last: LastState, edit: Callable[[dict[str, Any]], None], code: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        begin(parse_genesis(new_genesis(last, edit=edit)))
    assert caught.value.code == code


def test_another_chains_header_is_refused(last: LastState, tmp_path: Path) -> None:
    other = make_ledger(tmp_path / "other", chain_id="old-2")
    with pytest.raises(InvalidInputError) as caught:
        carried_app_state(other.light_block, last.records)
    assert caught.value.code == "carried_state_mismatch"


def test_the_chain_id_must_change(last: LastState) -> None:
    with pytest.raises(InvalidInputError) as caught:
        begin(parse_genesis(new_genesis(last, chain_id=OLD)))
    assert caught.value.code == "same_chain_id"


def test_a_state_with_deployments_is_not_left(last: LastState) -> None:
    deployment = Deployment(1, ALICE.public, "guestbook", [], [], GENESIS_MS, 0)
    with pytest.raises(InvalidInputError, match="guestbook") as caught:
        check_leavable(last.records | {keys.deployment_key(bytes(32)): encode(deployment)})
    assert caught.value.code == "deployments_run"


def test_a_state_above_the_documents_limit_is_refused(last: LastState) -> None:
    with pytest.raises(InvalidInputError) as caught:
        carried_app_state(last.light_block, last.records, max_bytes=500)
    assert caught.value.code == "state_too_large"


def test_a_height_above_one_needs_a_carried_state(tmp_path: Path) -> None:
    genesis = old_genesis()
    application = LedgerApplication.open(tmp_path, genesis, VALIDATOR)
    members = (abci.Validator(VALIDATOR.public, 10),)
    request = init_request(genesis, GENESIS_MS, 5, members)
    with pytest.raises(InvalidInputError) as caught:
        application.init_chain(request)
    application.close()
    assert caught.value.code == "bad_genesis"


def test_the_application_goes_on_at_that_height(last: LastState, tmp_path: Path) -> None:
    genesis = parse_genesis(new_genesis(last))
    application = LedgerApplication.open(tmp_path, genesis, KEY, vrf_key=vrf_key(0))
    height, now = genesis.initial_height, genesis.genesis_time.ms
    members = (abci.Validator(KEY.public, 10),)
    request = init_request(genesis, now, height, members)
    root = application.init_chain(request).app_hash
    assert application.info().height == 0  # the engine begins anew after a crash here
    assert application.init_chain(request).app_hash == root
    replayed, good, gap = (
        sign_tx(chain, ALICE, nonce, MINIMAL.min_fee, 500, Transfer(BOB.public, TOKEN))
        for chain, nonce in ((OLD, 3), (NEW, 3), (NEW, 0))
    )
    codes = [application.check_tx(abci.CheckTxRequest(tx)).code for tx in (replayed, good, gap)]
    assert codes == [Code.WRONG_CHAIN, Code.OK, Code.WRONG_NONCE]
    votes: tuple[abci.VoteInfo, ...] = ()
    for number in (height, height + 1):
        prepare = abci.PrepareProposalRequest(
            height=number, time_ms=now, proposer=KEY.public, txs=(good,), max_tx_bytes=100_000, last_votes=votes
        )
        txs = application.prepare_proposal(prepare).txs
        block = {"height": number, "time_ms": now, "proposer": KEY.public, "txs": txs}
        assert application.process_proposal(abci.ProcessProposalRequest(**block)).accept
        extension = application.extend_vote(abci.ExtendVoteRequest(number)).extension
        application.finalize_block(abci.FinalizeBlockRequest(**block))
        application.commit()
        votes = (abci.VoteInfo(validator=KEY.public, power=10, signed=True, extension=extension),)
        now += 1_000
    account = decode_record(application.state.get(keys.account_key(ALICE.public)) or b"", Account)
    before = decode_record(last.records[keys.account_key(ALICE.public)], Account)
    assert (account.nonce, account.balance) == (before.nonce + 1, before.balance - TOKEN - MINIMAL.min_fee)
    assert application.info().height == height + 1
    application.close()
