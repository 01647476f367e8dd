"""Distinguishes single outliers from ids of a stream that has jumped or restarted."""

from __future__ import annotations

from enum import Enum

# A pulse id further ahead of the newest than this is accepted if the next one confirms it.
JUMP = 100_000
# A pulse id that is further back is not late: the source has restarted.
LATE = 100


class Seen(Enum):
    """Relation of an id to those before it."""

    FOLLOWS = "follows"  # as ids of a stream do, also late or again
    DOUBTED = "doubted"  # far from the others; the next one decides
    JUMPED = "jumped"  # the one before was far ahead and is confirmed
    RESTARTED = "restarted"  # the one before was far back and is confirmed


class IdWatch:
    """Accepts an id that is far from the newest only if the next one is near it.

    Args:
        late: how far back an id may be and still count as late.
        jump: how far ahead an id may be without being doubted.

    Attributes:
        newest: the highest id that is believed; None before the first.
        doubted: an id that waits for the next one; None when there is none.
    """

    __slots__ = ("_jump", "_late", "doubted", "newest")

    def __init__(self, late: int = LATE, jump: int = JUMP) -> None:
        self._late = late
        self._jump = jump
        self.newest: int | None = None
        self.doubted: int | None = None

    def see(self, value: int) -> Seen:
        """Take note of an id."""
        newest, doubted = self.newest, self.doubted
        if newest is None:
            self.newest = value
        elif self._near(value, newest):
            self.doubted = None
            if value > newest:
                self.newest = value
        elif doubted is None or value == doubted or not self._near(value, doubted):
            self.doubted = value
            return Seen.DOUBTED
        else:
            self.doubted = None
            self.newest = max(value, doubted)
            return Seen.JUMPED if doubted > newest else Seen.RESTARTED
        return Seen.FOLLOWS

    def _near(self, value: int, other: int) -> bool:
        return -self._late <= value - other <= self._jump
