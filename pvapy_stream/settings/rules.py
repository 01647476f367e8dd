"""Alarm rules, written as text: ``free < 50 clear 60 for 30 s every 1 h``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator

Comparison = Literal["<", "<=", ">", ">="]

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_UNIT = r"%|[A-Za-zµ]+(?:/[a-z]+)?"
_RULE = re.compile(
    rf"""(?P<quantity>[\w.-]+)(?:@(?P<subject>\S+))?
    \s*(?P<comparison><=|>=|<|>)\s*(?P<value>{_NUMBER})\s*(?P<unit>(?!(?:clear|for|hold|every)\b)(?:{_UNIT}))?
    (?:\s+clear\s+(?P<clear>{_NUMBER})\s*(?P<clear_unit>(?!(?:for|hold|every)\b)(?:{_UNIT}))?)?
    (?:\s+for\s+(?P<lasts>{_NUMBER})\s*(?P<lasts_unit>ms|s|min|h|d)?)?
    (?:\s+hold\s+(?P<holds>{_NUMBER})\s*(?P<holds_unit>ms|s|min|h|d)?)?
    (?:\s+every\s+(?P<every>{_NUMBER})\s*(?P<every_unit>ms|s|min|h|d)?)?""",
    re.VERBOSE,
)
_EXAMPLE = "write it like 'free < 50', 'used_percent@/data > 90 % clear 85 for 30 s every 1 h'"


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """When a quantity is in a bad state.

    Attributes:
        quantity: which quantity, such as ``free``.
        comparison: how a bad value compares with `value`.
        value: in the unit of the quantity.
        clear: the bad state is left when the value no longer compares so with this one.
        subject: pattern of what it holds for, such as ``/data``; all when ``*``.
        lasts: s for which the value must be bad before the alarm is given.
        holds: s for which it must be good before the alarm ends.
        every: s after which a lasting alarm is repeated; 0: never.
        unit: as it was written; "" for none.
    """

    quantity: str
    comparison: Comparison
    value: float
    clear: float
    subject: str = "*"
    lasts: float = 0.0
    holds: float = 0.0
    every: float = 0.0
    unit: str = ""

    def concerns(self, quantity: str, subject: str) -> bool:
        """Whether the rule is about this quantity of this subject."""
        return quantity == self.quantity and fnmatchcase(subject, self.subject)

    def is_bad(self, value: float, active: bool = False) -> bool:
        """Whether a value is bad; once it was, it must pass `clear` to be good again."""
        limit = self.clear if active else self.value
        if self.comparison == "<":
            return value < limit
        if self.comparison == "<=":
            return value <= limit
        return value > limit if self.comparison == ">" else value >= limit

    def __str__(self) -> str:
        where = "" if self.subject == "*" else f"@{self.subject}"
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.quantity}{where} {self.comparison} {self.value:g}{unit}"


def parse_rule(text: str) -> AlarmRule:
    """A rule from its text.

    Raises:
        ValueError: saying what is wrong and how a rule is written.
    """
    found = _RULE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not an alarm rule; {_EXAMPLE}")
    value = float(found["value"])
    clear = float(found["clear"]) if found["clear"] else value
    comparison = cast("Comparison", found["comparison"])
    if not math.isfinite(value) or not math.isfinite(clear):
        raise ValueError(f"{text!r}: thresholds must be finite numbers")
    if (clear < value) if comparison[0] == "<" else (clear > value):
        raise ValueError(
            f"{text!r}: with {comparison} the alarm is cleared at"
            f" {'higher' if comparison[0] == '<' else 'lower'} values than {value:g}, not {clear:g}"
        )
    if found["clear_unit"] and found["clear_unit"] != (found["unit"] or ""):
        raise ValueError(f"{text!r}: both values need the same unit")
    return AlarmRule(
        found["quantity"],
        comparison,
        value,
        clear,
        found["subject"] or "*",
        _seconds(found["lasts"], found["lasts_unit"]),
        _seconds(found["holds"], found["holds_unit"]),
        _seconds(found["every"], found["every_unit"]),
        found["unit"] or "",
    )


def _seconds(number: str | None, unit: str | None) -> float:
    return float(number) * _SECONDS[unit or ""] if number else 0.0


def check_units(rules: Iterable[AlarmRule], quantities: Mapping[str, str]) -> None:
    """Check rules against the quantities of a monitor and their units.

    Raises:
        ValueError: a rule is about an unknown quantity, or in another unit.
    """
    for rule in rules:
        if rule.quantity not in quantities:
            raise ValueError(
                f"--alarm: there is no quantity {rule.quantity!r}; there are"
                f" {', '.join(quantities)}"
            )
        unit = quantities[rule.quantity]
        if rule.unit and rule.unit != unit:
            raise ValueError(
                f"--alarm: {rule.quantity} is in {unit or 'numbers without a unit'},"
                f" not in {rule.unit}"
            )


def _rules(value: Any) -> object:
    if value is None:
        return ()
    texts = [value] if isinstance(value, (str, AlarmRule)) else value
    rules: list[AlarmRule] = []
    for text in texts:
        if isinstance(text, AlarmRule):
            rules.append(text)
        elif isinstance(text, str):
            rules += [parse_rule(part) for part in text.split(";") if part.strip()]
        else:
            raise ValueError(f"{text!r} is not an alarm rule; {_EXAMPLE}")
    return tuple(rules)


AlarmRules = Annotated[tuple[AlarmRule, ...], BeforeValidator(_rules)]
