"""Who gets a slot: counts and rates per peer and in all; pure bookkeeping, time comes in as a parameter.

A peer is known by its key, so its bounds hold over all its connections and after it reconnects. Making new keys is
free, therefore the totals hold too, and a full house evicts the connection that was idle longest.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from freehold.transport.methods import ServerLimits
from freehold.transport.ports import ConnectionPort

FLOOD_REFUSALS = 256  # refused calls in a row after which the connection is closed


@dataclass(eq=False)
class Guest:
    """One connection of a peer.

    Attributes:
        connection: the connection.
        active: calls and splices running on it.
        last_call_s: when its last call came.
    """

    connection: ConnectionPort
    last_call_s: float
    active: int = 0


@dataclass
class PeerAccount:
    """What one peer uses.

    Attributes:
        tokens: calls it may make at once.
        tokens_at_s: when `tokens` was right.
        calls: calls running.
        splices: splices running.
        refusals: calls refused since the last one that was not.
        guests: its connections, oldest first.
    """

    tokens: float
    tokens_at_s: float
    calls: int = 0
    splices: int = 0
    refusals: int = 0
    guests: list[Guest] = field(default_factory=list)


class Admission:
    """Counts of one server."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._accounts: OrderedDict[bytes, PeerAccount] = OrderedDict()
        self.calls = 0
        self.splices = 0
        self.connections = 0

    def account(self, remote_id: bytes, now_s: float) -> PeerAccount:
        """The account of a peer, made when it is new."""
        account = self._accounts.get(remote_id)
        if account is None:
            account = PeerAccount(float(self._limits.calls_burst), now_s)
            self._accounts[remote_id] = account
            self._forget_idle()
        self._accounts.move_to_end(remote_id)
        return account

    def enter(self, remote_id: bytes, connection: ConnectionPort, now_s: float) -> tuple[Guest | None, list[Guest]]:
        """Let a connection in.

        Returns:
            The new guest, or None when there is no room; and the guests whose connections must be closed for it.
        """
        account = self.account(remote_id, now_s)
        leaving: list[Guest] = []
        if len(account.guests) >= self._limits.connections_per_peer:
            leaving.append(min(account.guests, key=lambda guest: (guest.active > 0, guest.last_call_s)))
        elif self.connections >= self._limits.connections:
            idle = [g for known in self._accounts.values() for g in known.guests if g.active == 0]
            if not idle:
                return None, []
            leaving.append(min(idle, key=lambda guest: guest.last_call_s))
        guest = Guest(connection, now_s)
        account.guests.append(guest)
        self.connections += 1
        return guest, leaving

    def leave(self, remote_id: bytes, guest: Guest, now_s: float) -> None:
        """Take note that a connection has ended; may be told twice."""
        account = self.account(remote_id, now_s)
        if guest in account.guests:
            account.guests.remove(guest)
            self.connections -= 1

    def begin_call(self, account: PeerAccount, guest: Guest, now_s: float) -> bool:
        """Take a slot and a token for a call; False when there is none."""
        self._refill(account, now_s)
        full = account.calls >= self._limits.calls_per_peer or self.calls >= self._limits.calls
        if account.tokens < 1 or full:
            account.refusals += 1
            return False
        account.tokens -= 1
        account.refusals = 0
        account.calls += 1
        self.calls += 1
        guest.active += 1
        guest.last_call_s = now_s
        return True

    def end_call(self, account: PeerAccount, guest: Guest) -> None:
        """Give back the slot of a call."""
        account.calls -= 1
        self.calls -= 1
        guest.active -= 1

    def begin_splice(self, account: PeerAccount, guest: Guest) -> bool:
        """Take a slot for a splice; False when there is none."""
        if account.splices >= self._limits.splices_per_peer or self.splices >= self._limits.splices:
            return False
        account.splices += 1
        self.splices += 1
        guest.active += 1
        return True

    def end_splice(self, account: PeerAccount, guest: Guest) -> None:
        """Give back the slot of a splice."""
        account.splices -= 1
        self.splices -= 1
        guest.active -= 1

    def is_flooding(self, account: PeerAccount, now_s: float) -> bool:
        """Whether a peer that was thrown out for flooding must still wait; half a bucket of tokens forgives."""
        self._refill(account, now_s)
        if account.refusals >= FLOOD_REFUSALS and account.tokens >= self._limits.calls_burst / 2:
            account.refusals = 0
        return account.refusals >= FLOOD_REFUSALS

    def _refill(self, account: PeerAccount, now_s: float) -> None:
        earned = (now_s - account.tokens_at_s) * self._limits.calls_per_second
        account.tokens = min(self._limits.calls_burst, account.tokens + earned)
        account.tokens_at_s = now_s

    def _forget_idle(self) -> None:
        excess = len(self._accounts) - self._limits.peers_remembered
        if excess <= 0:
            return
        for remote_id in [key for key, account in self._accounts.items() if not account.guests][:excess]:
            del self._accounts[remote_id]
