"""What tests of the own server and client share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pva.net.served import Served


@pytest.fixture
def served(prefix: str) -> Iterator[Served]:
    made = Served(f"{prefix}m")
    yield made
    made.close()
