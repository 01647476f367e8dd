"""Publishers and receivers in shared memory, for several files of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.transport.shm_ends import Ends


@pytest.fixture
def ends(prefix: str) -> Iterator[Ends]:
    """Of one channel; they end with the test."""
    made = Ends(f"{prefix}shm")
    yield made
    made.stop()
