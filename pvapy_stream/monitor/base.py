"""The loop of every monitor: sample, store, evaluate rules, notify."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pvapy_stream.errors import MonitorError, PvapyStreamError
from pvapy_stream.monitor.alarms import AlarmEvent, Alarms
from pvapy_stream.monitor.notifiers import Notifier, PrintNotifier
from pvapy_stream.monitor.outbox import Outbox
from pvapy_stream.monitor.series_store import Sample, SeriesStore
from pvapy_stream.settings import MonitorSettings

_LOG_EVERY = 1000
_PATIENCE = 0.5  # s; how long a message may keep the monitor

# What a monitor may be given, with defaults, and how Scipion calls it.
_DEFAULTS: dict[str, Any] = {"working_dir": ".", "sampling_interval": 60.0, "monitor_time": 0.0}
_ALIASES = {
    "workingDir": "working_dir",
    "samplingInterval": "sampling_interval",
    "monitorTime": "monitor_time",
}

_log = logging.getLogger(__name__)


class Clock:
    """Time source of a monitor; tests can replace it."""

    def now(self) -> float:
        """A monotonic clock, s: for intervals."""
        return time.monotonic()

    def wall(self) -> float:
        """System time, s since 1970: for stored and displayed values."""
        return time.time()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait until the time is over or `stop` is set; returns whether it is set."""
        return stop.wait(max(0.0, seconds))


