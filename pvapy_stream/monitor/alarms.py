"""Alarms: raised when a bad state begins and when it ends, and repeated while it lasts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pvapy_stream.settings import AlarmRule

Change = Literal["enter", "leave", "repeat"]
Level = Literal["info", "success", "warning", "failure"]

_WORDS: dict[Change, str] = {"enter": "ALARM", "leave": "OK", "repeat": "still ALARM"}


@dataclass(frozen=True, slots=True)
class AlarmEvent:
    """One message of an alarm.

    Attributes:
        change: enter, leave or repeat.
        rule: the rule that was broken.
        subject: path, channel or host of the value.
        value: the value that caused it.
        unit: of the value.
        lasted: s since the bad state began.
    """

    change: Change
    rule: AlarmRule
    subject: str
    value: float
    unit: str = ""
    lasted: float = 0.0

    @property
    def title(self) -> str:
        """One line for a subject of a mail."""
        return f"{_WORDS[self.change]}: {self.subject}: {self.rule}"

    @property
    def message(self) -> str:
        """One sentence."""
        unit = f" {self.unit}" if self.unit else ""
        now = f"{self.subject}: {self.rule.quantity} is {_number(self.value)}{unit}"
        if self.change == "enter":
            return f"{now}; the rule is {self.rule}"
        if self.change == "leave":
            return f"{now} again, after {self.lasted:.0f} s of {self.rule}"
        return f"{now}, for {self.lasted:.0f} s now; the rule is {self.rule}"


def level_of(titles: Iterable[str]) -> Level:
    """How serious the messages with these titles are: a failure, its end, or information."""
    words = {title.partition(": ")[0] for title in titles}
    bad = bool(words & {_WORDS["enter"], _WORDS["repeat"]})
    good = _WORDS["leave"] in words
    if bad:
        return "warning" if good else "failure"
    return "success" if good else "info"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


class Alarm:
    """One rule for one subject. Pure: times come from the caller, s on a steady clock."""

    __slots__ = ("_bad_since", "_good_since", "_told_at", "active", "rule", "subject")

    def __init__(self, rule: AlarmRule, subject: str) -> None:
        self.rule = rule
        self.subject = subject
        self.active = False
        self._bad_since: float | None = None
        self._good_since: float | None = None
        self._told_at = 0.0

    def update(self, value: float, now: float) -> tuple[Change, float] | None:
        """Evaluate a value; returns the change and how long the state lasted (s).

        None without a change; NaN has no effect.
        """
        if math.isnan(value):
            return None
        if not self.rule.is_bad(value, self.active):
            return self._end(now)
        self._good_since = None
        if self._bad_since is None:
            self._bad_since = now
        lasted = now - self._bad_since
        if not self.active:
            if lasted < self.rule.lasts:
                return None
            self.active, self._told_at = True, now
            return "enter", lasted
        if 0 < self.rule.every <= now - self._told_at:
            self._told_at = now
            return "repeat", lasted
        return None

    def _end(self, now: float) -> tuple[Change, float] | None:
        """The value is good; the alarm ends when it has been so for long enough."""
        if not self.active or self._bad_since is None:
            self._bad_since = None
            return None
        if self._good_since is None:
            self._good_since = now
        if now - self._good_since < self.rule.holds:
            return None
        lasted = self._good_since - self._bad_since
        self.active, self._bad_since, self._good_since = False, None, None
        return "leave", lasted


class Alarms:
    """All alarms of a monitor: a state for each rule and each of its subjects."""

    def __init__(self, rules: Iterable[AlarmRule]) -> None:
        self._rules = tuple(rules)
        self._alarms: dict[tuple[str, str], list[Alarm]] = {}

    def update(
        self, quantity: str, subject: str, value: float, now: float, unit: str = ""
    ) -> list[AlarmEvent]:
        """Evaluate a value; returns the messages to send."""
        key = quantity, subject
        alarms = self._alarms.get(key)
        if alarms is None:
            alarms = self._alarms[key] = [
                Alarm(rule, subject) for rule in self._rules if rule.concerns(quantity, subject)
            ]
        return [
            AlarmEvent(change[0], alarm.rule, subject, value, unit, change[1])
            for alarm in alarms
            if (change := alarm.update(value, now)) is not None
        ]

    def active(self) -> list[Alarm]:
        """The active alarms."""
        return [alarm for alarms in self._alarms.values() for alarm in alarms if alarm.active]
