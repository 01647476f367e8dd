"""What the help of all commands has to show, and what they say about wrong options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pvapy_stream.cli import main as cli
from pvapy_stream.cli.parser import Parser, parsers_of
from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.settings import option_of

# Numbers without a unit: ids, ports, parts of one, pixels, and counts of what the help names.
NO_UNIT = set(
    """
    --acquisition --collector-id --consumer-id --first-pulse --pulse-id --stop-pulse-id user_id
    --metrics-port --output_port --port --range-port --rest-port --smtp-port rest_port
    --corrupt --delay --drop --duplicate --malformed --missing --reconnect --reorder
    --color-mode --maximum --minimum
    --saturation --seed --first-series
    --distributor-updates --every --max-readers --max-restarts --n-consumers --n-distributor-sets
    --n-frames
    --n-scalars --n-threads --oid-offset --pulse-step --skip-initial-updates --wait-for-clients
    --wait-for-consumers
    """.split()
)


def shows(default: Any) -> bool:
    """Whether there is a default to show: a number 0 is one, a switch that is off is none."""
    return default is not argparse.SUPPRESS and (
        bool(default) or (default == 0 and default is not False)
    )


def text(default: Any) -> str:
    if isinstance(default, float):
        return f"{default:g}"
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parsers of all commands and of their actions, by name."""
    made = [cli.load(name).COMMAND.parser() for name in cli.commands()]
    found = {one.prog: one for top in made for one in parsers_of(top)}
    for parser in found.values():
        assert isinstance(parser, Parser)
        parser.complete()
    return found


def shown_options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            yield f"{parser.prog} {'/'.join(action.option_strings) or action.dest}", action


def test_every_option_has_help_with_its_default() -> None:
    wrong: list[str] = []
    for parser in parsers().values():
        for name, action in shown_options(parser):
            if not action.help:
                wrong.append(f"{name}: no help")
            elif shows(action.default) and f"[default {text(action.default)}" not in action.help:
                wrong.append(f"{name}: no default {text(action.default)}")
    assert wrong == []


def test_every_setting_shows_its_default_and_unit() -> None:
    wrong: list[str] = []
    checked = 0
    for name in cli.commands():
        command = cli.load(name).COMMAND
        if not isinstance(command, SettingsCommand):
            continue
        parser = command.parser()
        parser.complete()
        helps = {action.dest: action.help or "" for action in parser._actions}
        for setting, field in command.model.model_fields.items():
            option = option_of(command.model, setting)
            if option is None:
                continue
            checked += 1
            notes = helps[setting].rpartition("[")[2]
            default = field.get_default(call_default_factory=True)
            if option.unit and option.unit not in notes:
                wrong.append(f"{name} {option.flags}: no unit {option.unit}")
            if (
                not field.is_required()
                and shows(default)
                and f"default {text(default)}" not in notes
            ):
                wrong.append(f"{name} {option.flags}: no default {text(default)}")
    assert wrong == []
    assert checked > 200


def test_required_options_come_first_in_help() -> None:
    for name, parser in parsers().items():
        parser.format_help()
        groups = [[a.required for a in group._group_actions] for group in parser._action_groups]
        assert all(one == sorted(one, reverse=True) for one in groups), name
        with_some = [any(one) for one in groups if one]
        assert with_some == sorted(with_some, reverse=True), name


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["consumer", "--input-chanel", "x"], "did you mean '--input-channel'?"),
        (["consumer", "-ic", "x", "--n-cnsumers", "2"], "did you mean '--n-consumers'?"),
        (["verify", "a.h5", "--repare"], "did you mean '--repair'?"),
        (["workflow", "run", "a.yaml", "--foldr", "x"], "did you mean '--folder'?"),
        (["monitor", "disk", "--min-fre", "1"], "did you mean '--min-free'?"),
        (["project", "shedule", "x"], "did you mean 'schedule'?"),
        (["template", "--defalts"], "did you mean '--defaults'?"),
        (["audit", "--zzzzzz", "l.json"], "pvapy-stream audit -h lists the options"),
    ],
)
def test_a_wrong_option_gets_one_line_with_the_nearest(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_numbers_have_a_unit() -> None:
    without: set[str] = set()
    for parser in parsers().values():
        for _, action in shown_options(parser):
            notes = re.search(r"\[([^]]*)\]$", action.help or "")
            unit = re.sub(r"default \S+|required|,", "", notes[1] if notes else "").strip()
            if action.type in (int, float) and not unit:
                without.add(max(action.option_strings, key=len, default=action.dest))
    assert without == NO_UNIT


def test_every_command_names_the_nearest_option(capsys: pytest.CaptureFixture[str]) -> None:
    wrong: list[str] = []
    for name, parser in parsers().items():
        for flag in parser._option_string_actions:
            if not flag.startswith("--"):
                continue
            typed = f"{flag}{flag[-1]}"
            with pytest.raises(SystemExit) as ended:
                parser.parse_args([typed])
            said = capsys.readouterr()
            line = f"{name}: error: unrecognized arguments: {typed}; did you mean '{flag}'?\n"
            if (ended.value.code, said.err, said.out) != (2, line, ""):
                wrong.append(f"{name} {typed}: {said.err}")
    assert wrong == []
