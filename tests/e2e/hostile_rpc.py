"""A ledger's HTTP server in a process of its own that tells one lie: `python hostile_rpc.py TOLD`, TOLD as JSON.

`lie` is a name of `told_chain.BLOCK_LIES` or `VALUE_LIES`, or empty for the truth. `top` is its newest block, `claimed`
what its status says of that, and with `climbs` each question for its status finds it a block higher. Asked for a block
by its height it answers with `withholds`, an HTTP status and a code, or with the block of height `instead`, where one
of them is given. The rest makes the chain. It prints its URL, and serves until it is killed.
"""

import base64
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, str(Path(__file__).parent))

from told_chain import BLOCK_LIES, TOP, VALUE_LIES, ToldChain


class Teller:
    """Answers as a ledger's server does, with the lie in it."""

    def __init__(self, told: dict[str, Any]) -> None:
        sets = [{int(number): power for number, power in powers.items()} for powers in told["sets"]]
        owners = {int(number): bytes.fromhex(owner) for number, owner in told.get("owners", {}).items()}
        fork = told.get("fork", "").encode()
        step_ms = told.get("step_ms", 1_000)
        self.chain = ToldChain(sets, owners, genesis_ms=told["genesis_ms"], fork=fork, step_ms=step_ms)
        self.top: int = told.get("top", TOP)
        self.claimed: int | None = told.get("claimed")
        self.climbs: bool = told.get("climbs", False)
        self.withholds: tuple[int, str] | None = told.get("withholds")
        self.instead: int | None = told.get("instead")
        self.block_lie = BLOCK_LIES.get(told.get("lie", ""))
        self.value_lie = VALUE_LIES.get(told.get("lie", ""))
        assert self.block_lie or self.value_lie or not told.get("lie"), told

    def light_block(self, height: int) -> str:
        block = self.chain.block(height)
        if self.block_lie is not None:
            block = self.block_lie[0](self.chain, block)
        return base64.b64encode(block.encode()).decode()

    def value(self, key: str) -> dict[str, Any]:
        row = self.chain.value(bytes.fromhex(key))
        return row if self.value_lie is None else self.value_lie[0](self.chain, row)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        asked = urlsplit(path)
        named = int((parse_qs(asked.query).get("height") or [0])[0])
        if named and self.withholds is not None:
            return self.withholds[0], {"code": self.withholds[1], "message": "not told"}
        if named and self.instead is not None:
            named = self.instead
        if named > self.top:
            return 404, {"code": "height_unknown", "message": "not made yet"}
        return 200, self.told(asked.path, named, body)

    def told(self, path: str, named: int, body: dict[str, Any]) -> Any:
        height = named or body.get("height") or self.top
        if path == "/v1/light_block":
            return {"height": height, "light_block": self.light_block(height)}
        if path == "/v1/state":
            values = [self.value(key) for key in body["keys"]]
            return {"height": height, "light_block": self.light_block(height), "values": values}
        self.top += self.climbs  # /v1/status
        return {"height": self.top if self.claimed is None else self.claimed}


def handler(teller: Teller) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.tell({})

        def do_POST(self) -> None:
            self.tell(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def tell(self, body: dict[str, Any]) -> None:
            status, document = teller.answer(self.path, body)
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: what it was asked is no part of the test."""

    return Handler


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(Teller(json.loads(sys.argv[1]))))
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
