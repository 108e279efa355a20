from typing import Any

import pytest

from freehold.base.errors import LocalProtocolError
from freehold.transport import iroh_patch


@pytest.fixture(autouse=True)
def _patched_again() -> Any:
    iroh_patch.apply()
    yield
    iroh_patch.apply()
    iroh_patch.self_check()


def test_applying_twice_is_once() -> None:
    iroh_patch.apply()
    iroh_patch.self_check()


def test_the_check_fails_without_the_patch() -> None:
    iroh_patch.remove()
    with pytest.raises(LocalProtocolError) as caught:
        iroh_patch.self_check()
    assert caught.value.code == "iroh_patch_missing"
    assert iroh_patch.PINNED_VERSION in caught.value.hint


def test_the_check_fails_when_the_writer_writes_other_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    good = iroh_patch._write

    def wrong(builder: Any, value: bytes) -> None:
        good(builder, value[:-1] + b"\0" if len(value) > 16 else value)

    monkeypatch.setattr(iroh_patch, "_write", wrong)
    iroh_patch.apply()
    with pytest.raises(LocalProtocolError) as caught:
        iroh_patch.self_check()
    assert caught.value.code == "iroh_patch_wrong"


def test_the_check_fails_when_the_writer_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iroh_patch, "_write", iroh_patch._original_write)
    iroh_patch.apply()
    with pytest.raises(LocalProtocolError) as caught:
        iroh_patch.self_check()
    assert caught.value.code == "iroh_patch_slow"


def test_another_version_is_refused_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iroh_patch, "version", lambda name: "1.9.9")
    with pytest.raises(LocalProtocolError) as caught:
        iroh_patch.apply()
    assert caught.value.code == "iroh_version"
    assert "iroh==1.2.0" in caught.value.hint
