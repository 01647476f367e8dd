"""The buffer: keeps the newest messages of a stream, pushes them, and serves ranges of them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import zmq

from pvapy_stream import systemd
from pvapy_stream.accounting.keeper import LedgerKeeper
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.bsread.analyzer import StreamAnalyzer
from pvapy_stream.bsread.codec import MessageLimits
from pvapy_stream.bsread.sockets import BsreadInput
from pvapy_stream.bsread.stored import Stored
from pvapy_stream.daq.buffer_status import BufferStatus
from pvapy_stream.daq.intake import Intake
from pvapy_stream.daq.pulse_ledgers import channel_of
from pvapy_stream.daq.range_server import RangeServer
from pvapy_stream.daq.ring import Ring, RingLimits
from pvapy_stream.daq.spill import Spill
from pvapy_stream.daq.stream_output import PushOutput
from pvapy_stream.errors import LedgerError, TransportError
from pvapy_stream.settings import BufferSettings
from pvapy_stream.transport.registry import image_stream

KIND = "buffer"

_TICK = 100  # ms; how soon a range that waits for nothing more ends
_RATE_PERIOD = 1.0  # s
_SILENT_AFTER = 2.0  # s
_INPUT_TURN = 0.02  # s of taking messages before other tasks have their turn
_INPUT_HWM = 100
_MB, _GB = 2**20, 2**30

_log = logging.getLogger(__name__)


T = TypeVar("T")


def on_port(serve: Callable[[int], T], port: int, asked_for: bool) -> T:
    """Serve on a port, or on a free one if a default port is in use.

    Raises:
        TransportError: the port, or the interface, cannot be bound.
    """
    try:
        return serve(port)
    except TransportError as error:
        if asked_for:
            raise
        _log.warning("%s; it is one of the three ports of the buffer; another one is used", error)
        return serve(0)


class StreamBuffer:
    """Receives messages from one source and sends them to readers until it is stopped.

    Everything happens in the thread that calls `run`; `status` may be called from any.

    Args:
        settings: what was asked for.
        clock: s; does not go back.

    Raises:
        TransportError: a port cannot be bound.
        SettingsError: the folder to spill to cannot be written.
    """

    def __init__(
        self, settings: BufferSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._limits = RingLimits(settings.messages, round(settings.memory * _MB), settings.seconds)
        self.analyzer = StreamAnalyzer(settings.late_pulses) if settings.analyzer else None
        value = round(settings.max_value * _MB)
        limits = MessageLimits(value=value)
        self._rate = self._byte_rate = 0.0
        self._rate_since = clock()
        self._counted = self._counted_bytes = 0
        with contextlib.ExitStack() as undo:
            self._spill = None
            if settings.spill_folder:
                self._spill = Spill(Path(settings.spill_folder), round(settings.spill_size * _GB))
            self.ring = Ring[Stored](self._limits, self._spill, settings.late_pulses)
            undo.callback(self.ring.close)
            ledger = Ledger(stage=KIND, stage_id=1, input_channel=channel_of(settings.stream))
            self.intake = Intake(
                self.ring, limits, ledger, self.analyzer, settings.skip_initial_updates
            )
            self.output = self._push_output()
            undo.callback(self.output.close)
            self.server = self._range_server()
            undo.callback(self.server.close)
            ledger.output_channel = self.server.address
            self._frames = self._frame_source()
            if self._frames is not None:
                undo.callback(self._frames.stop)
            address = settings.stream if self._frames is None else self._frames.address
            self._input = BsreadInput(address, settings.mode, _INPUT_HWM, limits)
            undo.callback(self._input.close)
            self._keeper = LedgerKeeper(settings.ledger, lambda: self.intake.account.ledgers)
            self._undo = undo.pop_all()

    def _push_output(self) -> PushOutput:
        ports, interface = self.settings.ports, self.settings.interface
        try:
            return PushOutput(self.ring, f"tcp://{interface}:{ports.output}")
        except TransportError as error:
            raise TransportError(
                f"{error}; the buffer binds three ports: {ports.output} (output), {ports.ranges}"
                f" (ranges) and {ports.rest} (status); choose them with --output-port, --range-port"
                " and --rest-port"
            ) from error

    def _range_server(self) -> RangeServer:
        settings = self.settings
        base, window = f"tcp://{settings.interface}", round(settings.reader_memory * _MB)

        def serve(port: int) -> RangeServer:
            return RangeServer(self.ring, f"{base}:{port}", settings.max_readers, window)

        return on_port(serve, settings.ports.ranges, settings.range_port is not None)

    def _frame_source(self) -> Any:
        if image_stream(self.settings.stream) is None:
            return None
        # Imported late: bsread streams need no EPICS.
        from pvapy_stream.daq.frame_source import FrameSender

        settings = self.settings
        return FrameSender(settings.stream, settings.id_field, settings.server_queue_size)

    def close(self) -> None:
        """Release all resources."""
        self._undo.close()

    def run(self, stop: threading.Event) -> None:
        """Buffer until `stop` is set or the runtime is over.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        runtime = self.settings.runtime
        end = self._clock() + runtime if runtime else float("inf")
        poller = zmq.Poller()
        poller.register(self._input.socket, zmq.POLLIN)
        poller.register(self.server.socket, zmq.POLLIN)
        if self._frames is not None:
            self._frames.start()
        self._keeper.keep()
        busy = False
        while not stop.is_set() and self._clock() < end:
            # The output socket is polled only while there are messages to push.
            if self.output.waits:
                poller.register(self.output.socket, 0)
            else:
                poller.register(self.output.socket, zmq.POLLOUT)
            poller.poll(0 if busy else _TICK)
            busy = self._turn()
            if self._clock() - self._rate_since >= _RATE_PERIOD:
                self._count_rates()
                self._keeper.keep()
        self.intake.settle()
        if problem := self._keeper.close():
            raise LedgerError(problem)

    def _turn(self) -> bool:
        """Do pending work; returns whether there is more."""
        now = began = self._clock()
        more = True
        while now - began < _INPUT_TURN:
            parts = self._input.receive()
            if parts is None:
                more = False
                break
            now = self._clock()
            self.intake.take(parts, now)
        self.server.take_requests(now)
        served = self.server.serve(now, self._silent(now))
        pushed = self.output.push()
        return more or served or pushed

    def _silent(self, now: float) -> float | None:
        heard = self.intake.heard
        return None if heard is None else max(0.0, now - heard)

    def _count_rates(self) -> None:
        now = self._clock()
        seconds = now - self._rate_since
        intake = self.intake
        self._rate = (intake.received - self._counted) / seconds
        self._byte_rate = (intake.nbytes - self._counted_bytes) / seconds
        self._counted, self._counted_bytes, self._rate_since = intake.received, intake.nbytes, now
        systemd.notify(
            f"WATCHDOG=1\nSTATUS={len(self.ring)} messages kept, {self._rate:.1f} received per"
            " second"
        )

    def status(self) -> BufferStatus:
        """Status of the buffer."""
        ring, intake, server, output = self.ring, self.intake, self.server, self.output
        silent = self._silent(self._clock())
        lately = silent is not None and silent < _SILENT_AFTER
        frames, spill = self._frames, self._spill
        oldest, newest = ring.edges()
        return BufferStatus(
            status="waiting" if silent is None else "receiving" if lately else "silent",
            source=self.settings.stream,
            output=output.address,
            ranges=server.address,
            received=intake.received,
            received_rate=self._rate,
            byte_rate=self._byte_rate,
            malformed=intake.malformed,
            commands=intake.commands,
            source_lost=frames.all_lost if frames is not None else 0,
            channels=intake.channels,
            messages=len(ring),
            in_memory=ring.in_memory,
            memory=ring.memory,
            on_disk=spill.nbytes if spill is not None else 0,
            fill=ring.fill,
            seconds=ring.seconds,
            oldest=oldest,
            newest=newest,
            dropped=ring.dropped,
            output_sent=output.sent,
            output_lost=output.lost,
            output_pending=output.pending,
            readers=server.readers,
            reader_sent=server.sent,
            reader_errors=server.errors,
            silent=silent,
            last_error=self._last_error(),
        )

    def _last_error(self) -> str:
        spill = self._spill
        if self._keeper.problem:
            return self._keeper.problem
        if spill is not None and spill.error:
            return spill.error
        return (
            self._frames.last_error if self._frames is not None else ""
        ) or self.intake.last_error
