"""Every route, asked as clients do: answers by their schema, errors in their one form."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from rpc_kit import (
    CHAIN_ID,
    FAUCET,
    GENESIS_MS,
    LEASE_ID,
    NODES,
    OWNERS,
    TENANT,
    Face,
    FakeDesk,
    desk_at,
    lease_changes,
    run,
    signed,
)

from freehold.base.amounts import TOKEN
from freehold.base.errors import InvariantError
from freehold.base.limits import MAX_RPC_BODY_BYTES
from freehold.crypto.strkey import encode_account
from freehold.ledger import keys
from freehold.ledger.events import Payment, Transferred
from freehold.ledger.transactions import Transfer, tx_id
from freehold.light.genesis import parse_genesis
from freehold.light.ics23 import SMT, CommitmentProof, verify_absence, verify_existence
from freehold.light.skipping import verify_hop
from freehold.light.trust import GENESIS_TRUST, trust_bounds, trust_genesis
from freehold.light.types import LightBlock
from freehold.rpc.desk import Halted
from freehold.rpc.routes import ROUTES


def ask(work: Callable[[Face], Awaitable[Any]], desk: FakeDesk | None = None, **settings: Any) -> Any:
    async def go() -> Any:
        async with Face(desk or desk_at(3), **settings) as face:
            return await work(face)

    return run(go())


def error_of(response: Any, status: int) -> dict[str, Any]:
    answer = response.json()
    assert response.status_code == status, answer
    assert answer.keys() >= {"code", "message"} and answer.keys() <= {"code", "message", "hint", "oldest_height"}
    assert "Traceback" not in response.text
    return answer


def test_status_says_where_the_ledger_stands():
    answer = ask(lambda face: face.get("/v1/status")).json()
    assert answer["chain_id"] == CHAIN_ID and answer["height"] == 3 and answer["validators"] == 1
    assert answer["proposing"] is True and answer["halted"] is None and answer["mempool"] == {"txs": 0, "bytes": 0}
    assert answer["time_ms"] == GENESIS_MS + 3000


def test_status_of_a_halted_ledger_says_why_and_what_to_do():
    desk = desk_at(3)
    desk.halted = Halted("disk_full", "no space is left", "free space")

    async def work(face: Face) -> tuple[Any, Any]:
        body = {"tx": base64.b64encode(signed(Transfer(OWNERS[0].public, 1))).decode()}
        return (await face.get("/v1/status")).json(), await face.post("/v1/tx", body)

    status, refused = ask(work, desk)
    assert status["halted"] == {"code": "disk_full", "message": "no space is left", "hint": "free space"}
    assert status["proposing"] is False
    assert error_of(refused, 503)["code"] == "disk_full"


def test_genesis_is_served_byte_by_byte():
    desk = desk_at(1)
    assert ask(lambda face: face.get("/v1/genesis"), desk).content == desk.genesis


@pytest.mark.parametrize("height", [None, 2])
def test_light_blocks_verify(height):
    desk = desk_at(3)
    path = "/v1/light_block" + (f"?height={height}" if height else "")
    answer = ask(lambda face: face.get(path), desk).json()
    block = LightBlock.decode(base64.b64decode(answer["light_block"]))
    genesis = parse_genesis(desk.genesis)
    state = verify_hop(trust_genesis(genesis), block, trust_bounds(GENESIS_TRUST, genesis), None)
    assert state.height == answer["height"] == (height or 3)


def test_state_is_proven_by_the_header_of_its_height():
    desk = desk_at(3)
    wanted = [keys.account_key(TENANT.public), keys.account_key(b"?" * 32), keys.TOTALS]

    async def work(face: Face) -> Any:
        return (await face.post("/v1/state", {"keys": [key.hex() for key in wanted], "height": 2})).json()

    answer = ask(work, desk)
    root = LightBlock.decode(base64.b64decode(answer["light_block"])).header.app_hash
    assert answer["height"] == 2 and root == desk.states[1].root
    for key, row in zip(wanted, answer["values"], strict=True):
        proof = CommitmentProof.decode(base64.b64decode(row["proof"]))
        assert row["key"] == key.hex()
        if row["value"] is None:
            verify_absence(SMT, root, key, proof)
        else:
            verify_existence(SMT, root, key, bytes.fromhex(row["value"]), proof)
    assert [row["value"] is None for row in answer["values"]] == [False, True, False]


def test_many_keys_are_read_in_one_version():
    wanted = [keys.account_key(bytes([n]) * 32).hex() for n in range(256)]

    async def work(face: Face) -> Any:
        return (await face.post("/v1/state", {"keys": wanted})).json()

    answer = ask(work)
    assert [row["key"] for row in answer["values"]] == wanted and answer["height"] == 3


@pytest.mark.parametrize(
    ("height", "status", "code"), [(1, 410, "height_pruned"), (9, 404, "height_unknown"), (0, 400, "bad_request")]
)
def test_heights_that_are_not_there(height, status, code):
    desk = desk_at(4)
    desk.pruned_below = 3

    async def work(face: Face) -> Any:
        state = await face.post("/v1/state", {"keys": ["50"], "height": height})
        return state, await face.get(f"/v1/light_block?height={height}")

    for response in ask(work, desk):
        answer = error_of(response, status)
        assert answer["code"] == code
        assert answer.get("oldest_height", 0) == (3 if code == "height_pruned" else 0)


def test_before_the_first_block_nothing_is_proven():
    async def work(face: Face) -> Any:
        return [await face.get("/v1/light_block"), await face.post("/v1/state", {"keys": []})]

    for response in ask(work, FakeDesk()):
        assert error_of(response, 404)["code"] == "height_unknown"


@pytest.mark.parametrize("wait", ["checked", "committed", "proven"])
def test_a_transaction_is_answered_when_asked(wait):
    desk = desk_at(3)
    data = signed(Transfer(OWNERS[0].public, TOKEN))

    async def work(face: Face) -> Any:
        response = await face.post("/v1/tx", {"tx": base64.b64encode(data).decode(), "wait": wait})
        return response.json(), await face.get(f"/v1/tx/{tx_id(data).hex()}"), desk.height

    answer, later, height = ask(work, desk)
    expected = {"tx_id": tx_id(data).hex(), "code": 0, "code_name": "OK", "data": ""}
    if wait == "checked":
        assert answer == {**expected, "height": 0, "hint": answer["hint"]}
        return
    assert answer == {**expected, "height": 4} and later.json() == answer
    assert height == (4 if wait == "committed" else 5)


def test_a_transaction_that_takes_long_is_no_error():
    desk = desk_at(3)
    desk.makes_blocks = False

    async def work(face: Face) -> Any:
        return await face.post("/v1/tx", {"tx": base64.b64encode(signed(Transfer(OWNERS[0].public, 1))).decode()})

    response = ask(work, desk, wait_s=0.02)
    answer = response.json()
    assert response.status_code == 200 and answer["code"] == 0 and answer["height"] == 0 and "tx/{id}" in answer["hint"]


def test_a_refused_transaction_names_its_code():
    async def work(face: Face) -> Any:
        return (await face.post("/v1/tx", {"tx": base64.b64encode(b"nonsense").decode()})).json()

    answer = ask(work)
    assert (answer["code"], answer["code_name"], answer["height"]) == (1, "UNDECODABLE", 0)


def test_a_full_mempool_is_told():
    desk = desk_at(1)
    desk.full = True

    async def work(face: Face) -> Any:
        return await face.post("/v1/tx", {"tx": base64.b64encode(b"12345").decode()})

    assert error_of(ask(work, desk), 503)["code"] == "mempool_full"


@pytest.mark.parametrize("text", ["", "AA=", "AAAA\n", "AB==", "A A=", "é", "AA==AA=="])
def test_base64_has_one_form(text):
    async def work(face: Face) -> Any:
        return await face.post("/v1/tx", {"tx": text})

    error_of(ask(work), 400)


def test_an_oversized_transaction_is_refused():
    async def work(face: Face) -> Any:
        return await face.post("/v1/tx", {"tx": base64.b64encode(bytes(16 * 1024 + 1)).decode()})

    error_of(ask(work), 413)


def test_unknown_transactions_and_bad_ids():
    async def work(face: Face) -> Any:
        return await face.get("/v1/tx/" + "ab" * 32), await face.get("/v1/tx/" + "AB" * 32), await face.get("/v1/tx/1")

    unknown, upper, short = ask(work)
    assert error_of(unknown, 404)["code"] == "unknown_tx"
    assert error_of(upper, 400)["code"] == error_of(short, 400)["code"] == "bad_id"


def test_lists_of_blocks_events_and_payments():
    desk = FakeDesk()

    async def work(face: Face) -> Any:
        desk.events = [Payment(LEASE_ID, 7, OWNERS[0].public, 5, "holder", NODES[0].public)]
        desk.make_block()
        desk.events = [Transferred(TENANT.public, OWNERS[1].public, 9), Payment(LEASE_ID, 8, b"", 6, "treasury")]
        desk.make_block()
        paths = ("blocks?limit=1", "events?after_height=0&limit=1", "events?after_height=1", "payments")
        return [(await face.get(f"/v1/{path}")).json() for path in paths]

    blocks, first, rest, payments = ask(work, desk)
    assert [(row["height"], row["txs"], row["failed"]) for row in blocks["blocks"]] == [(2, 1, 0)]
    assert [row["kind"] for row in first["events"]] == ["payment"] and first["next_after_height"] == 1
    assert [row["kind"] for row in rest["events"]] == ["transfer", "payment"] and rest["next_after_height"] == 2
    assert rest["events"][0]["attributes"] == {
        "sender": encode_account(TENANT.public),
        "to": encode_account(OWNERS[1].public),
        "amount": "9",
    }
    assert [(row["epoch"], row["amount"], row["to"], row["node"]) for row in payments["payments"]] == [
        (8, 6, "", ""),
        (7, 5, encode_account(OWNERS[0].public), NODES[0].public.hex()),
    ]


def test_the_grid_in_one_page():
    desk = FakeDesk()
    desk.make_block(lease_changes(desk))
    answer = ask(lambda face: face.get("/v1/grid"), desk).json()
    assert answer["complete"] is True and answer["epoch_ms"] == 10_000 and answer["genesis_ms"] == GENESIS_MS
    assert [(farm["name"], farm["city"], farm["nodes"]) for farm in answer["farms"]] == [
        ("ghent", "Ghent", 2),
        ("porto", "Porto", 1),
    ]
    first, second, _ = answer["nodes"]
    assert first["used"] == {"vcpu_milli": 500, "memory_mib": 512, "disk_mib": 1024} and first["leases"] == 1
    assert first["last_report_ms"] == GENESIS_MS + 900 and second["last_report_epoch"] == -1
    (lease,) = answer["leases"]
    assert (lease["deployment"], lease["service"], lease["status"], lease["term"]) == ("guestbook", "web", "running", 1)
    assert lease["holder"] == NODES[0].public.hex()
    assert [member["node"] for member in lease["members"]] == [NODES[0].public.hex(), NODES[1].public.hex()]
    assert lease["runs_out_ms"] == GENESIS_MS + 500 + 3_600_000 and lease["escrow"] == 2 * TOKEN


def test_the_faucet_gives_once_to_a_new_account():
    desk = desk_at(2)
    new = [encode_account(bytes([n]) * 32) for n in (77, 78)]

    async def work(face: Face) -> Any:
        return await asyncio.gather(*(face.post("/v1/faucet", {"account": account}) for account in (*new, new[0])))

    given, other, again = ask(work, desk)
    assert given.json()["code"] == other.json()["code"] == 0
    assert error_of(again, 409)["code"] == "account_exists"
    state = desk.states[-1].values
    assert keys.account_key(bytes([77]) * 32) in state and keys.account_key(bytes([78]) * 32) in state
    assert desk.standing().mempool_txs == 0


def test_no_faucet_no_gift():
    async def work(face: Face) -> Any:
        return [
            await face.post("/v1/faucet", {"account": encode_account(b"n" * 32)}),
            await face.post("/v1/faucet", {"account": "G" * 56}),
        ]

    none, bad = ask(work, faucet=False)
    assert error_of(none, 404)["code"] == "no_faucet"
    error_of(bad, 400)


def test_wrong_methods_name_the_right_ones():
    async def work(face: Face) -> Any:
        return await face.http.put("/v1/status"), await face.get("/v1/tx"), await face.http.options("/v1/tx")

    put, get, options = ask(work)
    assert error_of(put, 405)["code"] == "method_not_allowed"
    assert set(put.headers["allow"].split(", ")) == {"GET", "HEAD"} and get.headers["allow"] == "POST"
    error_of(get, 405)
    error_of(options, 405)
    assert not [name for name in options.headers if name.startswith("access-control")]


def test_unknown_paths_and_parameters():
    async def work(face: Face) -> Any:
        return [
            (await face.get("/v1/nothing"), 404),
            (await face.get("/v1/status?x=1"), 400),
            (await face.get("/v1/blocks?limit=1&limit=2"), 400),
            (await face.get("/v1/blocks?limit=1001"), 400),
            (await face.get("/v1/blocks?limit=-1"), 400),
            (await face.get("/v1/blocks?limit=%31%30%0a"), 400),
            (await face.get("/v1/blocks?limit=" + "9" * 19), 400),
            (await face.get("/v1/blocks?limit=" + "1" * 2000), 413),
            (await face.post("/v1/state", {"keys": ["50"], "extra": 1}), 400),
            (await face.post("/v1/state", {"keys": ["5"]}), 400),
            (await face.post("/v1/state", {"keys": ["AB"]}), 400),
            (await face.post("/v1/state", {"keys": ["50\n"]}), 400),
            (await face.post("/v1/state", {"keys": ["50 "]}), 400),
            (await face.post("/v1/state", {"keys": ["ab" * 129]}), 400),
            (await face.post("/v1/state", {"keys": ["50"] * 257}), 400),
            (await face.post("/v1/state", {"keys": [1]}), 400),
        ]

    for response, status in ask(work):
        error_of(response, status)


def test_bodies_are_json_and_bounded():
    as_json = {"content-type": "application/json"}

    async def endless():
        for _ in range(100):
            yield b" " * 10_000

    async def work(face: Face) -> Any:
        post = face.http.post
        return [
            (await post("/v1/state", content=b"{}", headers={"content-type": "text/plain"}), 415),
            (await post("/v1/state", content=b"", headers=as_json), 400),
            (await post("/v1/state", content=b"[" * 5000, headers=as_json), 400),
            (await post("/v1/state", content=b"\xff", headers=as_json), 400),
            (await post("/v1/state", content=b" " * (MAX_RPC_BODY_BYTES + 1), headers=as_json), 413),
            (await post("/v1/state", content=endless(), headers=as_json), 413),
        ]

    for response, status in ask(work):
        error_of(response, status)


def test_a_client_that_asks_too_often_is_told_when_to_come_back():
    async def work(face: Face) -> Any:
        return [await face.get("/v1/status") for _ in range(6)]

    responses = ask(work, rate=0.1, burst=5)
    assert [response.status_code for response in responses] == [200] * 5 + [429]
    assert error_of(responses[-1], 429)["code"] == "rate_limited" and int(responses[-1].headers["retry-after"]) >= 9


def test_many_keys_of_old_versions_cost_more():
    old = {"keys": ["50"] * 100, "height": 1}

    async def work(face: Face) -> Any:
        return [await face.post("/v1/state", body) for body in (old, old, {"keys": ["50"]})]

    first, second, light = ask(work, desk_at(50), rate=0.1, burst=160)
    assert (first.status_code, second.status_code, light.status_code) == (200, 429, 200)
    assert error_of(second, 429)["code"] == "rate_limited"


def test_too_many_requests_at_work_are_told_to_wait(monkeypatch):
    monkeypatch.setattr("freehold.rpc.app.MAX_ACTIVE_PER_CLIENT", 2)
    desk = desk_at(3)
    desk.makes_blocks = False
    bodies = [{"tx": base64.b64encode(signed(Transfer(OWNERS[0].public, n))).decode()} for n in (1, 2)]

    async def work(face: Face) -> Any:
        two = []
        for body in bodies:
            desk.submitted.clear()
            two.append(asyncio.create_task(face.post("/v1/tx", body)))
            await desk.submitted.wait()
        third = await face.get("/v1/status")
        desk.make_block()
        desk.make_block()
        return third, [(await task).status_code for task in two], (await face.get("/v1/status")).status_code

    third, both, later = ask(work, desk)
    assert error_of(third, 503)["code"] == "busy" and both == [200, 200] and later == 200


def test_a_defect_is_hidden_from_the_client_and_told_in_the_log():
    desk = desk_at(2)

    def broken(key, height):
        raise InvariantError("secret path /root/x")

    desk.prove = broken

    async def work(face: Face) -> Any:
        return await face.post("/v1/state", {"keys": ["50"]}), face.reports

    response, reports = ask(work, desk)
    assert error_of(response, 500)["code"] == "internal" and "secret" not in response.text
    assert reports == [("request_failed", {"route": "state", "error": "InvariantError: secret path /root/x"})]


def test_a_request_that_takes_too_long_is_given_up(monkeypatch):
    slow = [msgspec.structs.replace(route, time_limit_s=0.02) for route in ROUTES]
    monkeypatch.setattr("freehold.rpc.app.ROUTES", slow)
    desk = desk_at(2)

    async def never(height):
        await asyncio.Event().wait()

    desk.light_block = never
    assert error_of(ask(lambda face: face.get("/v1/light_block"), desk), 408)["code"] == "request_timeout"


def test_answers_follow_the_openapi_document():
    desk = FakeDesk()
    desk.make_block(lease_changes(desk))
    desk.make_block()
    account = encode_account(FAUCET.public)
    bodies = {
        "state": {"keys": ["50", "6161"]},
        "submit": {"tx": "AAAA", "wait": "checked"},
        "faucet": {"account": account},
    }

    async def work(face: Face) -> Any:
        document = (await face.get("/openapi.json")).json()
        answers = []
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                url = path.replace("{id}", "ab" * 32)
                body = bodies.get(operation["operationId"])
                response = await (face.get(url) if method == "get" else face.post(url, body))
                answers.append((operation, response.status_code, response.json()))
        return document, answers

    document, answers = ask(work, desk)
    assert document["openapi"] == "3.1.0" and len(answers) == len(ROUTES) + 1
    for operation, status, answer in answers:
        schema = operation["responses"][str(status)]["content"]["application/json"]["schema"]
        whole = {**schema, "components": document["components"]}
        assert jsonschema_rs.validator_for(json.dumps(whole)).is_valid(answer), (operation["operationId"], answer)


def test_the_page_is_one_file_that_asks_nobody_else():
    response = ask(lambda face: face.get("/"))
    assert response.status_code == 200 and response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and policy.count("'sha256-") == 2
    text = response.text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
    assert "innerHTML" not in text and "server's word" in text and "its operator can rewrite this ledger" in text
