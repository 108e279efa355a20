"""Events of the ledger as sentences: tokens, hours and names where people would say them."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from freehold.base.amounts import format_amount

Attributes = Mapping[str, str]


class Names:
    """How things are called: farms, services and hours by what the reader's ledger knows of them."""

    def __init__(self, grid: Mapping[str, Any], genesis_ms: int, epoch_ms: int) -> None:
        """Bind what is known.

        Args:
            grid: the document of `/v1/grid`; may be empty.
            genesis_ms: when epoch 0 began.
            epoch_ms: how long an epoch is.
        """
        self._genesis_ms = genesis_ms
        self._epoch_ms = epoch_ms
        self._known: dict[str, str] = {}
        for farm in grid.get("farms", ()):
            self._known[str(farm.get("id"))] = f"farm {farm.get('name')}"
        for lease in grid.get("leases", ()):
            number = f"#{lease.get('replica')}" if lease.get("replica") else ""
            self._known[str(lease.get("id"))] = f"{lease.get('service')}{number} (lease {str(lease.get('id'))[:8]})"

    def of(self, id_: str, kind: str = "") -> str:
        """The name of an account, farm, lease or node; shortened when it has none."""
        if id_ in self._known:
            return self._known[id_]
        short = f"{id_[:8]}..{id_[-4:]}" if len(id_) > 16 else id_
        return f"{kind} {short}".strip()

    def hours(self, epoch: str) -> str:
        """When an epoch was: from and to."""
        if not epoch.isdigit() or len(epoch) > 12:
            return f"epoch {epoch[:20]}"
        began = self._genesis_ms + int(epoch) * self._epoch_ms
        first, last = (_moment(ms) for ms in (began, began + self._epoch_ms))
        if first is None or last is None:
            return f"epoch {epoch}"
        return f"{first:%Y-%m-%d %H:%M:%S} to {last:%H:%M:%S}"


def sentence(kind: str, values: Attributes, names: Names) -> str:
    """Say what happened.

    Args:
        kind: of the event.
        values: its attributes; whatever is missing is left out.
        names: of whom it concerns.
    """
    say = _SENTENCES.get(kind)
    if say is not None:
        return say(_Absent(values), names)
    return f"{kind}: " + " ".join(f"{name}={value[:40]}" for name, value in values.items() if value)


def moment(time_ms: int) -> str:
    """A block's time for people."""
    time = _moment(time_ms)
    return f"{time:%Y-%m-%d %H:%M:%S}" if time else str(time_ms)


def _moment(time_ms: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


class _Absent(dict[str, str]):
    """What a server left out is a question mark."""

    def __missing__(self, key: str) -> str:
        return "?"


def _tokens(text: str) -> str:
    is_whole = text.isascii() and text.isdigit() and len(text) < 20
    return f"{format_amount(int(text))} tokens" if is_whole else f"{text[:20]} tokens"


def _payment(values: Attributes, names: Names) -> str:
    to = names.of(values["to"], "account") if values["to"] else "the treasury"
    lease, when = names.of(values["lease"], "lease"), names.hours(values["epoch"])
    if values["role"] == "refund":
        return f"{lease} gave {_tokens(values['amount'])} back to {to}: {when} was not shown to be served"
    return f"{lease} paid {_tokens(values['amount'])} to {to} as {values['role']} for {when}"


def _lease(values: Attributes, names: Names) -> str:
    lease, tenant = names.of(values["lease"], "lease"), names.of(values["tenant"], "account")
    node = f" by {names.of(values['node'], 'node')}" if values.get("node") else ""
    reason = f": {values['reason']}" if values.get("reason") else ""
    return f"{lease} of {tenant} was {values['change']}{node}{reason}"


def _bond(values: Attributes, names: Names) -> str:
    owner = names.of(values["owner"], "account")
    return f"bond of {owner} for validator {values['validator'][:8]} {values['change']}: {_tokens(values['amount'])}"


def _down(text: str) -> str:
    return "down" if text == "true" else "up"


_SENTENCES: Final[dict[str, Callable[[Attributes, Names], str]]] = {
    "transfer": lambda v, n: (
        f"{n.of(v['sender'], 'account')} sent {_tokens(v['amount'])} to {n.of(v['to'], 'account')}"
    ),
    "farm": lambda v, n: f"farm {v['name']} was registered by {n.of(v['farm'], 'account')}",
    "node": lambda v, n: f"{n.of(v['node'], 'node')} of {n.of(v['farm'], 'farm')} was {v['change']}",
    "lease": _lease,
    "payment": _payment,
    "report": lambda v, n: f"{n.of(v['node'], 'node')} reported {n.hours(v['epoch'])}",
    "epoch": lambda v, n: f"epoch {v['epoch']} began: {n.hours(v['epoch'])}",
    "challenge": lambda v, n: f"{n.of(v['challenger'], 'key')} said that {n.of(v['lease'], 'lease')} is down",
    "verdict": lambda v, n: f"{n.of(v['node'], 'node')} saw {n.of(v['lease'], 'lease')} {_down(v['down'])}",
    "term": lambda v, n: f"{n.of(v['lease'], 'lease')} moves to {n.of(v['node'], 'node')} (term {v['term']})",
    "resolved": lambda v, n: f"the challenge of {n.of(v['lease'], 'lease')} ended: it was {_down(v['down'])}",
    "bond": _bond,
    "fees": lambda v, n: f"{n.of(v['owner'], 'account')} took {_tokens(v['amount'])} of fees as a validator",
    "upgrade": lambda v, n: f"validators agreed on rules {v['rules']} from block {v['height']} on",
}
