"""Items of an acquisition, of any stream, and their sources."""

from __future__ import annotations

from typing import Any, Protocol


class Item(Protocol):
    """A message, or an image, of a stream.

    Attributes:
        pulse_id: its id.
        timestamp_ns: its time, ns since 1970-01-01 UTC; None when unknown.
        nbytes: about its size.
        channels: its values, as files in the SwissFEL layout have them.
    """

    @property
    def pulse_id(self) -> int: ...
    @property
    def timestamp_ns(self) -> int | None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def channels(self) -> list[Any]: ...


class Feed(Protocol):
    """Source of items, for one reading thread."""

    @property
    def address(self) -> str:
        """Where it comes from."""
        ...

    @property
    def n_errors(self) -> int:
        """How many of them were malformed."""
        ...

    @property
    def last_error(self) -> str:
        """What was wrong with the last of those."""
        ...

    @property
    def newest(self) -> int | None:
        """Newest pulse id that is known of."""
        ...

    @property
    def finished(self) -> bool:
        """Whether no more items follow."""
        ...

    @property
    def silent(self) -> float:
        """Time since the last message of the source, s; infinite if there was none."""
        ...

    def read(self, timeout: float) -> Item | None:
        """The next item, None when there is none within `timeout` s.

        Raises:
            TransportError: no more items can arrive.
        """
        ...

    def stop_at(self, pulse_id: int) -> None:
        """Say that nothing is needed after this pulse."""
        ...

    def close(self) -> None: ...
