"""Objects of updates."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.pva.updates import UpdateReader
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from tests.pva.net.test_bad_servers import KIND, payload_of


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("before", [0, 3], ids=["learnt", "recognised"])
def test_the_memory_of_an_image_is_free_as_soon_as_it_is_gone(before: int) -> None:
    """Its memory is used again for the next one: it must not wait for a collection of garbage."""
    known = Outgoing()
    first, *rest = [payload_of(number, known).joined() for number in range(8)]
    reader = UpdateReader(KIND, Incoming())
    for data in (first, *rest[:before]):
        reader.read((data,), False)
    memory = np.frombuffer(rest[before], np.uint8).copy()
    gone = weakref.ref(memory)
    obj: Any = reader.read((memory.data,), False)
    frame = frame_of(obj)
    assert dict(frame.attributes)["number"] == before + 1
    assert frame.origin["uniqueId"] == before + 1
    del memory, frame, obj
    # The newest one is kept, as the next may hold changes of it alone.
    for data in rest[before + 1 : before + 3]:
        reader.read((data,), False)
    assert gone() is None
