"""Runs a stage: its server, its control and status channels, its time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pvaccess as pva
from msgspec import Struct
from msgspec.structs import replace

from pvapy_stream.errors import PvapyStreamError, TransportError
from pvapy_stream.hpc.consumer import Consumer
from pvapy_stream.hpc.control_channel import Command, ControlChannel
from pvapy_stream.hpc.deadline import Deadline
from pvapy_stream.hpc.runner import PROCESS_GRACE, STOP_GRACE, StageRunner
from pvapy_stream.logs import TOLD
from pvapy_stream.pva.clients import listening_ports
from pvapy_stream.pva.search import NameCheck, TwinWatch
from pvapy_stream.pva.serving import PutRights, make_server
from pvapy_stream.settings import ConsumerSettings, StageSettings
from pvapy_stream.signals import hurry_of
from pvapy_stream.status.channel import StatusChannel
from pvapy_stream.status.snapshot import Snapshot
from pvapy_stream.transport.filtered_ids import SUFFIX
from pvapy_stream.transport.own_server import host

_HURRY_GRACE = 3.0  # s; beyond it, for all that closes, when the end was asked for twice
_KEEP_UP_PERIOD = 0.25  # s
_TICK = 0.1  # s; longest time until a change of state is reported
_LAST_STATUS = 0.5  # s; how long the final status and reply stay before the server goes

Report = Callable[["StageReport"], None]

# The state of a stage whose processor has not started.
STARTING = "starting"

_log = logging.getLogger(__name__)


class StageReport(Struct, frozen=True):
    """How a stage does: sent about every status period, and once at the end.

    Attributes:
        snapshot: its status; starting, waiting, running, paused, disconnected, draining, stopped
            or failed. One that could not be made has no statistics.
        ledgers: its accounts, as `Ledger.to_dict` gives them.
        problem: why the run is no success, or "".
        final: whether the stage has ended.
        unshared: why the source has no share for it, so that its objects must be dealt out, or "".
    """

    snapshot: Snapshot
    ledgers: list[dict[str, object]]
    problem: str = ""
    final: bool = False
    unshared: str = ""


def make_runner(settings: StageSettings, stage_id: int, server: pva.PvaServer) -> StageRunner:
    """The stage that settings describe.

    Raises:
        ProcessorError: its processor cannot be loaded or made.
    """
    if isinstance(settings, ConsumerSettings):
        return Consumer(settings, stage_id, server)
    # Imported late: a consumer needs neither.
    from pvapy_stream.hpc.collector import Collector
    from pvapy_stream.settings import CollectorSettings

    if isinstance(settings, CollectorSettings):
        return Collector(settings, stage_id, server)
    raise TypeError(f"no stage is made from {type(settings).__name__}")


class StageService:
    """A consumer or a collector with its channels.

    Args:
        settings: settings of the command.
        stage_id: which of the settings' stages this is.
        report: gets a `StageReport` every status period and at the end; any thread may call it.
        stop: ends `run` when it is set; a stop command sets it.

    Attributes:
        hangs: whether the user's code has not come to an end: its thread cannot be waited for.
        remark: what the status says beside what the stage says itself.

    Raises:
        ProcessorError: the processor cannot be loaded or made.
        SettingsError: the access rights cannot be used.
    """

    def __init__(
        self, settings: StageSettings, stage_id: int, report: Report, stop: threading.Event
    ) -> None:
        self._settings = settings
        self._id = stage_id
        self._report = report
        self._stop = stop
        # Set where the service knows better than the stage: starting, draining, stopped, failed.
        self._state = STARTING
        self.hangs = False
        self.remark = ""
        self._publish_lock = threading.Lock()
        kind = "consumer" if isinstance(settings, ConsumerSettings) else "collector"
        self._hosted = settings.hosted(kind, stage_id)
        # While the processor is loaded.
        self._names = NameCheck(self._hosted.values())
        if "input" in self._hosted:
            # It is hosted by the runner's receiver: we would find ourselves.
            self._names.taken()
        self._rights = PutRights(settings.control_from, settings.access_security)
        settings.receives.prepare()
        if settings.output_channel:
            settings.publishes.prepare(settings)
        before = listening_ports()
        self._server = make_server(self._rights)
        names = [self._hosted.get(role, "") for role in ("status", "control")]
        if "output" in self._hosted:
            names.append(self._hosted["output"] + SUFFIX)
        host.point_to(listening_ports() - before, names)
        try:
            self._runner = make_runner(settings, stage_id, self._server)
            self._runner.begin(settings.incarnation)
        except BaseException:
            # It serves from its beginning, also what others of its process host.
            self._server.stop()
            raise
        self._status: StatusChannel | None = None
        self._control: ControlChannel | None = None

    def run(self) -> StageReport:
        """Run until `stop` is set, a stop command comes or the runtime is over; then drain.

        Returns:
            the final report; its `problem` is "" for a success.
        """
        settings = self._settings
        try:
            self._names.refuse(settings.incarnation)
            self._host_channels()
            self._server.start()
            # What a stage receives is in no account if it is killed before there is one. The
            # processor is not asked for statistics: it has not started.
            starting = Snapshot(self._runner.kind, self._id, state=STARTING)
            self._report(StageReport(starting, self._runner.ledgers()))
            self._runner.start()
        except (PvapyStreamError, pva.PvaException) as error:
            return self._end("failed", str(error))
        self._state = ""
        deadline = time.monotonic() + settings.runtime if settings.runtime > 0 else float("inf")
        next_status = next_look = 0.0
        twins = TwinWatch(self._hosted.values(), self._report_twin)
        reported: object = None
        while not self._stop.is_set() and (now := time.monotonic()) < deadline:
            if now >= next_look:
                next_look = now + _KEEP_UP_PERIOD
                self._runner.keep_up()
                self._runner.look_for_absent()
            standing = self._runner.standing
            if now >= next_status or standing != reported:
                # Who waits for a stage to be connected does not wait for the period.
                next_status, reported = now + settings.status_period, standing
                self._publish()
            self._stop.wait(min(_TICK, settings.status_period, deadline - now))
        twins.stop()
        self._state = "draining"
        self._publish()
        problem = self._drain() or self._runner.problem()
        return self._end("failed" if problem else "stopped", problem)

    def _drain(self) -> str:
        """Stop the runner, within limits; what hangs and what is left, or ""."""
        settings, runner, hurry = self._settings, self._runner, hurry_of(self._stop)
        deadline = Deadline(settings.drain_timeout)
        # A thread of its own: user code that hangs keeps for ever what waits for it.
        thread = threading.Thread(target=runner.stop, args=(deadline,), name="stop", daemon=True)
        thread.start()
        grace = PROCESS_GRACE + STOP_GRACE
        while thread.is_alive() and deadline.late < grace:
            if hurry.is_set():
                deadline.hurry()
                grace = _HURRY_GRACE
            thread.join(_TICK)
        if thread.is_alive():
            runner.abandon(deadline)
        self.hangs = runner.stage.abandoned
        if not self.hangs:
            return ""
        what, had = "the processor", "the object it has"
        if runner.calls_stop:
            what, had = "stop() of the processor", "what it has not finished"
        return (
            f"{runner.kind} {self._id}: {what} has not returned within --drain-timeout"
            f" {settings.drain_timeout:g} s{' (cut short by a second signal)' * deadline.hurried}"
            f" and is ended by force; {had} and {runner.stage.n_left} queued objects are left"
        )

    def _report_twin(self, message: str) -> None:
        self._runner.stage.note_error("names", TransportError(message))

    def _host_channels(self) -> None:
        status, control = self._hosted.get("status", ""), self._hosted.get("control", "")
        if status:
            self._status = StatusChannel(self._server, status, self._runner.blank())
        if control:
            self._control = ControlChannel(
                self._server,
                control,
                f"{self._runner.kind}Id",
                self._id,
                self._commands(),
                frozenset({"configure"}),
                self._rights,
            )

    def _commands(self) -> dict[str, Command]:
        runner = self._runner
        return {
            "configure": runner.configure,
            "get_stats": self._get_stats,
            "reset_stats": self._then_publish(runner.reset_stats),
            "pause": self._then_publish(runner.pause),
            "resume": self._then_publish(runner.resume),
            "reload": self._reload,
            "stop": self._stop_command,
        }

    def _then_publish(self, command: Command) -> Command:
        def run(args: Any) -> str:
            reply = command(args)
            self._publish()
            return reply

        return run

    def _get_stats(self, _: object) -> str:
        self._publish(patience=5.0)
        return "Stats update successful"

    def _reload(self, _: object) -> str:
        reply = self._runner.reload()
        if self._status:
            self._status.restructure(self._runner.blank())
        self._publish()
        return reply

    def _stop_command(self, _: object) -> str:
        self._stop.set()
        return "Stop flag set"

    def _publish(
        self, final: bool = False, problem: str = "", patience: float = 0.5
    ) -> StageReport:
        """Write the status and hand a report on."""
        with self._publish_lock:
            runner = self._runner
            state = self._state or runner.phase
            snapshot = replace(
                runner.snapshot(patience),
                state=state,
                restarts=self._settings.incarnation - 1,
                control_channel=self._control.name if self._control else "",
            )
            message = problem or "; ".join(filter(None, (snapshot.message, self.remark)))
            snapshot = replace(snapshot, message=message)
            if self._status:
                try:
                    self._status.publish(snapshot)
                except Exception as error:
                    runner.stage.note_error("status channel", error)
            ledgers = runner.ledgers(final and not self.hangs, final)
            report = StageReport(snapshot, ledgers, problem, final, runner.unshared)
            self._report(report)
            return report

    def _end(self, state: str, problem: str) -> StageReport:
        self._state = state
        if problem:
            _log.error("%s", problem, extra=TOLD)
        report = self._publish(final=True, problem=problem)
        if self._control:
            self._control.reply(f"Stopped{': ' + problem if problem else ''}")
        if self._status or self._control:
            time.sleep(_LAST_STATUS)
        if not self.hangs:
            self._server.stop()
        return report
