"""``bsread-buffer`` (run): keep the newest pulses of a bsread stream, and serve ranges of them."""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING

from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.early import importing
from pvapy_stream.settings import BufferSettings
from pvapy_stream.signals import run_until_signal

if TYPE_CHECKING:
    from pvapy_stream.daq.buffer import StreamBuffer

_EPILOG = """\
examples:
  sf_bsread_buffer tcp://camera-server:9999
  sf_bsread_buffer tcp://camera-server:9999 -o 8082 --memory 4000 --seconds 60
  sf_bsread_buffer pva://13SIM1:Pva1:Image --memory 4000 --spill-folder /nvme --spill-size 200
It binds three ports: the output port, the next one for ranges, and the one after that for status
and metrics over HTTP, all on this host only; the first printed line has the three addresses. See
--range-port, --rest-port, --no-rest and --interface.
exit codes: 0 all well; 1 a port cannot be bound; 2 wrong options
"""

_log = logging.getLogger(__name__)


def run(settings: BufferSettings) -> int:
    """Buffer until the runtime is over, or until a signal comes.

    Raises:
        PvapyStreamError: a port cannot be bound, or the folder to spill to cannot be written.
    """
    # Imported late: --help and wrong options need no ZeroMQ.
    with importing():
        from pvapy_stream.daq.buffer import StreamBuffer

    buffer = StreamBuffer(settings)
    try:
        run_until_signal(lambda stop: _run(buffer, stop))
    finally:
        buffer.close()
    return 0


def _run(buffer: StreamBuffer, stop: threading.Event) -> None:
    from pvapy_stream import systemd

    settings = buffer.settings
    with ExitStack() as outputs:
        rest = "" if settings.no_rest else _serve_status(buffer, outputs)
        outputs.enter_context(_status_channel(buffer))
        sys.stdout.write(
            f"buffering {settings.stream}; output {buffer.output.address}; ranges"
            f" {buffer.server.address}{f'; status {rest}' if rest else '; no status over HTTP'}\n"
        )
        sys.stdout.flush()
        systemd.notify("READY=1")
        buffer.run(stop)
        systemd.notify("STOPPING=1")
    _say_the_end(buffer)


def _serve_status(buffer: StreamBuffer, outputs: ExitStack) -> str:
    from pvapy_stream.daq.buffer import on_port
    from pvapy_stream.daq.buffer_rest import make_app
    from pvapy_stream.daq.web import WebThread
    from pvapy_stream.web_security import host_names

    settings = buffer.settings
    names = host_names(settings.interface, settings.allow_host)
    app = make_app(buffer.status, buffer.analyzer, names)
    web = on_port(
        lambda port: WebThread(app, settings.interface, port),
        settings.ports.rest,
        settings.rest_port is not None,
    )
    web.start()
    outputs.callback(web.stop)
    return f"{web.address}/status"


def _status_channel(buffer: StreamBuffer) -> AbstractContextManager[None]:
    settings = buffer.settings
    names = settings.status_names("buffer")
    if not names:
        return nullcontext()
    # Imported late: without it, bsread streams need no EPICS.
    from pvapy_stream.status.shown import shown_on

    return shown_on(
        names,
        lambda: [buffer.status().snapshot()],
        lambda: [buffer.status().snapshot("stopped")],
        settings.incarnation,
    )


def _say_the_end(buffer: StreamBuffer) -> None:
    status = buffer.status()
    lines = [
        f"received {status.received}, malformed {status.malformed}; pushed {status.output_sent},"
        f" dropped before they were pulled {status.output_lost}; sent to readers"
        f" {status.reader_sent}"
    ]
    if buffer.analyzer is not None:
        lines += buffer.analyzer.lines()
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


COMMAND = SettingsCommand(
    "sf_bsread_buffer",
    "Keep the newest pulses of a stream, push the stream on, and serve ranges of pulses.",
    BufferSettings,
    run,
    _EPILOG,
)
main = COMMAND.main
