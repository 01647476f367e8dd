"""Stages as processes on this machine: spawned, supervised, drained at the end."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.hpc.service import StageReport, StageService
from pvapy_stream.logs import configure_logging
from pvapy_stream.settings import ConsumerSettings, StageSettings
from pvapy_stream.signals import run_until_signal

_TICK = 0.05  # s; how soon a stop is noticed
_END_GRACE = 5.0  # s; beyond the time to drain, before a process is ended by force

Ledgers = list[dict[str, Any]]
Show = Callable[[Mapping[int, StageReport], Ledgers], None]

_log = logging.getLogger(__name__)


def run_stages(settings: StageSettings, stop: threading.Event, show: Show) -> str:
    """Run the stages of the settings: one in this process, several in processes of their own.

    Args:
        settings: what to run.
        stop: ends them in order when it is set.
        show: gets the newest reports by id, and the accounts of all processes there have been.

    Returns:
        why the run is no success, or "".

    Raises:
        ProcessorError: the processor of the one stage cannot be loaded or made.
    """
    if isinstance(settings, ConsumerSettings) and len(settings.ids) > 1:
        return Supervisor(settings, stop, show).run()
    number = min(settings.ids)
    service = StageService(
        settings, number, lambda report: show({number: report}, report.ledgers), stop
    )
    return service.run().problem


@dataclass(slots=True)
class _Worker:
    """One consumer id: its process now, and what earlier processes of it left."""

    consumer_id: int
    process: Any = None
    pipe: Connection | None = None
    report: StageReport | None = None
    restarts: int = 0
    ended: bool = False
    problem: str = ""
    past_ledgers: list[dict[str, Any]] = field(default_factory=list)


class Supervisor:
    """Runs each consumer of the settings in a process of its own.

    A process that dies is started again, up to the limit; its last reported account is kept.
    """

    def __init__(self, settings: ConsumerSettings, stop: threading.Event, show: Show) -> None:
        self._settings = settings
        self._stop = stop
        self._show = show
        # EPICS has threads as soon as it is used: a forked child would inherit their locks.
        self._context = multiprocessing.get_context("spawn")
        self._workers = [_Worker(consumer_id) for consumer_id in settings.ids]
        self._started_at = time.monotonic()

    def run(self) -> str:
        """Run until all consumers have ended; returns why it is no success, or ""."""
        for worker in self._workers:
            self._start(worker)
        asked_at: float | None = None
        while any(not worker.ended for worker in self._workers):
            if self._stop.is_set() and asked_at is None:
                asked_at = time.monotonic()
                self._ask_to_stop()
            if (
                asked_at is not None
                and time.monotonic() - asked_at > self._settings.drain_timeout + _END_GRACE
            ):
                self._end_by_force()
            self._listen()
        return "; ".join(worker.problem for worker in self._workers if worker.problem)

    def _ledgers(self) -> Ledgers:
        """Accounts of all processes, also of those that died."""
        current = [ledger for w in self._workers if w.report for ledger in w.report.ledgers]
        return [ledger for worker in self._workers for ledger in worker.past_ledgers] + current

    def _start(self, worker: _Worker) -> None:
        settings = self._settings
        if settings.runtime > 0:
            # A process that is started again ends with the others.
            settings = settings.replace(
                runtime=max(0.1, settings.runtime - (time.monotonic() - self._started_at))
            )
        ours, theirs = self._context.Pipe()
        worker.pipe = ours
        worker.process = self._context.Process(
            target=_run_child,
            args=(settings, worker.consumer_id, theirs),
            name=f"consumer-{worker.consumer_id}",
        )
        worker.process.start()
        # Only the child may hold its end, or its death would not close the pipe.
        theirs.close()

    def _listen(self) -> None:
        running = [worker for worker in self._workers if not worker.ended]
        by_source: dict[Any, _Worker] = {}
        for worker in running:
            by_source[worker.pipe] = worker
            by_source[worker.process.sentinel] = worker
        heard = {
            by_source[source].consumer_id: by_source[source]
            for source in wait(list(by_source), _TICK)
        }
        news = False
        for worker in heard.values():
            news |= self._receive(worker)
            if not worker.process.is_alive():
                self._receive(worker)
                self._bury(worker)
                news = True
        if news:
            reports = {
                worker.consumer_id: worker.report
                for worker in self._workers
                if worker.report is not None
            }
            self._show(reports, self._ledgers())

    def _receive(self, worker: _Worker) -> bool:
        news = False
        try:
            while worker.pipe is not None and worker.pipe.poll():
                worker.report = worker.pipe.recv()
                news = True
        except (EOFError, OSError):
            pass
        return news

    def _bury(self, worker: _Worker) -> None:
        """A process has ended: as it should, or by dying."""
        worker.process.join()
        if worker.pipe is not None:
            worker.pipe.close()
            worker.pipe = None
        if worker.report is not None and worker.report.final:
            worker.ended = True
            if worker.report.problem:
                worker.problem = "; ".join(filter(None, [worker.problem, worker.report.problem]))
            return
        how = _exit_words(worker.process.exitcode)
        if worker.report is not None:
            worker.past_ledgers += worker.report.ledgers
            worker.report = None
        if self._stop.is_set() or worker.restarts >= self._settings.max_restarts:
            worker.ended = True
            worker.problem = (
                f"consumer {worker.consumer_id} died ({how}) after {worker.restarts} restarts"
            )
            _log.error("%s", worker.problem)
            return
        worker.restarts += 1
        worker.problem = (
            f"consumer {worker.consumer_id} died {worker.restarts} times, the last time by {how},"
            " and was started again"
        )
        _log.error(
            "consumer %d died (%s); restart %d of at most %d",
            worker.consumer_id,
            how,
            worker.restarts,
            self._settings.max_restarts,
        )
        self._start(worker)

    def _ask_to_stop(self) -> None:
        for worker in self._workers:
            if worker.pipe is not None and not worker.ended:
                try:
                    worker.pipe.send("stop")
                except OSError:
                    pass

    def _end_by_force(self) -> None:
        for worker in self._workers:
            if not worker.ended and worker.process.is_alive():
                _log.error("consumer %d does not end; it is killed", worker.consumer_id)
                worker.process.kill()


def _exit_words(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _run_child(settings: StageSettings, consumer_id: int, pipe: Connection) -> None:
    """Body of a consumer's process."""
    configure_logging(settings)
    # Ctrl-C reaches the whole process group; the parent alone decides.
    run_until_signal(
        lambda stop: _serve(settings, consumer_id, pipe, stop), [signal.SIGTERM], [signal.SIGINT]
    )


def _serve(
    settings: StageSettings, consumer_id: int, pipe: Connection, stop: threading.Event
) -> None:
    threading.Thread(target=_obey, args=(pipe, stop), name="parent", daemon=True).start()
    lock = threading.Lock()

    def report(news: StageReport) -> None:
        with lock:
            try:
                pipe.send(news)
            except OSError:
                # The parent is gone: nobody reads this, and `_obey` is stopping us.
                stop.set()

    try:
        StageService(settings, consumer_id, report, stop).run()
    except PvapyStreamError as error:
        problem = f"consumer {consumer_id}: {error}"
        report(StageReport("consumer", consumer_id, "failed", {}, [], problem, True))


def _obey(pipe: Connection, stop: threading.Event) -> None:
    """Stop when the parent says so, and when it is gone."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        _log.error("the parent process is gone; stopping")
    stop.set()
