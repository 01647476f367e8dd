"""Monitors from settings and files, and several of them at the same time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pvapy_stream.errors import MonitorError, PvapyStreamError, SettingsError
from pvapy_stream.monitor.base import SamplingMonitor
from pvapy_stream.monitor.kinds import kind_of, kinds
from pvapy_stream.monitor.notifiers import make_notifiers
from pvapy_stream.monitor.series_store import SeriesStore
from pvapy_stream.settings import MonitorSettings

_END_TIMEOUT = 30.0  # s


def make_monitor(settings: MonitorSettings) -> SamplingMonitor:
    """The monitor that settings describe, with its store and notifiers.

    Raises:
        PvapyStreamError: settings that cannot be followed.
    """
    kind = kind_of(settings)
    notifiers = make_notifiers(settings)
    return kind.monitor(settings, _store(settings), notifiers)


def _store(settings: MonitorSettings) -> SeriesStore | None:
    if not settings.series:
        return None
    folder = Path(settings.working_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MonitorError(
            f"cannot make the folder {folder}: {error.strerror}; give another with --working-dir"
        ) from error
    return SeriesStore(folder / settings.series, settings.retention)


def read_monitors(file: str | Path) -> list[MonitorSettings]:
    """Settings of the monitors that a TOML or JSON file lists.

    The file has a list `monitor` of tables, each with its `kind` and the settings of that kind;
    what is in a table `defaults` is valid for all.

    Raises:
        SettingsError: the file cannot be read, or a setting is wrong.
    """
    path = Path(file)
    decode = msgspec.json.decode if path.suffix == ".json" else msgspec.toml.decode
    try:
        content = decode(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("monitor"), list):
        raise SettingsError(
            f'{path} lists no monitors; begin each with [[monitor]] and kind = "disk"'
        )
    unknown = content.keys() - {"monitor", "defaults"}
    if unknown:
        raise SettingsError(f"{path}: unknown {', '.join(sorted(unknown))}")
    defaults = content.get("defaults", {})
    return [_settings(path, n, defaults, one) for n, one in enumerate(content["monitor"], 1)]


def _settings(path: Path, number: int, defaults: Any, given: Any) -> MonitorSettings:
    where = f"{path}, monitor {number}"
    if not isinstance(given, dict) or not isinstance(defaults, dict):
        raise SettingsError(f"{where} is not a table of settings")
    values = {**defaults, **given}
    kind, known = values.pop("kind", None), kinds()
    if kind not in known:
        raise SettingsError(f"{where}: kind must be one of {', '.join(known)}, not {kind!r}")
    try:
        return known[kind].settings.of(**values)
    except SettingsError as error:
        raise SettingsError(f"{where} ({kind}): {error}") from error


def run_monitors(monitors: Sequence[SamplingMonitor], stop: threading.Event) -> list[str]:
    """Run monitors, each in a thread, until all have ended or `stop` is set.

    Returns:
        what went wrong, a line for each monitor concerned.
    """
    problems: list[str] = []

    def body(monitor: SamplingMonitor) -> None:
        try:
            monitor.loop()
        except PvapyStreamError as error:
            problems.append(f"{monitor.name}: {error}")

    threads = [
        threading.Thread(target=body, args=(monitor,), name=monitor.name, daemon=True)
        for monitor in monitors
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and not stop.wait(0.2):
        pass
    for monitor in monitors:
        monitor.stop.set()
    for monitor, thread in zip(monitors, threads, strict=True):
        thread.join(_END_TIMEOUT)
        if thread.is_alive():
            problems.append(f"{monitor.name}: did not end within {_END_TIMEOUT:g} s")
        if monitor.n_failures:
            problems.append(
                f"{monitor.name}: {monitor.n_failures} failures, the last: {monitor.last_failure}"
            )
    return problems
