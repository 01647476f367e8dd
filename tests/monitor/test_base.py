"""The loop, with a clock of the test's own; observers that raise or hang."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pvapy_stream.errors import MonitorError
from pvapy_stream.monitor import Clock, Monitor, Sample, SamplingMonitor
from pvapy_stream.monitor.outbox import Outbox
from pvapy_stream.monitor.series_reader import SeriesReader
from pvapy_stream.monitor.series_store import SeriesStore
from pvapy_stream.settings import MonitorSettings
from tests.monitor.fakes import FakeClock, Listener


class Counting(Monitor):
    """Ends when told to."""

    def __init__(self, ends_after: int = 10**6, **options: Any) -> None:
        super().__init__(**options)
        self.ends_after = ends_after
        self.times: list[float] = []

    def step(self) -> bool:
        self.times.append(self.clock.now())
        return len(self.times) >= self.ends_after


def test_steps_come_every_interval_until_the_time_is_over() -> None:
    monitor = Counting(sampling_interval=10, monitor_time=1, clock=FakeClock())
    monitor.loop()
    assert monitor.times == [0, 10, 20, 30, 40, 50, 60]


def test_a_step_that_is_true_ends_the_loop() -> None:
    monitor = Counting(3, clock=FakeClock())
    monitor.loop()
    assert monitor.times == [0, 60, 120]


def test_steps_that_take_too_long_are_not_made_up_for() -> None:
    class Slow(Counting):
        def step(self) -> bool:
            done = super().step()
            self.clock.wait(self.stop, 25 if len(self.times) == 1 else 0)
            return done

    monitor = Slow(4, sampling_interval=10, clock=FakeClock())
    monitor.loop()
    assert monitor.times == [0, 25, 35, 45]


def test_real_time_and_scipions_names(tmp_path: Path) -> None:
    began: list[str] = []

    class Theirs(Monitor):
        steps = 0

        def initLoop(self) -> None:
            began.append(self.workingDir)

        def step(self) -> bool:
            self.steps += 1
            self.info(f"step {self.steps}")
            return False

    listener, other = Listener(), Listener()
    monitor = Theirs(
        workingDir=str(tmp_path / "new"), samplingInterval=0.6, monitorTime=0.03, email=listener
    )
    monitor.addNotifier(other)
    assert (monitor.samplingInterval, monitor.monitorTime) == (0.6, 0.03)
    started = time.monotonic()
    monitor.loop()
    assert 1.5 < time.monotonic() - started < 60
    assert 2 <= monitor.steps <= 5
    assert began == [str(tmp_path / "new")]
    assert listener.told == other.told == [("INFO", f"step {n + 1}") for n in range(monitor.steps)]


def test_stop_ends_a_wait() -> None:
    monitor = Counting(sampling_interval=3600)
    thread = threading.Thread(target=monitor.loop)
    thread.start()
    monitor.stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert len(monitor.times) == 1


def test_observers_that_raise_or_hang_stop_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    class Raises:
        def notify(self, title: str, message: str) -> None:
            raise RuntimeError("no mail today")

    release = threading.Event()

    class Hangs:
        def notify(self, title: str, message: str) -> None:
            release.wait(60)

    class Talks(Counting):
        def step(self) -> bool:
            self.notify("title", f"message {len(self.times)}")
            return super().step()

    listener = Listener()
    monitor = Talks(5, clock=FakeClock(), stdout=True, notifiers=[Raises(), Hangs(), listener])
    started = time.monotonic()
    threading.Timer(1.5, release.set).start()
    monitor.loop()
    assert time.monotonic() - started < 60
    assert [message for _, message in listener.told] == [f"message {n}" for n in range(5)]
    assert capsys.readouterr().out.count("title: message") == 5


def test_a_step_that_fails_is_logged_once_and_the_loop_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Fails(Counting):
        def step(self) -> bool:
            if len(self.times) < 3:
                self.times.append(0)
                raise ValueError("broken sensor")
            return super().step()

    monitor = Fails(6, clock=FakeClock())
    monitor.loop()
    assert (monitor.n_steps, monitor.n_failures) == (6, 3)
    assert monitor.last_failure == "ValueError: broken sensor"
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samplingIntervall": 3}, "no option 'samplingIntervall'; it has working_dir, sampling"),
        ({"sampling_interval": "often"}, "must be a number from 0 on, not 'often'"),
        ({"monitorTime": -1}, "monitor_time must be"),
        ({"monitorTime": float("nan")}, "monitor_time must be"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MonitorError, match=message):
        Monitor(**options)


def test_a_working_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MonitorError, match=r"cannot make the folder .*--working-dir"):
        Counting(working_dir=tmp_path / "file" / "below").loop()


class Scripted(SamplingMonitor):
    kind = "scripted"

    def __init__(self, values: list[float], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.values = values

    def sample(self) -> list[Sample]:
        return [Sample("thing", "x", self.values[self.n_steps - 1], "GB")]

    def finished(self) -> bool:
        return self.n_steps == len(self.values)


def test_samples_are_stored_and_judged(tmp_path: Path) -> None:
    file = tmp_path / "series.sqlite"
    settings = MonitorSettings.of(alarms="x < 5", sampling_interval=10, working_dir=str(tmp_path))
    listener = Listener()
    values = [9, 4, float("nan"), 3, 8]
    monitor = Scripted(values, settings, SeriesStore(file), [listener], FakeClock(1000))
    monitor.loop()
    assert listener.titles == ["ALARM: thing: x < 5", "OK: thing: x < 5"]
    reader = SeriesReader(file)
    (series,) = reader.series()
    assert (series.monitor, series.subject, series.unit) == ("scripted", "thing", "GB")
    points = reader.read(series.id, 0, 2000)
    assert points.times == [1000, 1010, 1020, 1030, 1040]
    assert points.mean == [9, 4, None, 3, 8]
    assert [(e.time, e.change, e.value) for e in reader.events(0)] == [
        (1040, "leave", 8), (1010, "enter", 4),
    ]  # fmt: skip
    assert reader.active() == []
    assert reader.monitors() == [("scripted", "scripted", "FINISHED", 1000, 1040)]
    reader.close()


def test_ten_thousand_alarms_at_once(tmp_path: Path) -> None:
    class Many(SamplingMonitor):
        def sample(self) -> list[Sample]:
            return [Sample(f"s{n}", "x", self.n_steps - 1) for n in range(10_000)]

        def finished(self) -> bool:
            return self.n_steps == 2

    listener = Listener()
    settings = MonitorSettings.of(alarms="x > 0", working_dir=str(tmp_path))
    store = SeriesStore(tmp_path / "series.sqlite")
    outbox = Outbox(listener, per_minute=6)
    started = time.monotonic()
    Many(settings, store, [outbox], FakeClock()).loop()
    assert time.monotonic() - started < 60
    assert len(listener.told) < 10
    reader = SeriesReader(tmp_path / "series.sqlite")
    assert len(reader.active()) == 10_000
    reader.close()


def test_a_clock_that_jumps_changes_no_interval(tmp_path: Path) -> None:
    class Jumping(FakeClock):
        def wall(self) -> float:
            return super().wall() - (86400 * 365 if self.passed > 25 else 0)

    settings = MonitorSettings.of(alarms="x < 5 for 15 s", sampling_interval=10)
    store = SeriesStore(tmp_path / "series.sqlite")
    listener = Listener()
    clock = Jumping()
    monitor = Scripted([9, 4, 4, 4, 9], settings, store, [listener], clock)
    monitor.loop()
    assert clock.passed == 40
    assert listener.titles == ["ALARM: thing: x < 5", "OK: thing: x < 5"]
    reader = SeriesReader(tmp_path / "series.sqlite")
    # Nothing was removed, though the first samples are of the far future now.
    assert len(reader.read(reader.series()[0].id, 0, 4e9).times) == 5
    reader.close()


def test_the_clock_is_real_by_default() -> None:
    clock = Clock()
    assert abs(clock.wall() - time.time()) < 1
    assert abs(clock.now() - time.monotonic()) < 1
