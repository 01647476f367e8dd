"""Which sequence numbers of which sessions have been seen."""

from __future__ import annotations

from collections import OrderedDict

from pvapy_stream.errors import CryptoError

MAX_SESSIONS = 4096

Session = tuple[bytes, bytes]  # key id of the sender, id of the session


class ReplayGuard:
    """Refuses what came before.

    In a session only numbers larger than all before are let through; gaps are fine, for a stream
    may be split over consumers. With a window, numbers that far behind the largest may come late,
    once each. When there are more than `MAX_SESSIONS` sessions, the one quiet for longest is
    forgotten, and from then on sessions whose objects are not newer than it are refused.

    Args:
        window: how far behind the largest number one may come; 0 for strictly in order.
    """

    def __init__(self, window: int = 0) -> None:
        self._window = window
        # Largest number; bits of those below it that have come; time of sealing, ns.
        self._seen: OrderedDict[Session, tuple[int, int, int]] = OrderedDict()
        self._forgotten_ns: dict[bytes, int] = {}

    @property
    def window(self) -> int:
        """How far behind the largest number one may come."""
        return self._window

    def tighten(self, window: int) -> None:
        """Make the window smaller; what came before stays known.

        Raises:
            ValueError: it would be larger.
        """
        if window > self._window:
            raise ValueError(f"{window} is larger than {self._window}")
        self._window = window

    def check(self, session: Session, sequence: int, sealed_ns: int) -> None:
        """See that an object is new.

        Raises:
            CryptoError: it came before, or may have.
        """
        state = self._seen.get(session)
        if state is None:
            if sealed_ns <= self._forgotten_ns.get(session[0], -1):
                raise CryptoError(
                    "the object is of a session so old that it may be a replay", "replay"
                )
            return
        largest, late, _ = state
        behind = largest - sequence
        if behind < 0 or (0 < behind <= self._window and not late >> behind & 1):
            return
        raise CryptoError(
            f"the object is number {sequence} of its session and number {largest} was received"
            " before: it is a replay, or out of order",
            "replay",
        )

    def record(self, session: Session, sequence: int, sealed_ns: int) -> None:
        """Remember an object that passed all checks."""
        largest, late, newest = self._seen.get(session, (sequence, 0, 0))
        if sequence >= largest:
            late = (late << (sequence - largest) if sequence - largest <= self._window else 0) | 1
            late &= (1 << (self._window + 1)) - 1
            largest = sequence
        else:
            late |= 1 << (largest - sequence)
        self._seen[session] = largest, late, max(newest, sealed_ns)
        self._seen.move_to_end(session)
        if len(self._seen) > MAX_SESSIONS:
            (sender, _), (_, _, last_ns) = self._seen.popitem(last=False)
            self._forgotten_ns[sender] = max(self._forgotten_ns.get(sender, -1), last_ns)