class Monitor:
    """Calls `step` every interval, and sends messages to its notifiers.

    Derive from it and override `step`. `workingDir`, `samplingInterval`, `monitorTime`, `initLoop`
    and `addNotifier` are other names for the same methods and attributes.

    Args:
        email: a notifier.
        stdout: when true, messages are printed too.
        notifiers: more notifiers.
        clock: the time source.
        options: `working_dir`, created by `loop` (default: current folder); `sampling_interval`, s
            between two steps (60); `monitor_time`, min until the end (0: no limit).

    Raises:
        MonitorError: an unknown option, or a value of the wrong type.
    """

    def __init__(
        self,
        *,
        email: Notifier | None = None,
        stdout: Any = None,
        notifiers: Iterable[Notifier] = (),
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        values = _options(options)
        self.working_dir = Path(values["working_dir"])
        self.sampling_interval: float = values["sampling_interval"]
        self.monitor_time: float = values["monitor_time"]
        self.clock = clock or Clock()
        self.stop = threading.Event()
        self.n_steps = 0
        self.n_failures = 0
        self.last_failure = ""
        self._problems: dict[str, int] = {}
        self._outboxes: list[Outbox] = []
        for notifier in (email, PrintNotifier() if stdout else None, *notifiers):
            if notifier is not None:
                self.add_notifier(notifier)

    # -- what a monitor is made of ---------------------------------------------------------------

    def init_loop(self) -> None:
        """Called once, before the first step."""

    def step(self) -> Any:
        """Take one sample; a true value ends the loop. An exception is logged and counted."""
        raise NotImplementedError(f"{type(self).__name__} has no step()")

    def end_loop(self) -> None:
        """Called once, after the last step."""

    # -- life ------------------------------------------------------------------------------------

    def loop(self) -> None:
        """Call `step` until the time is over, `step` returns true, or `stop` is set.

        Raises:
            MonitorError: the working folder cannot be created.
        """
        try:
            self.working_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MonitorError(
                f"cannot make the folder {self.working_dir}: {error.strerror}; give another with"
                " --working-dir"
            ) from error
        clock = self.clock
        self.initLoop()
        try:
            end = clock.now() + 60 * self.monitor_time if self.monitor_time > 0 else math.inf
            due = clock.now()
            while not self._step_safely() and clock.now() < end:
                # Steps that took too long are left out, not made up for.
                due = max(due + self.sampling_interval, clock.now())
                if clock.wait(self.stop, min(due, end) - clock.now()):
                    break
        finally:
            self.end_loop()
            self.close()

    def _step_safely(self) -> Any:
        self.n_steps += 1
        try:
            return self.step()
        except NotImplementedError:
            raise
        except PvapyStreamError as error:
            self.note_problem(str(error))
        except Exception as error:
            self.note_problem(f"{type(error).__name__}: {error}", error)
        return False

    def note_problem(self, problem: str, error: Exception | None = None) -> None:
        """Count and log a problem; a repeated one is logged only every thousandth time."""
        self.n_failures += 1
        if len(self._problems) > _LOG_EVERY:
            self._problems.clear()
        seen = self._problems[problem] = self._problems.get(problem, 0) + 1
        self.last_failure = problem
        if seen == 1 or seen % _LOG_EVERY == 0:
            _log.error(
                "%s: %s (%d times so far); the monitor continues",
                type(self).__name__,
                problem,
                seen,
                exc_info=error if seen == 1 else None,
            )

    def close(self) -> None:
        """Send waiting messages, within a time limit."""
        for outbox in self._outboxes:
            outbox.close()

    # -- telling ---------------------------------------------------------------------------------

    def add_notifier(self, notifier: Notifier) -> None:
        """Add a notifier: an object with `notify(title, message)`."""
        self._outboxes.append(
            notifier if isinstance(notifier, Outbox) else Outbox(notifier, patience=_PATIENCE)
        )

    def notify(self, title: str, message: str) -> None:
        """Send a message to all notifiers; one that fails or hangs does not affect the others."""
        for outbox in self._outboxes:
            outbox.notify(title, message)

    def info(self, message: str) -> None:
        """Send information that is not an alarm to all notifiers."""
        self.notify("INFO", message)

    # -- Scipion's names -------------------------------------------------------------------------

    def initLoop(self) -> None:
        self.init_loop()

    def addNotifier(self, notifier: Notifier) -> None:
        self.add_notifier(notifier)

    @property
    def workingDir(self) -> str:
        return str(self.working_dir)

    @property
    def samplingInterval(self) -> float:
        return self.sampling_interval

    @property
    def monitorTime(self) -> float:
        return self.monitor_time


def _options(given: dict[str, object]) -> dict[str, Any]:
    values = dict(_DEFAULTS)
    for name, value in given.items():
        ours = _ALIASES.get(name, name)
        if ours not in values:
            raise MonitorError(f"a monitor has no option {name!r}; it has {', '.join(values)}")
        values[ours] = value
    for name in ("sampling_interval", "monitor_time"):
        value = values[name] or 0.0
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise MonitorError(f"{name} must be a number from 0 on, not {value!r}")
        values[name] = float(value)
    return values


class SamplingMonitor(Monitor):
    """A monitor that takes samples, stores them, and evaluates rules.

    Derive from it and override `sample`.

    Args:
        settings: settings of the monitor.
        store: store of samples and alarms; None: they are not stored.
        notifiers: targets of alarms.
        clock: where time comes from.
    """

    kind = "monitor"

    def __init__(
        self,
        settings: MonitorSettings,
        store: SeriesStore | None = None,
        notifiers: Iterable[Notifier] = (),
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            notifiers=notifiers,
            clock=clock,
            working_dir=settings.working_dir,
            sampling_interval=settings.sampling_interval,
            monitor_time=settings.monitor_time,
        )
        self.name = settings.name or self.kind
        self.alarms = Alarms(settings.alarms)
        self.store = store

    def sample(self) -> Iterable[Sample]:
        """Take one sample."""
        raise NotImplementedError(f"{type(self).__name__} has no sample()")

    def finished(self) -> bool:
        """Whether nothing is left to monitor."""
        return False

    def init_loop(self) -> None:
        self._note_state("RUNNING")

    def step(self) -> bool:
        samples = list(self.sample())
        events = self.judge(samples)
        if self.store is not None:
            self.store.add(self.name, samples, events, self.clock.wall())
            self._note_state("RUNNING")
        for event in events:
            self.notify(event.title, event.message)
        return self.finished()

    def judge(self, samples: Iterable[Sample]) -> list[AlarmEvent]:
        """Evaluate the rules for samples; returns the messages to send."""
        now = self.clock.now()
        return [
            event
            for s in samples
            for event in self.alarms.update(s.quantity, s.subject, s.value, now, s.unit)
        ]

    def end_loop(self) -> None:
        self._note_state("FINISHED")
        if self.store is not None:
            self.store.close()

    def _note_state(self, state: str) -> None:
        if self.store is not None:
            self.store.note_monitor(self.name, self.kind, state, self.clock.wall())
