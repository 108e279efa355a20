"""What a witness speaks to a container through the stream that the node splices: TCP or HTTP, bounded in bytes."""

import contextlib

from freehold.base.errors import FreeholdError
from freehold.ledger.transactions import Probe, ProbeKind
from freehold.transport.ports import StreamPort

MAX_STATUS_LINE = 1_024


async def speak(stream: StreamPort, probe: Probe, host: str) -> bool:
    """Speak to the probe port; True when something there answered as it should.

    For TCP the open stream is the answer: the node has connected to the port. For HTTP any status below 400 is.

    Args:
        stream: raw, as `probe.open` leaves it; always closed here.
        probe: from the lease.
        host: the service's name, for the Host header.
    """
    try:
        if probe.kind == ProbeKind.TCP:
            return True
        request = (
            f"GET {probe.path or '/'} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nUser-Agent: freehold\r\n\r\n"
        )
        await stream.write(request.encode("ascii", "replace"))
        head = b""
        while b"\r\n" not in head and len(head) < MAX_STATUS_LINE:
            chunk = await stream.read(MAX_STATUS_LINE)
            if not chunk:
                break
            head += chunk
        return is_good_status(head)
    except FreeholdError:
        return False
    finally:
        with contextlib.suppress(FreeholdError):
            await stream.reset(0)


def is_good_status(head: bytes) -> bool:
    """Whether a response begins with an HTTP status line below 400."""
    parts = head.split(b"\r\n", 1)[0].split(b" ")
    return (
        len(parts) >= 2
        and parts[0] in (b"HTTP/1.0", b"HTTP/1.1")
        and len(parts[1]) == 3
        and parts[1].isdigit()
        and 200 <= int(parts[1]) < 400
    )
