"""Stages as processes on this machine: spawned, supervised, drained at the end."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from msgspec.structs import replace

from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.files.disk import failed_to_close
from pvapy_stream.hpc.consumer import empty_ledger
from pvapy_stream.hpc.reports import total_report
from pvapy_stream.hpc.runner import STOP_GRACE
from pvapy_stream.hpc.service import STARTING, StageReport, StageService
from pvapy_stream.launch.child import Child, SupervisedChild, words_of
from pvapy_stream.launch.entry import HURRY, REMARK, STOP, Orders, enter
from pvapy_stream.launch.supervisor import RestartPolicy, Restarts, Supervisor
from pvapy_stream.logs import configure_logging
from pvapy_stream.mirror.dealer import Dealing
from pvapy_stream.settings import ConsumerSettings, StageSettings
from pvapy_stream.signals import (
    Stop,
    hurry_of,
    leave_by_force,
    leave_by_force_at_exit,
    run_until_signal,
)
from pvapy_stream.status.snapshot import Snapshot

_TICK = 0.05  # s; how soon a stop is noticed
# Beyond the time to drain and the time a stage gives itself, before it is ended by force.
_END_GRACE = STOP_GRACE + 5.0  # s
_HURRY_GRACE = 6.0  # s; the same when the end was asked for twice
_START_GRACE = 5.0  # s; for a stage that is asked to stop before it has started
_LAST_GRACE = 5.0  # s; from the final report to the end of the process

Ledgers = list[dict[str, object]]
Show = Callable[[Mapping[int, StageReport], Ledgers], str]

_log = logging.getLogger(__name__)


def run_stages(settings: StageSettings, stop: threading.Event, show: Show) -> str:
    """Run the stages of the settings: one in this process, several in processes of their own.

    Args:
        settings: what to run.
        stop: ends them in order when it is set.
        show: gets the newest reports by id, and the accounts of all processes there have been;
            returns a message for the stages' status, or "". An error of it is logged once, and
            the stages go on.

    Returns:
        why the run is no success, or "".

    Raises:
        ProcessorError: the processor of the one stage cannot be loaded or made.
    """
    if isinstance(settings, ConsumerSettings) and len(settings.ids) > 1:
        return Consumers(settings, stop, show).run()
    shown = Shown(show)
    number = min(settings.ids)
    begun = _end_if_stopped_at_start(stop)

    def report(news: StageReport) -> None:
        if news.snapshot.state != STARTING:
            begun.set()
        service.remark = shown({number: news}, news.ledgers)

    try:
        service = StageService(settings, number, report, stop)
        problem = service.run().problem
    finally:
        begun.set()
    if service.hangs:
        leave_by_force_at_exit()
    return "; ".join(filter(None, (problem, shown.problem)))


def _end_if_stopped_at_start(stop: threading.Event) -> threading.Event:
    """End this process by force when a stage whose start hangs is asked to stop.

    Returns:
        to be set when the stage has started, or has failed to.
    """
    begun = threading.Event()

    def watch() -> None:
        stop.wait()
        if not begun.wait(_START_GRACE):
            _log.error(
                "the processor had not started when it was asked to stop, and does not return"
                " within %g s; ending by force",
                _START_GRACE,
            )
            leave_by_force()

    threading.Thread(target=watch, name="start-watch", daemon=True).start()
    return begun


class Shown:
    """Calls `show`, and returns its remark. An error is kept and logged once, and ends no stage.

    Attributes:
        problem: the last error, or "".
    """

    def __init__(self, show: Show) -> None:
        self._show = show
        self._count = 0
        self.problem = ""

    def __call__(self, reports: Mapping[int, StageReport], ledgers: Ledgers) -> str:
        try:
            return self._show(reports, ledgers)
        except Exception as error:
            self._count += 1
            text = str(error) if isinstance(error, PvapyStreamError) else repr(error)
            self.problem = f"reports could not be shown or kept {self._count} times: {text}"
            if self._count == 1:
                trace = None if isinstance(error, PvapyStreamError) else error
                _log.error("%s; the stages continue", text, exc_info=trace)
            return self.problem


class _ConsumerProcess(Child):
    """A consumer's process."""

    def __init__(self, settings: ConsumerSettings, consumer_id: int) -> None:
        self.report: StageReport | None = None
        self._remark = ""
        self._final_at: float | None = None
        super().__init__(f"consumer-{consumer_id}", _run_consumer, settings, consumer_id)

    def take(self, message: Any) -> None:
        (self.report,) = message
        if message[0].final and self._final_at is None:
            self._final_at = time.monotonic()

    def remark(self, text: str) -> None:
        """Say what its status is to show, once."""
        if text != self._remark:
            self._remark = text
            self.send_word(f"{REMARK}{text}")

    def poll(self) -> int | None:
        if self._final_at is not None and time.monotonic() - self._final_at > _LAST_GRACE:
            # The final report has arrived, but a library keeps the process from ending.
            self.kill()
        return super().poll()


