"""Kinds of monitors: ours, and one that another package brings by an entry point."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pvapy_stream import settings
from pvapy_stream.errors import SettingsError
from pvapy_stream.monitor.kinds import kind_of, kinds
from pvapy_stream.settings import MonitorSettings
from tests.support import Commands

PACKAGE = Path(__file__).parent / "package"
HOME = Path(__file__).parents[2]


def test_ours_are_found_by_their_files() -> None:
    assert list(kinds()) == ["disk", "system", "streams", "image", "table"]
    for name, kind in kinds().items():
        assert kind.name == name
        assert kind.make.kind == name  # pyright: ignore
        # Users import them from here.
        assert getattr(settings, kind.settings.__name__) is kind.settings


def test_settings_of_no_monitor() -> None:
    with pytest.raises(SettingsError, match="MonitorSettings are no settings of a monitor"):
        kind_of(MonitorSettings.of())


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A door that is open; programs that are started find the package."""
    monkeypatch.setenv("PYTHONPATH", f"{HOME}:{PACKAGE}")
    made = tmp_path / "door"
    made.touch()
    return made


def samples(folder: Path) -> list[tuple[str, str, float]]:
    with closing(sqlite3.connect(folder / "monitors.sqlite")) as series:
        return series.execute(
            "SELECT subject, quantity, value FROM samples JOIN series ON id = series"
        ).fetchall()


def test_the_command_has_it(door: Path, commands: Commands) -> None:
    monitor = commands(
        *("monitor", "door", "--door", door, "-si", 0.1, "-mt", 0.01, "-wd", door.parent),
        *("--alarm", "open > 0", "--notify", "print"),
    )
    assert monitor.wait() == 0, monitor.text
    assert ("door", "open", 1.0) in samples(door.parent)
    assert "open" in monitor.text
    # What cannot be used is named once, and costs nothing else.
    assert monitor.text.count("monitor 'broken_door' of the package door-monitor cannot be") == 1
    assert "door_monitor:MONITOR is not a MonitorKind with the name 'gate'" in monitor.text


def test_a_file_names_it_and_ours_keep_their_names(door: Path, commands: Commands) -> None:
    file = door.parent / "monitors.toml"
    file.write_text(f"""
[defaults]
working_dir = "{door.parent}"
sampling_interval = 0.1
monitor_time = 0.01

[[monitor]]
kind = "door"
door = "{door}"

[[monitor]]
kind = "disk"
paths = ["{door.parent}"]
""")
    monitor = commands("monitor", "run", file)
    assert monitor.wait() == 0, monitor.text
    quantities = {quantity for _, quantity, _ in samples(door.parent)}
    assert {"open", "free"} <= quantities


def test_a_rule_may_name_its_quantities_only(door: Path, commands: Commands) -> None:
    monitor = commands("monitor", "door", "--door", door, "--alarm", "closed > 0")
    assert monitor.wait() == 2
    assert "closed" in monitor.text
