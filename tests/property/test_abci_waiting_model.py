"""The engine's queue beside what the application keeps of it, under random submissions, blocks and restarts."""

from hashlib import sha256

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from freehold.consensus.abci.waiting import WaitingTxs
from freehold.consensus.application import CheckTxResponse, Lane
from freehold.consensus.errors import MempoolFullError
from freehold.consensus.mempool import Room

MAX_TXS, MAX_BYTES, OF_ONE = 20, 2_000, 300
SENDERS = [b"a", b"b", b"c"]
senders = st.sampled_from(SENDERS)


class QueueMachine(RuleBasedStateMachine):
    """CometBFT's queue: takes what is accepted, rechecks all of it after each block, and lets go what is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = WaitingTxs(max_txs=MAX_TXS, max_bytes=MAX_BYTES, permill_of_one=OF_ONE)
        self.queue: dict[bytes, CheckTxResponse] = {}
        self.nonces = dict.fromkeys(SENDERS, 0)
        self.height = self.count = 0

    def check(self, first: CheckTxResponse) -> CheckTxResponse:
        """What the application says of a transaction now."""
        if first.nonce is None:
            return first
        due = self.nonces[first.sender]
        code = 7 if first.nonce < due or first.valid_until <= self.height else 0
        return CheckTxResponse(
            code=code,
            lane=first.lane,
            sender=first.sender,
            nonce=first.nonce,
            next_nonce=due,
            priority=first.priority,
            valid_until=first.valid_until,
        )

    def offer(self, answer: CheckTxResponse, size: int) -> None:
        self.count += 1
        tx = b"%06d" % self.count + bytes(size)
        try:
            self.waiting.admit(tx, answer, self.height)
        except MempoolFullError:
            return
        self.queue[tx] = answer

    @rule(
        sender=senders,
        ahead=st.integers(0, 3),
        fee=st.integers(0, 400),
        lane=st.sampled_from([Lane.USERS, Lane.USERS, Lane.GOVERNANCE]),
        size=st.integers(0, 200),
        lives=st.integers(1, 4),
    )
    def submit(self, sender: bytes, ahead: int, fee: int, lane: Lane, size: int, lives: int) -> None:
        nonce = self.nonces[sender] + ahead
        first = CheckTxResponse(
            code=0, lane=lane, sender=sender, nonce=nonce, priority=fee, valid_until=self.height + lives
        )
        self.offer(self.check(first), size)

    @rule(sender=senders, key=st.integers(0, 9))
    def report(self, sender: bytes, key: int) -> None:
        self.offer(CheckTxResponse(code=0, lane=Lane.REPORTS, sender=sender, replay_key=b"%d" % key), 10)

    @rule(own=st.booleans(), room=st.integers(0, 1_000))
    def block(self, *, own: bool, room: int) -> None:
        """Of this node, or an empty one of another."""
        chosen = self.waiting.select(self.height + 1, room) if own else ()
        assert set(chosen) <= set(self.queue)
        self.height += 1
        for tx in chosen:
            answer = self.queue.pop(tx)
            if answer.nonce is not None:
                self.nonces[answer.sender] = answer.nonce + 1
        self.waiting.committed(chosen, self.height)
        for tx, first in list(self.queue.items()):
            gone = self.waiting.let_go(tx) or self.waiting.recheck(tx, self.check(first), self.height)
            if gone is not None:
                assert gone.id == sha256(tx).digest()
                del self.queue[tx]
        assert not self.waiting._leaving and len(self.waiting) == len(self.queue)

    @rule()
    def another_engine(self) -> None:
        """It begins with an empty queue; what was in the old one is forgotten when it would have been rechecked."""
        self.queue.clear()
        for _ in range(2):
            self.height += 1
            self.waiting.committed((), self.height)
        assert len(self.waiting) == 0 and not self.waiting._leaving

    @invariant()
    def the_queue_holds_what_waits_and_what_must_leave(self) -> None:
        ids = {sha256(tx).digest() for tx in self.queue}
        assert ids == set(self.waiting._pool._entries) | set(self.waiting._leaving)
        assert len(self.queue) < 2 * MAX_TXS + MAX_TXS  # each lane may pass its bound by one transaction's victims
        counted: dict[Lane | bytes, Room] = {}
        for leaving in self.waiting._leaving.values():
            for key in (leaving.lane, leaving.sender):
                txs, size = counted.get(key, Room(0, 0)).txs, counted.get(key, Room(0, 0)).bytes
                counted[key] = Room(txs + 1, size + leaving.dropped.size)
        assert self.waiting._left == counted
        assert not any(leaving.lane is Lane.REPORTS for leaving in self.waiting._leaving.values())


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
