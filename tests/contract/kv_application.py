"""A small key-value application for tests of engines: `nonce|sender|key=value`, over the real state store."""

from pathlib import Path

from freehold.consensus import application as abci
from freehold.consensus.application import Event, Lane, TxResult
from freehold.consensus.state_store import StateStore
from freehold.consensus.state_sync import NO_SNAPSHOTS, SnapshotPlan, StateSync, recover

MARK = b"!proposer "


def kv_tx(
    sender: str, nonce: int, key: str, value: str, *, fee: int = 1, lane: str = "u", until: int = 1 << 40
) -> bytes:
    """Encode a transaction; lane r has no nonce."""
    return f"{lane}|{sender}|{nonce}|{fee}|{until}|{key}|{value}".encode()


class KvApplication:
    """Values under keys, nonces under `nonce/sender`; the first transaction of each block is the proposer's mark."""

    def __init__(
        self,
        folder: Path,
        *,
        keep_heights: int = 8,
        keep_blocks: int = 0,
        twist: bytes = b"",
        snapshots: SnapshotPlan = NO_SNAPSHOTS,
        chain_id: str = "kv-1",
    ) -> None:
        recover(folder / "state")
        self.state = StateStore.open(folder / "state", keep_heights, split=3)
        self.sync = StateSync(self.state, folder / "state", chain_id, snapshots)
        self.keep_blocks = keep_blocks
        self.twist = twist  # a defect: another value than the transaction says
        self.checks = 0

    def close(self) -> None:
        self.sync.close()
        self.state.close()

    def find_validator(self, address: bytes) -> bytes | None:
        return None

    def info(self) -> abci.InfoResponse:
        root = self.state.app_hash
        return abci.InfoResponse(self.state.height, b"" if root == bytes(32) else root, 1)

    def init_chain(self, request: abci.InitChainRequest) -> abci.InitChainResponse:
        if self.state.app_hash == bytes(32):
            self.state.stage(0, {b"chain": request.chain_id.encode()})
            self.state.commit()
        return abci.InitChainResponse(self.state.app_hash)

    def check_tx(self, request: abci.CheckTxRequest) -> abci.CheckTxResponse:
        self.checks += 1
        parts = self._parse(request.tx)
        if parts is None:
            return abci.CheckTxResponse(code=1, log="malformed")
        lane, sender, nonce, fee, until = parts[:5]
        if lane == "r":
            known = self.state.get(b"report/" + sender.encode() + str(nonce).encode())
            return abci.CheckTxResponse(
                code=3 if known else 0, lane=Lane.REPORTS, sender=sender.encode(), replay_key=str(nonce).encode()
            )
        expected = self._nonce(sender)
        return abci.CheckTxResponse(
            code=0 if nonce >= expected else 2,
            lane=Lane.GOVERNANCE if lane == "g" else Lane.USERS,
            sender=sender.encode(),
            nonce=nonce,
            next_nonce=expected,
            priority=fee,
            valid_until=until,
        )

    def prepare_proposal(self, request: abci.PrepareProposalRequest) -> abci.PrepareProposalResponse:
        return abci.PrepareProposalResponse((MARK + str(request.height).encode(), *request.txs))

    def process_proposal(self, request: abci.ProcessProposalRequest) -> abci.ProcessProposalResponse:
        return abci.ProcessProposalResponse(request.txs[:1] == (MARK + str(request.height).encode(),), "no mark")

    def extend_vote(self, request: abci.ExtendVoteRequest) -> abci.ExtendVoteResponse:
        return abci.ExtendVoteResponse()

    def verify_vote_extension(self, request: abci.VerifyVoteExtensionRequest) -> abci.VerifyVoteExtensionResponse:
        return abci.VerifyVoteExtensionResponse(accept=True)

    def finalize_block(self, request: abci.FinalizeBlockRequest) -> abci.FinalizeBlockResponse:
        changes: dict[bytes, bytes | None] = {b"height": str(request.height).encode()}
        results = [TxResult(0)]
        for tx in request.txs[1:]:
            parts = self._parse(tx)
            nonce_key = b"nonce/" + parts[1].encode() if parts else b""
            expected = int(changes.get(nonce_key) or self.state.get(nonce_key) or 0)
            if parts is None or (parts[0] != "r" and parts[2] != expected):
                results.append(TxResult(2))
                continue
            lane, sender, nonce, _, _, key, value = parts
            if lane == "r":
                changes[b"report/" + sender.encode() + str(nonce).encode()] = b"1"
            else:
                changes[nonce_key] = str(nonce + 1).encode()
            changes[b"kv/" + key.encode()] = value.encode() + self.twist
            results.append(TxResult(0, key.encode(), (Event("set", value.encode()),)))
        return abci.FinalizeBlockResponse(tuple(results), self.state.stage(request.height, changes))

    def commit(self) -> abci.CommitResponse:
        self.state.commit()
        self.sync.committed()
        retain = max(0, self.state.height - self.keep_blocks + 1) if self.keep_blocks else 0
        return abci.CommitResponse(self.sync.lowest_needed(retain))

    def list_snapshots(self) -> tuple[abci.Snapshot, ...]:
        return self.sync.listed()

    def load_snapshot_chunk(self, height: int, format_: int, index: int) -> bytes:
        return self.sync.load(height, format_, index)

    def offer_snapshot(self, snapshot: abci.Snapshot, app_hash: bytes) -> abci.OfferResult:
        return self.sync.offer(snapshot, app_hash)

    def apply_snapshot_chunk(self, index: int, chunk: bytes, sender: str) -> abci.ApplyChunkResponse:
        return self.sync.apply(index, chunk, sender)

    def query(self, request: abci.QueryRequest) -> abci.QueryResponse:
        if request.prove:
            value, proof = self.state.prove(request.key, request.height)
            return abci.QueryResponse(value, request.height, proof)
        return abci.QueryResponse(self.state.get_at(request.key, request.height), request.height)

    def _nonce(self, sender: str) -> int:
        return int(self.state.get(b"nonce/" + sender.encode()) or 0)

    def _parse(self, tx: bytes) -> tuple[str, str, int, int, int, str, str] | None:
        parts = tx.decode().split("|")
        if len(parts) != 7 or not all(part.isdigit() for part in parts[2:5]):
            return None
        return parts[0], parts[1], int(parts[2]), int(parts[3]), int(parts[4]), parts[5], parts[6]
