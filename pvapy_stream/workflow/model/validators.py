"""Validators: each is called with a value and returns a list of errors, empty when it is good."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

Validator = Callable[[Any], list[str]]


@dataclass(frozen=True)
class _Limit:
    limit: float
    message: str = ""

    words: ClassVar[str]
    holds: ClassVar[Callable[[Any, float], bool]]

    def __call__(self, value: Any) -> list[str]:
        if type(self).holds(value, self.limit):
            return []
        return [self.message or f"must be {self.words} {self.limit:g}"]


class GT(_Limit):
    """Greater than."""

    words, holds = "greater than", operator.gt


class GE(_Limit):
    """Greater than or equal to."""

    words, holds = "at least", operator.ge


class LT(_Limit):
    """Less than."""

    words, holds = "less than", operator.lt


class LE(_Limit):
    """Less than or equal to."""

    words, holds = "at most", operator.le


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
    """A text that is not empty; use the instance `NonEmpty`."""

    message: str = "must not be empty"

    def __call__(self, value: Any) -> list[str]:
        blank = not value.strip() if isinstance(value, str) else value is None or value == []
        return [self.message] if blank else []


@dataclass(frozen=True, slots=True)
class Format:
    """Text that a regular expression matches completely."""

    pattern: str
    message: str = ""

    def __call__(self, value: Any) -> list[str]:
        if re.fullmatch(self.pattern, str(value)):
            return []
        return [self.message or f"must look like {self.pattern}"]


Positive = GT(0, "must be greater than 0")
NonEmpty = NonEmptyText()
