"""Publishers that never seem busy, and their subscribers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pvapy_stream.transport.shm import sender
from tests.support import PATIENCE
from tests.transport.test_shm_payloads import Chain


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An array is ordinary if the publisher is busy for a while, which no test is about."""
    monkeypatch.setattr(sender, "_RESERVING", PATIENCE)


@pytest.fixture
def chain(prefix: str) -> Iterator[Chain]:
    made = Chain(f"{prefix}place")
    yield made
    made.stop()
