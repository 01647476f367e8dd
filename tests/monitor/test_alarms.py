"""Rules and when an alarm is given; time is the caller's."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvapy_stream.errors import SettingsError
from pvapy_stream.monitor.alarms import Alarm, Alarms, level_of
from pvapy_stream.monitor.disk_monitor import DiskSettings
from pvapy_stream.settings import parse_rule
from pvapy_stream.settings.monitor_settings import STREAM_ALARMS


def told(rule: str, values: list[tuple[float, float]]) -> list[tuple[float, str]]:
    """What an alarm tells of (time, value), with the time."""
    alarm = Alarm(parse_rule(rule), "x")
    found = [(time, alarm.update(value, time)) for time, value in values]
    return [(time, event[0]) for time, event in found if event]


def test_only_entering_and_leaving_are_told() -> None:
    values = [(n, v) for n, v in enumerate([60, 40, 30, 45, 51, 60, 49, 70])]
    assert told("free < 50", values) == [(1, "enter"), (4, "leave"), (6, "enter"), (7, "leave")]


def test_the_value_to_clear_is_another() -> None:
    values = [(n, v) for n, v in enumerate([95, 89, 86, 91, 84, 91])]
    assert told("cpu > 90 clear 85", values) == [(0, "enter"), (4, "leave"), (5, "enter")]


def test_the_bad_state_must_last() -> None:
    values = [(0, 9), (5, 1), (9, 9), (20, 9), (21, 9), (30, 9), (31, 1)]
    assert told("x > 5 for 10 s", values) == [(20, "enter"), (31, "leave")]
    assert told("x > 5 for 12 s", values) == [(21, "enter"), (31, "leave")]


def test_the_alarm_ends_when_the_value_was_good_for_long_enough() -> None:
    values = [(0, 9), (10, 0), (15, 9), (20, 0), (29, 0), (30, 0), (31, 9)]
    assert told("x > 5 hold 10 s", values) == [(0, "enter"), (30, "leave"), (31, "enter")]
    alarm = Alarm(parse_rule("x > 5 for 1 s hold 10 s every 1 h"), "x")
    for value, now in ((9, 0), (9, 1), (0, 3), (0, 12)):
        alarm.update(value, now)
    # How long the bad state lasted, without the time it was held.
    assert alarm.update(0, 13) == ("leave", 3)


def test_losses_one_after_another_are_one_alarm() -> None:
    (rule,) = [rule for rule in STREAM_ALARMS if rule.quantity == "missed_rate"]
    assert rule.holds == 60
    assert {r.quantity: r.holds for r in STREAM_ALARMS if not r.holds} == {
        "connected": 0, "failed": 0,
    }  # fmt: skip


def test_the_examples_in_messages_work() -> None:
    with pytest.raises(SettingsError) as wrong:
        DiskSettings.of(alarms="free = 5")
    _, _, advice = str(wrong.value).partition("write it like ")
    examples = re.findall("'(.*?)'", advice.partition(" (given")[0])
    assert len(examples) == 2
    for example in examples:
        assert len(DiskSettings.of(alarms=example).alarms) == 1


@pytest.mark.parametrize(
    ("titles", "level"),
    [
        (["ALARM: a: x < 5"], "failure"), (["still ALARM: a: x < 5"], "failure"),
        (["OK: a: x < 5"], "success"), (["INFO", "Door"], "info"),
        (["2 messages: ALARM: a, …", "ALARM: a: x", "    a: x is 4", "OK: a: x"], "warning"),
    ],
)  # fmt: skip
def test_how_serious_messages_are(titles: list[str], level: str) -> None:
    assert level_of(titles) == level


def test_a_lasting_alarm_is_repeated() -> None:
    values = [(float(n), 9) for n in range(0, 200, 10)]
    assert told("x >= 9 every 1 min", values) == [
        (0, "enter"), (60, "repeat"), (120, "repeat"), (180, "repeat"),
    ]  # fmt: skip


def test_how_long_it_lasted() -> None:
    alarm = Alarm(parse_rule("x > 5"), "x")
    alarm.update(9, 100.0)
    assert alarm.update(1, 130.0) == ("leave", 30.0)
    alarm.update(9, 200.0)
    assert alarm.update(1, 210.0) == ("leave", 10.0)


def test_what_is_no_number_changes_nothing() -> None:
    values = [(0, 9), (1, math.nan), (2, 9), (3, 1), (4, math.nan), (5, math.inf)]
    assert told("x > 5", values) == [(0, "enter"), (3, "leave"), (5, "enter")]


@given(st.lists(st.floats(allow_nan=True)), st.sampled_from(["x > 0", "x < 0 for 3 s", "x >= 1"]))
def test_entering_and_leaving_alternate(values: list[float], rule: str) -> None:
    changes = [change for _, change in told(rule, [(float(n), v) for n, v in enumerate(values)])]
    assert changes == (["enter", "leave"] * len(changes))[: len(changes)]


def test_each_subject_has_a_state_of_its_own() -> None:
    alarms = Alarms([parse_rule("free@/data* < 5"), parse_rule("free < 1")])
    assert alarms.update("free", "/home", 3, 0) == []
    (event,) = alarms.update("free", "/data1", 3, 0, "GB")
    assert event.title == "ALARM: /data1: free@/data* < 5"
    assert event.message == "/data1: free is 3 GB; the rule is free@/data* < 5"
    assert [e.rule.value for e in alarms.update("free", "/data2", 0, 0)] == [5, 1]
    assert alarms.update("used", "/data1", 0, 0) == []
    assert len(alarms.active()) == 3
    (event,) = alarms.update("free", "/data1", 8, 7.0, "GB")
    assert event.title == "OK: /data1: free@/data* < 5"
    assert "after 7 s" in event.message
    (event,) = Alarms([parse_rule("n > 5")]).update("n", "x", 1234567.8, 0)
    assert event.message == "x: n is 1234568; the rule is n > 5"


def test_rules_as_text() -> None:
    rule = parse_rule("  used_percent@/a,b >= 9e1 % clear 85 % for 2 min every 1.5 h")
    assert (rule.quantity, rule.subject, rule.comparison) == ("used_percent", "/a,b", ">=")
    assert (rule.value, rule.clear, rule.lasts, rule.every) == (90, 85, 120, 5400)
    assert str(rule) == "used_percent@/a,b >= 90 %"
    settings = DiskSettings.of(alarms="free < 5; used_percent > 90")
    assert [r.quantity for r in settings.alarms] == ["free", "used_percent"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("free < lots", "is not an alarm rule; write it like"),
        ("free = 5", "is not an alarm rule"),
        ("free < 5 for ever", "is not an alarm rule"),
        ("free < 1e999", "finite"),
        ("free < 5 clear 4", "cleared at higher values than 5, not 4"),
        ("cpu > 5", "no quantity 'cpu'; there are total, used, free"),
        ("free > 5 clear 6", "lower values"),
        ("free < 5 GB clear 6 MB", "same unit"),
        ("free < 5 MB", "free is in GB, not in MB"),
        (7, "7 is not an alarm rule"),
    ],
)
def test_wrong_thresholds_are_refused(rule: object, message: str) -> None:
    with pytest.raises(SettingsError, match="(?s)" + message):
        DiskSettings.of(alarms=rule if isinstance(rule, str) else [rule])
