"""What runs in a container and how it is watched: command, user, health check, restart, stop."""

import re
import shlex
import signal

from freehold.client.compose.cursor import Cursor
from freehold.client.compose.keys import HEALTHCHECK
from freehold.client.compose.model import Healthcheck, Restart
from freehold.client.compose.paths import read_container_path
from freehold.client.compose.problems import format_path, quote
from freehold.client.compose.quantities import parse_duration_ms

MAX_ARGUMENTS = 256
MAX_ARGUMENT_CHARACTERS = 32 * 1024
SHELL = ("/bin/sh", "-c")
HOUR_MS = 3_600_000
MAX_STOP_GRACE_MS = 300_000
MAX_RETRIES = 100
SIGNALS = frozenset(known.name.removeprefix("SIG") for known in signal.Signals if not known.name.startswith("SIGRT"))

_QUOTED = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*"|\\.""", re.DOTALL)
_OPERATOR = re.compile(r"&&|\|\||[;&|<>]")
_USER = re.compile(r"(?:[0-9]{1,10}|[a-z_][a-z0-9_-]{0,31})(?::(?:[0-9]{1,10}|[a-z_][a-z0-9_-]{0,31}))?\Z", re.ASCII)
_HOSTNAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\Z", re.ASCII)
_RESTARTS = {
    "no": Restart("no"),
    "always": Restart("always"),
    "on-failure": Restart("on-failure"),
    "unless-stopped": Restart("unless-stopped"),
}
_ON_FAILURE = re.compile(r"on-failure:([0-9]{1,4})\Z", re.ASCII)


def read_command(place: Cursor) -> tuple[str, ...] | None:
    """A command or entrypoint: a list as it is, or text split as a shell would, without running a shell."""
    if place.value is None:
        return None
    if not isinstance(place.value, str):
        return _arguments(place)
    if len(place.value) > MAX_ARGUMENT_CHARACTERS:
        place.report("bad_value", f"longer than {MAX_ARGUMENT_CHARACTERS} characters")
        return None
    operator = _OPERATOR.search(_QUOTED.sub("", place.value))
    if operator:
        place.report(
            "shell_operator",
            f"{quote(operator[0])} needs a shell, and none is started for this command",
            'write ["/bin/sh", "-c", "..."], or quote it',
        )
        return None
    try:
        return tuple(shlex.split(place.value))
    except ValueError as error:
        place.report("bad_value", f"the command cannot be split: {error}", "write it as a list")
        return None


def read_healthcheck(place: Cursor) -> Healthcheck | None:
    """A health check, also a disabled one; None when it has problems or says nothing."""
    fields = place.fields(HEALTHCHECK)
    if "disable" in fields and fields["disable"].boolean():
        if len(fields) > 1:
            place.report("no_effect", "a disabled healthcheck has no other keys", "remove them, or `disable`")
        return Healthcheck(())
    if "test" not in fields:
        if isinstance(place.value, dict):
            place.report("missing_key", "a healthcheck needs `test`", 'such as ["CMD", "pg_isready"]')
        return None
    test = _test(fields["test"])
    times = {"interval": 30_000, "timeout": 30_000, "start_period": 0}
    for key in times:
        if key in fields:
            value = read_duration_ms(fields[key], 0 if key == "start_period" else 1_000, 24 * HOUR_MS)
            times[key] = value if value is not None else times[key]
    retries = fields["retries"].integer(1, MAX_RETRIES) if "retries" in fields else 3
    if test is None or retries is None:
        return None
    return Healthcheck(test, times["interval"], times["timeout"], retries, times["start_period"])


def read_restart(place: Cursor) -> Restart:
    """`no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`."""
    if place.value is False:
        place.report("wrong_type", "restart must be text, not false", 'write "no"')
        return Restart()
    text = place.text("a restart policy")
    if text is None:
        return Restart()
    counted = _ON_FAILURE.match(text)
    if counted:
        return Restart("on-failure", int(counted[1]))
    if text in _RESTARTS:
        return _RESTARTS[text]
    place.report("bad_value", f"{quote(text)} is no restart policy", "no, always, on-failure[:N] or unless-stopped")
    return Restart()


def read_stop_signal(place: Cursor) -> str:
    """A signal by name, `SIG` in front or not, or by number; given back as `SIGTERM` or `15`."""
    text = place.text("a signal's name") or ""
    if not text:
        return ""
    name = text.removeprefix("SIG")
    if name in SIGNALS:
        return f"SIG{name}"
    if text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 31:
        return str(int(text))
    place.report("bad_value", f"{quote(text)} is not a signal", "such as SIGTERM, SIGINT, SIGQUIT")
    return ""


def read_stop_grace_ms(place: Cursor) -> int | None:
    """How long a container may take to stop."""
    return read_duration_ms(place, 0, MAX_STOP_GRACE_MS)


def read_user(place: Cursor) -> str:
    """`USER[:GROUP]` by name or number."""
    text = place.text("a user") or ""
    if text and _USER.match(text) is None:
        place.report("bad_value", f"{quote(text)} is not USER[:GROUP]", 'such as "1000:1000" or postgres')
        return ""
    return text


def read_hostname(place: Cursor) -> str:
    """One label of a host name."""
    text = place.text("a host name") or ""
    if text and _HOSTNAME.match(text) is None:
        place.report("bad_value", f"{quote(text)} is not a host name", "letters, digits and -, at most 63")
        return ""
    return text


def read_working_dir(place: Cursor) -> str:
    """An absolute path in the container."""
    text = place.text("a path")
    return "" if text is None else read_container_path(place, text, mount=False) or ""


def read_duration_ms(place: Cursor, low_ms: int, high_ms: int) -> int | None:
    """A duration within bounds, in milliseconds; reports and gives None otherwise."""
    value = parse_duration_ms(place.value) if isinstance(place.value, str) else None
    if value is None:
        place.report("bad_duration", f"{quote(place.value)} is not a duration", "such as 10s, 1m30s or 500ms")
        return None
    if not low_ms <= value <= high_ms:
        bounds = f"from {low_ms // 1000} s to {high_ms // 1000} s"
        place.report("out_of_range", f"{format_path(place.path)} is {quote(place.value)}", bounds)
        return None
    return value


def _arguments(place: Cursor) -> tuple[str, ...] | None:
    found = []
    for item in place.items("a command: text or a list of text", limit=MAX_ARGUMENTS):
        if isinstance(item.value, str) and len(item.value) <= MAX_ARGUMENT_CHARACTERS:
            found.append(item.value)
        else:
            item.wrong_type("text", 'quote it: "10"')
            return None
    return tuple(found) if isinstance(place.value, list) else None


def _test(place: Cursor) -> tuple[str, ...] | None:
    if isinstance(place.value, str):
        text = place.text("a command", MAX_ARGUMENT_CHARACTERS)
        return None if text is None else (*SHELL, text)
    parts = _arguments(place)
    if parts is None:
        return None
    kind, rest = (parts[0], parts[1:]) if parts else ("", ())
    if kind == "NONE" and not rest:
        return ()
    if kind == "CMD" and rest:
        return rest
    if kind == "CMD-SHELL" and len(rest) == 1:
        return (*SHELL, rest[0])
    place.report(
        "bad_value",
        "a test is text, or a list that begins with CMD, CMD-SHELL (and one text) or NONE",
        'such as ["CMD", "pg_isready", "-q"]',
    )
    return None
