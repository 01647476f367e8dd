"""How often something may be done. Needs nothing of the package."""

from __future__ import annotations


class RateLimit:
    """At most so many a minute in the long run, in bursts of a limited number. Pure.

    Args:
        per_minute: 0 for no limit.
        burst: how many in a row; None: `per_minute`.
    """

    def __init__(self, per_minute: float, burst: float | None = None) -> None:
        self._per_second = per_minute / 60
        self._capacity = max(1.0, per_minute if burst is None else burst)
        self._tokens = self._capacity
        self._at: float | None = None

    def delay(self, now: float) -> float:
        """How long to wait until the next one, s."""
        if not self._per_second:
            return 0.0
        if self._at is not None:
            grown = self._tokens + max(0.0, now - self._at) * self._per_second
            self._tokens = min(self._capacity, grown)
        self._at = now
        # Rounding must not leave a wait of a nanosecond again and again.
        return max(0.0, 1 - self._tokens) / self._per_second if self._tokens < 1 - 1e-9 else 0.0

    def spend(self) -> None:
        """Note that it is done."""
        self._tokens -= 1
