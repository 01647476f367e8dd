"""Validators: each is called with a value and returns a list of errors, empty when it is good."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Validator = Callable[[Any], list[str]]


@dataclass(frozen=True, slots=True)
class _Limit:
    limit: float
    message: str = ""

    def __call__(self, value: Any) -> list[str]:
        return [] if self.holds(value) else [self.message or f"must be {self.words} {self.limit:g}"]

    words = ""

    def holds(self, value: Any) -> bool:
        """Whether a value is on the right side of the limit."""
        raise NotImplementedError


class GT(_Limit):
    """Greater than."""

    words = "greater than"

    def holds(self, value: Any) -> bool:
        return value > self.limit


class GE(_Limit):
    """Greater than or equal to."""

    words = "at least"

    def holds(self, value: Any) -> bool:
        return value >= self.limit


class LT(_Limit):
    """Less than."""

    words = "less than"

    def holds(self, value: Any) -> bool:
        return value < self.limit


class LE(_Limit):
    """Less than or equal to."""

    words = "at most"

    def holds(self, value: Any) -> bool:
        return value <= self.limit


@dataclass(frozen=True, slots=True)
class Range:
    """From a smallest to a largest value, both included."""

    low: float
    high: float
    message: str = ""

    def __call__(self, value: Any) -> list[str]:
        if self.low <= value <= self.high:
            return []
        return [self.message or f"must be from {self.low:g} to {self.high:g}"]


@dataclass(frozen=True, slots=True)
class NonEmptyText:
    """Anything but nothing; the ready one is `NonEmpty`."""

    message: str = "must not be empty"

    def __call__(self, value: Any) -> list[str]:
        blank = not value.strip() if isinstance(value, str) else value is None or value == []
        return [self.message] if blank else []


@dataclass(frozen=True, slots=True)
class Format:
    """Text that a regular expression matches as a whole."""

    pattern: str
    message: str = ""

    def __call__(self, value: Any) -> list[str]:
        if re.fullmatch(self.pattern, str(value)):
            return []
        return [self.message or f"must look like {self.pattern}"]


Positive = GT(0, "must be greater than 0")
NonEmpty = NonEmptyText()