class _Consumer(SupervisedChild[_ConsumerProcess]):
    """One consumer id, over all its processes."""

    def __init__(
        self,
        consumer_id: int,
        start: Callable[[int], _ConsumerProcess],
        restarts: Restarts,
        blank: Ledgers,
    ):
        super().__init__(
            f"consumer {consumer_id}", start, restarts, lambda line: _log.error("%s", line)
        )
        self.consumer_id = consumer_id
        self.past_ledgers: Ledgers = []
        self._blank = blank
        self._past: StageReport | None = None

    def judge(self, process: _ConsumerProcess, code: int) -> str | None:
        return process.report.problem if process.report and process.report.final else None

    def bury(self, process: _ConsumerProcess, died: bool) -> None:
        report = process.report
        if report is not None:
            self.past_ledgers += [
                # Nobody wrote to the end of it.
                {**one, "closed": False} if died and "closed" in one else one
                for one in report.ledgers
            ]
            self._past = total = total_report(self._past, report)
            if died:
                self._past = replace(total, snapshot=replace(total.snapshot, state="failed"))

    @property
    def report(self) -> StageReport | None:
        """The newest report, with the counts of all processes."""
        now = self.process.report if self.process is not None else None
        return self._past if now is None else total_report(self._past, now)

    @property
    def ledgers(self) -> Ledgers:
        """The accounts of all processes; a blank one of the first, until it reports."""
        now = self.process.report if self.process is not None else None
        if now is None:
            return self.past_ledgers or self._blank
        return self.past_ledgers + now.ledgers

    def kill(self) -> None:
        """Kill a process that does not end, and say what is known of what it had."""
        if self.process is None or self.ended:
            return
        report = self.process.report
        queued = report.snapshot.queue_stats.n_queued if report else 0
        what = f"{queued} objects waited in its queue" if report else "it had reported nothing"
        _log.error("%s does not end and is killed; at its last report, %s", self.name, what)
        super().kill()


