"""Transactions that wait: lanes with reserved room, fees across senders, nonces within one. Pure.

Room is counted in transactions and bytes, in the pool and again in each block: a lane always has its reserved share,
the rest is for whoever comes. Within a lane a higher priority (fee) goes first, then the earlier arrival; of one
sender nothing goes before its predecessor by nonce, and nothing goes that has a gap before it.

Invariants: never more than the limits; one transaction for each (sender, nonce) or replay key; what `select` gives
holds each sender's nonces from its next one on, without gaps. Spec: docs/spec/embedded-engine.md.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import Final

import msgspec

from freehold.base.limits import MAX_MEMPOOL_BYTES, MAX_MEMPOOL_TXS
from freehold.consensus.application import OK, CheckTxResponse, Lane
from freehold.consensus.errors import MempoolFullError

RESERVED_PERMILL: Final = {Lane.REPORTS: 300, Lane.GOVERNANCE: 100, Lane.USERS: 300}
MAX_PER_SENDER: Final = 64
REPLACE_PERCENT: Final = 110  # a replacement offers at least this much of the old priority
TX_OVERHEAD_BYTES: Final = 8  # tag and length in a block


class Entry:
    """A transaction that waits.

    Attributes:
        id: the name by which waiters know it.
        tx: its bytes.
        check: what the application said of it.
        sequence: order of arrival.
        checked_height: the newest height at which the application was asked.
    """

    __slots__ = ("check", "checked_height", "id", "sequence", "size", "tx")

    def __init__(self, tx_id: bytes, tx: bytes, check: CheckTxResponse, sequence: int, height: int) -> None:
        self.id = tx_id
        self.tx = tx
        self.check = check
        self.sequence = sequence
        self.checked_height = height
        self.size = len(tx) + TX_OVERHEAD_BYTES

    @property
    def slot(self) -> tuple[bytes, int | bytes]:
        """What only one waiting transaction may have."""
        check = self.check
        return (check.sender, check.replay_key if check.nonce is None else check.nonce)

    @property
    def rank(self) -> tuple[int, int]:
        """Smaller goes first within a lane."""
        return (-self.check.priority, self.sequence)


class Dropped(msgspec.Struct, frozen=True):
    """A transaction that left without a block, and why: a stable word and text for people; the bytes that it took."""

    id: bytes
    code: str
    message: str
    size: int = 0


class Room(msgspec.Struct, frozen=True):
    """A number of transactions and of bytes."""

    txs: int
    bytes: int

    def share(self, permill: int) -> "Room":
        """A part of this room, rounded down."""
        return Room(self.txs * permill // 1000, self.bytes * permill // 1000)

    def is_within(self, other: "Room") -> bool:
        """Whether it is no more than another in either."""
        return self.txs <= other.txs and self.bytes <= other.bytes


class _Used:
    """Room used by each lane, against a total of which each lane has its share for itself."""

    __slots__ = ("_free", "_shares", "_used")

    def __init__(self, total: Room) -> None:
        self._shares = {lane: total.share(permill) for lane, permill in RESERVED_PERMILL.items()}
        self._free = Room(
            total.txs - sum(share.txs for share in self._shares.values()),
            total.bytes - sum(share.bytes for share in self._shares.values()),
        )
        self._used = {lane: [0, 0] for lane in Lane}

    def add(self, entry: Entry, sign: int = 1) -> None:
        used = self._used[entry.check.lane]
        used[0] += sign
        used[1] += sign * entry.size

    def fits(self, entry: Entry, *, only_share: bool = False) -> bool:
        """Whether an entry fits into its lane's share, or (unless only_share) into what nobody has reserved."""
        own = entry.check.lane
        share, used = self._shares[own], self._used[own]
        if used[0] < share.txs and used[1] + entry.size <= share.bytes:
            return True
        if only_share:
            return False
        over_txs = over_bytes = 0
        for lane, share in self._shares.items():
            mine = lane is own
            over_txs += max(0, self._used[lane][0] + mine - share.txs)
            over_bytes += max(0, self._used[lane][1] + mine * entry.size - share.bytes)
        return over_txs <= self._free.txs and over_bytes <= self._free.bytes


