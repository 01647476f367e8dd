"""Sources behind bad links."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.proxy import Proxy
from tests.ports import free_port
from tests.repair.links import Link
from tests.support import Commands


@pytest.fixture
def link(commands: Commands, prefix: str, tmp_path: Path) -> Iterator[Callable[..., Link]]:
    made: list[Link] = []

    def new(*options: object) -> Link:
        made.append(Link(commands, prefix, tmp_path, *options))
        return made[-1]

    yield new
    for one in made:
        one.proxy.close()


@pytest.fixture
def proxies() -> Iterator[Callable[[int], Proxy]]:
    """Makes proxies before servers, by their ports."""
    made: list[Proxy] = []

    def new(server_port: int) -> Proxy:
        made.append(Proxy(free_port(), free_port(), server_port))
        return made[-1]

    yield new
    for one in made:
        one.close()
