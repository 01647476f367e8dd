"""A clock that tests set, and who is told."""

from __future__ import annotations

import threading

from pvapy_stream.monitor import Clock


class FakeClock(Clock):
    """Time passes only while somebody waits, or when a test says so."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.passed = 0.0
        self.start = start

    def now(self) -> float:
        return self.passed

    def wall(self) -> float:
        return self.start + self.passed

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.passed += max(0.0, seconds)
        return stop.is_set()


class Listener:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def notify(self, title: str, message: str) -> None:
        self.told.append((title, message))

    @property
    def titles(self) -> list[str]:
        return [title for title, _ in self.told]
