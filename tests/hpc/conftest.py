from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hpc.bench import Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Starts stages in this process, and stops them."""
    made = Bench()
    yield made
    made.close()