class Consumers(Supervisor[_Consumer]):
    """Runs each consumer of the settings in a process of its own.

    A process that dies is started again, up to the limit; its last reported account is kept. No
    process is left when `run` ends, however it ends. If the source's server cannot share its stream
    out, a dealer does.
    """

    def __init__(self, settings: ConsumerSettings, stop: threading.Event, show: Show) -> None:
        self._dealing = Dealing(settings)
        self._settings = settings.replace(dealer=self._dealing.channel)
        self._stop = stop
        self._shown = Shown(show)
        policy = RestartPolicy(settings.max_restarts)
        super().__init__(
            [
                _Consumer(
                    number,
                    partial(self._make_process, number),
                    Restarts(policy),
                    self._blank_ledgers(number),
                )
                for number in settings.ids
            ]
        )
        self._started_at = time.monotonic()
        self._told = ""

    def run(self) -> str:
        """Run until all consumers have ended; returns why it is no success, or ""."""
        # What a consumer receives is in no account if all are killed before there is one.
        self._show()
        try:
            if not self._settings.by_turns:
                policy = self._settings.distributor_policy
                self._dealing.start(f"--distributor-policy {policy}", logging.INFO)
            for one in self.members:
                if self._stop.is_set():
                    one.stop()
                else:
                    one.start()
            while not self.ended:
                self._ask_to_stop()
                if self.poll(_TICK) | self._deal():
                    self._show()
        finally:
            self.kill()
            self._dealing.close()
            if self.deaths or self._dealing.active:
                self._show()
        problems = [*self.problems, self._dealing.problem, self._shown.problem]
        return "; ".join(filter(None, problems))

    def _deal(self) -> bool:
        """Start a dealer when a consumer gets no share, look after it; whether there is news."""
        dealing = self._dealing
        for one in self.members:
            if one.report is not None and one.report.unshared:
                dealing.start(one.report.unshared)
        if dealing.gave_up:
            self._stop.set()
        return dealing.poll(sum(not one.ended for one in self.members))

    def _blank_ledgers(self, consumer_id: int) -> Ledgers:
        if not self._settings.ledger:
            return []
        ledger = empty_ledger(self._settings, consumer_id)
        ledger.begin(self._settings.incarnation)
        return [{**ledger.to_dict(), "closed": False}]

    def _make_process(self, consumer_id: int, incarnation: int) -> _ConsumerProcess:
        settings = self._settings.again(incarnation).replace(dealt=self._dealing.active)
        if settings.runtime > 0:
            # A process that is started again ends with the others.
            left = settings.runtime - (time.monotonic() - self._started_at)
            settings = settings.replace(runtime=max(0.1, left))
        return _ConsumerProcess(settings, consumer_id)

    def _ask_to_stop(self) -> None:
        word = HURRY if hurry_of(self._stop).is_set() else STOP if self._stop.is_set() else ""
        if word and not self._dealing.end(word):
            return
        if word != self._told:
            self._told = word
            drain = self._settings.drain_timeout + _END_GRACE
            self.stop(word, _HURRY_GRACE if word == HURRY else drain)

    def _show(self) -> None:
        reports = {one.consumer_id: one.report for one in self.members}
        remark = self._shown(
            {number: report for number, report in reports.items() if report is not None},
            [ledger for one in self.members for ledger in one.ledgers] + self._dealing.ledgers,
        )
        for one in self.members:
            if one.process is not None:
                one.process.remark(remark)


def _run_consumer(pipe: Connection, settings: StageSettings, consumer_id: int) -> None:
    """Body of a consumer's process."""
    enter()
    configure_logging(settings)
    orders = Orders(settings.drain_timeout + _END_GRACE)
    orders.follow(words_of(pipe))
    # Ctrl-C reaches the whole process group; the parent alone decides.
    hangs = run_until_signal(
        lambda stop: _serve(settings, consumer_id, pipe, stop, orders),
        [signal.SIGTERM],
        [signal.SIGINT],
    )
    if hangs:
        leave_by_force()
    if failed_to_close():
        leave_by_force(0)


def _serve(
    settings: StageSettings, consumer_id: int, pipe: Connection, stop: Stop, orders: Orders
) -> bool:
    """Run the stage; whether something in it hangs."""
    begun = _end_if_stopped_at_start(stop)
    lock = threading.Lock()

    def report(news: StageReport) -> None:
        if news.snapshot.state != STARTING:
            begun.set()
        with lock:
            try:
                pipe.send((news,))
            except OSError:
                # The parent is gone: nobody reads this, and `Orders` is stopping us.
                stop.set()

    def report_and_hear(news: StageReport) -> None:
        report(news)
        service.remark = orders.remark

    try:
        service = StageService(settings, consumer_id, report_and_hear, stop)
    except PvapyStreamError as error:
        problem = f"consumer {consumer_id}: {error}"
        failed = Snapshot("consumer", consumer_id, state="failed")
        report(StageReport(failed, [], problem, True))
        return False
    service.run()
    return service.hangs
