"""Threads that meet a type for the first time together: msgspec alone ends the process, our decoders do not."""

import signal
import subprocess
import sys

import pytest

# Each type is new, so that every round is the first; the bodies differ in who works it out.
_THREADS = """
import sys, threading
import msgspec
from freehold.base.codec import decode
from freehold.base.decoders import convert, decode_json, msgpack_decoder
from freehold.ledger.state import decode_record

sys.setswitchinterval(1e-6)
fields = [(f"f{n}", "int | None") for n in range(20)]
values = range(20)
for turn in range(int(sys.argv[1])):
    inner = msgspec.defstruct(f"Inner{turn}", fields, array_like=True, frozen=True)
    outer = msgspec.defstruct(f"Outer{turn}", [("a", inner), ("b", list[inner]), *fields], array_like=True, frozen=True)
    value = outer(inner(*values), [inner(*values)], *values)
    packed, text, plain = msgspec.msgpack.encode(value), msgspec.json.encode(value), msgspec.to_builtins(value)
    ways = {
        "theirs": [lambda: msgspec.msgpack.Decoder(outer).decode(packed)] * 4,
        "ours": [
            lambda: decode(packed, outer),
            lambda: decode_record(packed, outer),
            lambda: decode_json(text, outer),
            lambda: convert(plain, outer),
        ],
    }[sys.argv[2]]
    together, seen = threading.Barrier(len(ways)), []
    def work(way):
        together.wait()
        seen.append(way())
    threads = [threading.Thread(target=work, args=(way,)) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [value] * len(ways), seen
"""


@pytest.mark.parametrize(("whose", "turns"), [("ours", 150), ("theirs", 5_000)])
def test_first_decodings_of_a_type_in_threads(whose: str, turns: int) -> None:
    """The second case shows that the first one can fail; when msgspec is mended, it says so, and the lock may go."""
    command = [sys.executable, "-c", _THREADS, str(turns), whose]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if whose == "ours":
        assert done.returncode == 0, done.stderr[-2_000:]
    else:
        assert done.returncode in (-signal.SIGSEGV, -signal.SIGABRT, 1), done.returncode