class _Sender:
    """One sender's transactions by nonce."""

    __slots__ = ("by_nonce", "height", "next_nonce")

    def __init__(self) -> None:
        self.by_nonce: dict[int, Entry] = {}
        self.next_nonce = 0
        self.height = -1

    def learn(self, next_nonce: int, height: int) -> None:
        if height >= self.height:
            self.next_nonce, self.height = next_nonce, height


class Mempool:
    """The waiting transactions of one node."""

    def __init__(self, *, max_txs: int = MAX_MEMPOOL_TXS, max_bytes: int = MAX_MEMPOOL_BYTES) -> None:
        self._used = _Used(Room(max_txs, max_bytes))
        self._entries: dict[bytes, Entry] = {}
        self._slots: dict[tuple[bytes, int | bytes], Entry] = {}
        self._senders: dict[bytes, _Sender] = {}
        self._cheapest: dict[Lane, list[tuple[int, int, bytes]]] = {lane: [] for lane in Lane}
        self._gapped: dict[bytes, None] = {}  # senders that may have a gap, in order of their first
        self._bytes = 0
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, tx_id: bytes) -> bool:
        return tx_id in self._entries

    @property
    def total_bytes(self) -> int:
        """Bytes of all that wait, with their overhead in a block."""
        return self._bytes

    def get(self, tx_id: bytes) -> Entry | None:
        """The waiting transaction with an id."""
        return self._entries.get(tx_id)

    def add(
        self, tx_id: bytes, tx: bytes, check: CheckTxResponse, height: int, *, may_drop: bool = True
    ) -> list[Dropped]:
        """Take a transaction that the application accepted.

        Args:
            tx_id: its name.
            tx: its bytes.
            check: the application's answer, code `OK`.
            height: the newest block when it was asked.
            may_drop: whether another may have to leave for it; if not, it takes free room or none.

        Returns:
            Those that had to leave for it: the one it replaces, and cheaper ones when there is no room.

        Raises:
            MempoolFullError: `mempool_full`, `fee_too_low_to_replace`, `already_waiting` or `nonce_too_far`.
        """
        if tx_id in self._entries:
            return []
        self._sequence += 1
        entry = Entry(tx_id, tx, check, self._sequence, height)
        if check.nonce is not None:
            self._check_nonce(entry, height)
        dropped: list[Dropped] = []
        old = self._slots.get(entry.slot)
        if old is not None:
            self._check_replacement(old, entry)
        if not may_drop and (old is not None or not self._used.fits(entry)):
            raise MempoolFullError(
                "too many transactions had to leave for others since the last block",
                code="mempool_full",
                hint="try again after the next block",
            )
        if old is not None:
            self._remove(old)
        victims = self._make_room(entry)
        if victims is None:
            if old is not None:
                self._insert(old)
            raise MempoolFullError(
                "the mempool is full of transactions that offer at least as much",
                code="mempool_full",
                hint="offer a higher fee, or try again after the next block",
            )
        if old is not None:
            why = "replaced by another transaction of the same sender and nonce"
            dropped.append(Dropped(old.id, "replaced", why, old.size))
        for gone in victims:
            dropped.append(Dropped(gone.id, "evicted", "made room for transactions that offer more", gone.size))
        self._insert(entry)
        return dropped

    def has_ready(self, height: int) -> bool:
        """Whether `select` would give anything for a block at this height."""
        heads = (sender.by_nonce.get(sender.next_nonce) for sender in self._senders.values())
        free = (entry for entry in self._entries.values() if entry.check.nonce is None)
        return any(entry is not None and entry.check.valid_until >= height for entry in chain(heads, free))

    def select(self, height: int, *, max_txs: int, max_bytes: int) -> list[Entry]:
        """Choose the transactions of a block, in its order; they stay in the pool until `remove_committed`.

        Args:
            height: of the block; what is valid only below it is passed over.
            max_txs: of the block.
            max_bytes: of the block, each transaction counted with its overhead.
        """
        waiting: list[tuple[Lane, tuple[int, int], Entry]] = []

        def offer(entry: Entry | None) -> None:
            if entry is not None and entry.check.valid_until >= height:
                heappush(waiting, (entry.check.lane, entry.rank, entry))

        for sender in self._senders.values():
            offer(sender.by_nonce.get(sender.next_nonce))
        for entry in self._entries.values():
            if entry.check.nonce is None:
                offer(entry)
        used, chosen = _Used(Room(max_txs, max_bytes)), list[Entry]()
        left = Room(max_txs, max_bytes)
        for only_share in (True, False):
            passed = []
            while waiting:
                item = heappop(waiting)
                entry = item[2]
                fits = used.fits(entry, only_share=True) if only_share else left.bytes >= entry.size
                if left.txs < 1 or not fits:
                    passed.append(item)
                    continue
                used.add(entry)
                left = Room(left.txs - 1, left.bytes - entry.size)
                chosen.append(entry)
                offer(self._follower(entry))  # also in a lane before this one, which goes next then
            waiting = passed
            heapify(waiting)  # a follower in an earlier lane may have come late
        return chosen

    def remove_committed(self, tx_ids: Iterable[bytes], height: int) -> list[Dropped]:
        """Take out what a block holds, then what can never be in a later one.

        Args:
            tx_ids: of the block's transactions, also of unknown ones.
            height: of the block.

        Returns:
            Those whose time is over.
        """
        for tx_id in tx_ids:
            entry = self._entries.get(tx_id)
            if entry is None:
                continue
            check = entry.check
            if check.nonce is not None:
                # What the block did to the nonce is for the recheck to say; until then it counts as used.
                self._senders[check.sender].learn(check.nonce + 1, height)
            self._remove(entry)
        over = [entry for entry in self._entries.values() if entry.check.valid_until <= height]
        for entry in over:
            self._remove(entry)
        return [Dropped(entry.id, "expired", "its last height passed before it was included") for entry in over]

    def stale(self, height: int, limit: int) -> list[Entry]:
        """Those the application was not asked about since a height, longest ago first, at most `limit`."""
        old = [entry for entry in self._entries.values() if entry.checked_height < height]
        old.sort(key=lambda entry: (entry.checked_height, entry.sequence))
        return old[:limit]

    def forget_unchecked(self, height: int) -> None:
        """Take out, and tell nobody, what the application was not asked about since a height."""
        for entry in [entry for entry in self._entries.values() if entry.checked_height < height]:
            self._remove(entry)

    def recheck(self, tx_id: bytes, check: CheckTxResponse, height: int) -> Dropped | None:
        """Take the application's answer of a later height: a refused transaction leaves, one may change its lane.

        Returns:
            It, if it left.
        """
        entry = self._entries.get(tx_id)
        if entry is None:
            return None
        entry.checked_height = max(entry.checked_height, height)
        nonce = entry.check.nonce
        if check.code == OK and nonce is not None:
            self._senders[entry.check.sender].learn(check.next_nonce, height)
        if check.code == OK and (nonce is None or nonce >= check.next_nonce):
            self._change_lane(entry, check.lane)
            return None
        self._remove(entry)
        return Dropped(tx_id, "invalid", check.log or f"refused after a later block, code {check.code}")

    def _change_lane(self, entry: Entry, lane: Lane) -> None:
        """Move an entry to another lane that has room for it; else it stays where it was, until it is asked again."""
        old = entry.check
        if lane is old.lane:
            return
        self._used.add(entry, -1)
        entry.check = msgspec.structs.replace(old, lane=lane)
        if self._used.fits(entry):
            heappush(self._cheapest[lane], (old.priority, -entry.sequence, entry.id))
        else:
            entry.check = old
        self._used.add(entry)

    def _check_nonce(self, entry: Entry, height: int) -> None:
        sender = self._senders.get(entry.check.sender)
        expected = entry.check.next_nonce if sender is None or height > sender.height else sender.next_nonce
        if sender is not None:
            sender.learn(expected, height)
        nonce = entry.check.nonce or 0
        if not expected <= nonce < expected + MAX_PER_SENDER:
            raise MempoolFullError(
                f"nonce {nonce} is not among the {MAX_PER_SENDER} from {expected} on that may wait",
                code="nonce_too_far" if nonce > expected else "nonce_used",
                hint="wait until earlier transactions of this sender are in a block",
            )

    def _check_replacement(self, old: Entry, new: Entry) -> None:
        if new.check.nonce is None:
            raise MempoolFullError("the same statement of this sender waits already", code="already_waiting")
        needed = max(old.check.priority * REPLACE_PERCENT // 100, old.check.priority + 1)
        if new.check.priority < needed:
            raise MempoolFullError(
                f"a transaction with this nonce waits and offers {old.check.priority}",
                code="fee_too_low_to_replace",
                hint=f"offer at least {needed} to replace it",
            )

    def _make_room(self, entry: Entry) -> list[Entry] | None:
        """Remove cheaper entries of the lane until one fits; None, and nothing changed, when it cannot."""
        victims: list[Entry] = []
        if self._used.fits(entry):
            return victims
        can_go = self._can_go(entry)
        while not self._used.fits(entry):
            # What waits behind a gap pays nothing for waiting, whatever it offers: it keeps nobody out.
            victim = self._stuck_of(entry.check.lane) if can_go else None
            if victim is None and can_go:
                victim = self._cheapest_of(entry.check.lane)
                if victim is not None and (
                    victim.check.priority >= entry.check.priority or victim.check.sender == entry.check.sender
                ):
                    victim = None
            if victim is None:
                for gone in victims:
                    self._insert(gone)
                return None
            # Without it, what follows it by nonce could not go anyway.
            for gone in self._from(victim):
                self._remove(gone)
                victims.append(gone)
        return victims

    def _can_go(self, entry: Entry) -> bool:
        """Whether all that an entry follows by nonce is here."""
        nonce, sender = entry.check.nonce, self._senders.get(entry.check.sender)
        if nonce is None or sender is None:
            return nonce is None or nonce == entry.check.next_nonce
        return all(map(sender.by_nonce.__contains__, range(sender.next_nonce, nonce)))

    def _stuck_of(self, lane: Lane) -> Entry | None:
        """Give the last transaction of a sender that waits behind a gap."""
        for sender_id in list(self._gapped):
            sender = self._senders.get(sender_id)
            last = sender.by_nonce[max(sender.by_nonce)] if sender else None
            if last is None or self._can_go(last):
                del self._gapped[sender_id]
            elif last.check.lane is lane:
                return last
        return None

    def _cheapest_of(self, lane: Lane) -> Entry | None:
        heap = self._cheapest[lane]
        while heap:
            entry = self._entries.get(heap[0][2])
            if entry is not None and entry.sequence == -heap[0][1] and entry.check.lane is lane:
                return entry
            heappop(heap)
        return None

    def _from(self, entry: Entry) -> list[Entry]:
        nonce = entry.check.nonce
        if nonce is None:
            return [entry]
        queue = self._senders[entry.check.sender].by_nonce
        return [queue[at] for at in sorted(queue) if at >= nonce]

    def _follower(self, entry: Entry) -> Entry | None:
        if entry.check.nonce is None:
            return None
        return self._senders[entry.check.sender].by_nonce.get(entry.check.nonce + 1)

    def _insert(self, entry: Entry) -> None:
        check = entry.check
        self._entries[entry.id] = entry
        self._slots[entry.slot] = entry
        self._used.add(entry)
        self._bytes += entry.size
        if check.nonce is not None:
            sender = self._senders.setdefault(check.sender, _Sender())
            sender.by_nonce[check.nonce] = entry
            if sender.height < 0:
                sender.learn(check.next_nonce, entry.checked_height)
            if not self._can_go(entry):
                self._gapped[check.sender] = None
        heap = self._cheapest[check.lane]
        heappush(heap, (check.priority, -entry.sequence, entry.id))
        if len(heap) > 2 * len(self._entries) + 64:
            live = [item for item in heap if item[2] in self._entries]
            heap[:] = sorted(live)

    def _remove(self, entry: Entry) -> None:
        check = entry.check
        del self._entries[entry.id]
        del self._slots[entry.slot]
        self._used.add(entry, -1)
        self._bytes -= entry.size
        if check.nonce is not None:
            sender = self._senders[check.sender]
            del sender.by_nonce[check.nonce]
            if sender.by_nonce:
                self._gapped[check.sender] = None
            else:
                del self._senders[check.sender]
