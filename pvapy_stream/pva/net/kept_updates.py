"""Updates of a channel that were published, kept in memory for clients that missed some of them."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net.encoded_updates import Update

OPTION = "past"  # of a monitor's request: ids as ``5-9+12``
OFFERED = "past"  # text of the status with which a server accepts such a request
MOST_ASKED = 1000  # ids of one request

# An id that follows larger ones is out of order if it is at most this much smaller; if it is
# smaller by more, ids have started again. As `accounting.sequence.DISORDER`.
_DISORDER = 64
_OVERHEAD = 1024  # bytes; of Python objects for each update
_MOST_SEVERAL = 10_000  # ids that are remembered as published more than once

GONE, SEVERAL, NEVER = "gone", "several", "never"


class _Kept(NamedTuple):
    value: int
    update: Update
    nbytes: int
    at: float


class KeptUpdates:
    """The newest updates, by their ids. Used by whoever has the lock of the server's loop.

    Args:
        size: of the updates, bytes; the oldest are removed when they are more.
        age: how long an update is kept, s; 0: no limit.

    Attributes:
        laps: how often ids began: once, and each time they started again. Only updates of the
            present lap are kept.
        nbytes: size of what is kept.
    """

    def __init__(self, size: int, age: float = 0.0) -> None:
        self._size = size
        self._age = age
        self._kept: deque[_Kept] = deque()
        self._by_id: dict[int, Update] = {}
        self._several: set[int] = set()
        self.laps = 1
        self.nbytes = 0
        self._last: int | None = None
        self._gone_up_to: int | None = None  # the largest id that was removed

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, value: int, update: Update, late: bool = False) -> None:
        """Keep an update.

        Args:
            value: its id.
            update: the update.
            late: whether it is known to follow larger ids of the same lap.
        """
        last = self._last
        if last is None or value > last:
            self._last = value
        elif not late and last - value > _DISORDER:
            self._begin_lap()
            self._last = value
        if value in self._by_id or value in self._several:
            self._note_several(value)
        else:
            self._by_id[value] = update
        nbytes = update.nbytes + _OVERHEAD
        self._kept.append(_Kept(value, update, nbytes, time.monotonic()))
        self.nbytes += nbytes
        if self.nbytes > self._size or self._age:
            self._remove_oldest()

    def _begin_lap(self) -> None:
        self._kept.clear()
        self._by_id.clear()
        self._several.clear()
        self._gone_up_to = None
        self.nbytes = 0
        self.laps += 1

    def _note_several(self, value: int) -> None:
        self._by_id.pop(value, None)
        if len(self._several) >= _MOST_SEVERAL:
            # What is no longer known counts as removed.
            self._gone_up_to = max(*self._several, self._gone_up_to or 0)
            self._several.clear()
        self._several.add(value)

    def _remove_oldest(self) -> None:
        oldest = time.monotonic() - self._age if self._age else 0.0
        kept, by_id = self._kept, self._by_id
        while kept and (self.nbytes > self._size or kept[0].at < oldest):
            value, update, nbytes, _ = kept.popleft()
            self.nbytes -= nbytes
            if by_id.get(value) is update:
                del by_id[value]
            if self._gone_up_to is None or value > self._gone_up_to:
                self._gone_up_to = value

    def get(self, value: int) -> Update | None:
        """The update with an id; None if there is none, see `why_not`."""
        if self._age:
            self._remove_oldest()
        return self._by_id.get(value)

    def why_not(self, value: int) -> str:
        """Why there is no update with an id: `GONE`, `SEVERAL` or `NEVER`."""
        if value in self._several:
            return SEVERAL
        return GONE if self._gone_up_to is not None and value <= self._gone_up_to else NEVER


def parse_ids(text: str) -> list[int]:
    """The ids of a request, such as ``5-9+12``.

    Raises:
        WireError: it cannot be understood, or has more than `MOST_ASKED` ids.
    """
    found: list[int] = []
    for part in text.split("+"):
        first, dash, last = part.partition("-")
        if not _is_id(first) or (dash and not _is_id(last)):
            raise WireError(f"the ids {text[:100]!r} cannot be understood; write them like 5-9+12")
        low, high = int(first), int(last or first)
        if len(found) + high - low + 1 > MOST_ASKED:
            raise WireError(f"a request may ask for {MOST_ASKED} ids of the past, not more")
        found += range(low, high + 1)
    return found


def _is_id(text: str) -> bool:
    # Python refuses to read numbers of thousands of digits.
    return text.isascii() and text.isdigit() and len(text) < 20


def ids_text(ids: list[int]) -> str:
    """Ids in ascending order as `parse_ids` reads them; "" for none."""
    parts: list[str] = []
    first = last = None
    for value in [*ids, None]:
        if last is not None and value == last + 1:
            last = value
            continue
        if first is not None:
            parts.append(f"{first}" if first == last else f"{first}-{last}")
        first = last = value
    return "+".join(parts)
