"""Types, conditions and validators of parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvapy_stream.errors import SettingsError
from pvapy_stream.workflow.model import parameters as p
from pvapy_stream.workflow.model.conditions import holds
from pvapy_stream.workflow.model.validators import GE, LE, LT, Format, NonEmpty, Positive, Range
from pvapy_stream.workflow.run.step_protocol import Protocol


@pytest.mark.parametrize(
    ("param", "given", "value"),
    [
        (p.String(), 5, "5"),
        (p.Int(), "12", 12),
        (p.Float(), "1e-3", 0.001),
        (p.Boolean(), "true", True),
        (p.Boolean(), "0", False),
        (p.Enum(choices=("a", "b")), "1", "b"),
        (p.NumericList(), "3x5 7.5", [5, 5, 5, 7.5]),
        (p.NumericList(), "10x2 5", [2] * 10 + [5]),
        (p.NumericRange(), "1,5-8", [1, 5, 6, 7, 8]),
        (p.MultiPointer(), "2.items", ["2.items"]),
        (p.Int(allows_null=True), "", None),
        (p.Label(), None, None),
    ],
)
def test_values_come_in_their_type(param: p.Param, given: object, value: object) -> None:
    assert param.parse(given) == value


@pytest.mark.parametrize(
    ("param", "given", "words"),
    [
        (p.Int(), "x", "valid integer"),
        (p.Int(), None, "missing"),
        (p.Boolean(), "perhaps", "boolean"),
        (p.Enum(choices=("fast", "slow")), "fats", "did you mean 'fast'"),
        (p.NumericList(), "3x", "not a number"),
        (p.NumericRange(), "8-5", "not a range"),
        (p.String(), {}, "must be text"),
    ],
)
def test_other_values_are_refused(param: p.Param, given: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        param.parse(given)


def test_all_problems_are_told_with_their_labels(tmp_path: Path) -> None:
    form = p.Form()
    form.add("n", p.Int(1, label="Number of frames", validators=(Positive,)))
    form.add("low", p.Float(0, validators=(GE(0), LT(1))))
    form.add("high", p.Float(0, validators=(LE(9, "too high"),)))
    form.add("percent", p.Int(0, validators=(Range(0, 100),)))
    form.add("name", p.String("x", validators=(NonEmpty,)))
    form.add("date", p.String("", validators=(Format(r"\d{4}-\d\d", "write it 2026-01"),)))
    form.add("file", p.File(""))
    form.add("folder", p.Folder("."))
    form.add("unused", p.Int(0, condition="n > 5", validators=(Positive,)))
    values, problems = form.evaluate(
        {"n": -1, "low": 1, "high": 10, "percent": 101, "name": " ", "file": tmp_path / "none",
         "folder": tmp_path / "none"}
    )  # fmt: skip
    assert values["n"] == -1
    assert problems == [
        "Number of frames: must be greater than 0",
        "Low: must be less than 1",
        "High: too high",
        "Percent: must be from 0 to 100",
        "Name: must not be empty",
        "Date: write it 2026-01",
        f"File: file {tmp_path}/none does not exist",
        f"Folder: folder {tmp_path}/none does not exist",
    ]
    assert "Unused: must be greater than 0" in form.evaluate({"n": 6})[1]
    assert "unused" not in form.visible(values)


def test_conditions_are_read_and_not_executed() -> None:
    values = {"a": 3, "mode": "fast", "flag": False}
    assert holds("a > 2 and mode in ('fast', 'slow') and not flag and -1 < a <= 3", values)
    assert not holds("a == 2 or flag", values)
    with pytest.raises(SettingsError, match="'b', which is not a parameter"):
        holds("b > 1", values)
    with pytest.raises(SettingsError, match="cannot be evaluated"):
        holds("__import__('os')", values)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("", True), ("n", False), ("not n", True), ("n is None", True), ("n == None", True),
        # What is missing is neither more nor less than anything; the value itself is told of.
        ("n > 5", False), ("n <= 5", False), ("0 < a < n", False), ("not n > 5", True),
        ("a in (1, 3)", True), ("a not in [1, 3]", False), ("mode != 'slow'", True),
        ("a > 5 or mode == 'fast' and not n", True), ("-a == -3", True), ("1 < a < 3", False),
    ],
)  # fmt: skip
def test_what_conditions_say(condition: str, expected: bool) -> None:
    assert holds(condition, {"a": 3, "mode": "fast", "n": None}) is expected


@pytest.mark.parametrize(
    "condition", ["a >", "a + 1 > 2", "a.b", "a[0]", "f(a)", "a > 'x'", "a in 3", "[x for x in a]"]
)
def test_what_is_no_condition(condition: str) -> None:
    with pytest.raises(SettingsError, match=r"condition .* cannot be evaluated"):
        holds(condition, {"a": 3})


def test_a_hidden_parameter_is_not_validated_and_a_missing_one_is_named() -> None:
    form = p.Form()
    form.add("n", p.Int(label="Frames"))
    form.add("pause", p.Float(0, condition="n > 5", validators=(Positive,)))
    assert form.evaluate({"n": 3, "pause": "soon"})[1] == []
    assert form.evaluate({"n": 6})[1] == ["Pause: must be greater than 0"]
    # Its condition cannot be told yet.
    assert form.evaluate({})[1] == ["Frames: is missing; give a value"]


def test_names_of_parameters_are_checked() -> None:
    class Clash(Protocol):
        def define_params(self, form: p.Form) -> None:
            form.add("state_", p.Int(1))
            form.add("take", p.Int(1))

    with pytest.raises(SettingsError, match="'take' has the name of an attribute"):
        Clash.form()
    form = p.Form().add("n_items", p.Int(1))
    assert form.check_names(["n_item"], "Count") == [
        "Count has no parameter 'n_item'; did you mean 'n_items'?"
    ]
    with pytest.raises(SettingsError, match="defined twice"):
        form.add("n_items", p.Int(1))
