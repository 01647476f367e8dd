"""Times at which messages were sent, by the local clock; the source's may be wrong by hours."""

from __future__ import annotations

from collections.abc import Iterator

from pvapy_stream.daq.items import Item

_WINDOW_NS = 5_000_000_000
_OPENING = 0.3  # s
_MOST_HELD = 200  # messages
_MOST_BYTES = 64 * 2**20


class SourceClock:
    """Estimates the error of a source's clock, from the message that arrived fastest."""

    def __init__(self) -> None:
        self._delay: int | None = None
        self._before: int | None = None
        self._since = 0

    def note(self, timestamp_ns: int | None, arrival_ns: int) -> None:
        """Take note of a message; both times are since 1970-01-01 UTC, of its clock and of ours."""
        if not timestamp_ns:
            return
        if arrival_ns - self._since > _WINDOW_NS:
            self._before, self._delay, self._since = self._delay, None, arrival_ns
        delay = arrival_ns - timestamp_ns
        self._delay = delay if self._delay is None else min(self._delay, delay)

    def sent_at(self, timestamp_ns: int | None, arrival_ns: int) -> int:
        """When a message was sent, by our clock; its arrival when it has no time."""
        known = [delay for delay in (self._delay, self._before) if delay is not None]
        if not timestamp_ns or not known:
            return arrival_ns
        return timestamp_ns + min(known)


class Opening:
    """Holds the first messages of an acquisition that begins now, for a short time.

    Some of them were made before, and waited in the sender. Only later messages show the error of
    the source's clock, and so how old the first ones are.
    """

    def __init__(self) -> None:
        self._held: list[tuple[Item, int]] = []
        self._since: float | None = None
        self._nbytes = 0

    def __bool__(self) -> bool:
        return bool(self._held)

    def hold(self, message: Item, arrival_ns: int, now: float) -> None:
        """Hold a message."""
        self._since = now if self._since is None else self._since
        self._held.append((message, arrival_ns))
        self._nbytes += message.nbytes

    def is_over(self, now: float) -> bool:
        """Whether what is held must be looked at now."""
        late = self._since is not None and now - self._since >= _OPENING
        return late or len(self._held) >= _MOST_HELD or self._nbytes >= _MOST_BYTES

    def release(self) -> Iterator[tuple[Item, int]]:
        """Messages and when they arrived, in order; they are held no longer."""
        held, self._held, self._nbytes = self._held, [], 0
        yield from held
