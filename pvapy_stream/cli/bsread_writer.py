"""``sf_bsread_writer`` and ``pvapy-stream writer``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pvapy_stream.accounting.keeper import write_ledgers
from pvapy_stream.cli.options import parse, settings_parser
from pvapy_stream.cli.runner import exit_code
from pvapy_stream.errors import LedgerError, SettingsError
from pvapy_stream.logs import configure_logging
from pvapy_stream.plugins import require
from pvapy_stream.settings import WriterSettings
from pvapy_stream.signals import run_until_signal

if TYPE_CHECKING:
    from pvapy_stream.daq.writer import Writer
    from pvapy_stream.monitor.metrics import Metric

TOKEN_VARIABLE = "PVAPY_STREAM_TOKEN"  # noqa: S105 - the variable's name

_TICK = 0.1  # s
_LEDGER_PERIOD = 0.5  # s; what a killed writer may lose of its account
_SHOWN_EVERY = 0.5  # s, on a terminal
_FAREWELL = 0.3  # s; for the reply to the request that ends the program

_EPILOG = """\
examples:
  sf_bsread_writer tcp://127.0.0.1:8082 run_1.h5 -1 8888
  curl -X POST http://127.0.0.1:8888/parameters -d '{"general/created": "today",
    "general/user": "p12345", "general/process": "scan", "general/instrument": "mine"}'
  curl -X PUT http://127.0.0.1:8888/start_pulse_id/100
  curl -X PUT http://127.0.0.1:8888/stop_pulse_id/200
  pvapy-stream writer buffer://127.0.0.1:8083 run_1.h5 -1 0 --start 100 --stop-pulse-id 200
  pvapy-stream writer pva://13SIM1:Pva1:Image scan.h5 -1 8888 --layout nexus
  pvapy-stream writer buffer://127.0.0.1:8083 /data/run -1 8888 --service --parallel 4
The file is called OUTPUT_FILE.part until it is closed; what a killed writer leaves is completed by
pvapy-stream verify --repair. The interface is listed at /docs, a live page is at /.
exit codes: 0 all written; 1 something failed, or pulses of the range are lost; 2 wrong options
"""

_log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """The command's parser."""
    return settings_parser(
        WriterSettings,
        "sf_bsread_writer",
        "Write the pulses that are asked for over REST to HDF5 files in the SwissFEL layout.",
        _EPILOG,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    settings = parse(WriterSettings, parser(), argv)
    return exit_code(lambda: run(settings))


def run(settings: WriterSettings) -> int:
    """Write until the acquisition is over, with --service until stopped.

    Raises:
        PvapyStreamError: the writer cannot be started.
    """
    require("fastapi", "web")
    # Imported late: --help and wrong options need none of it.
    from pvapy_stream import systemd
    from pvapy_stream.cli.writer_display import Display
    from pvapy_stream.daq.plan import Plan
    from pvapy_stream.daq.rest import build_app
    from pvapy_stream.daq.web import WebThread
    from pvapy_stream.daq.writer import Writer
    from pvapy_stream.monitor.metrics import served, writer_metrics

    token = read_token(settings.token_file)
    # After the imports and the token, which the other user may not be allowed to read.
    become(settings.user_id)
    configure_logging(settings)
    writer = Writer(settings)
    server = WebThread(build_app(writer, token), settings.rest_host, settings.rest_port)
    display = Display(settings.report_period)
    account, plan = _Account(writer), Plan(writer)

    def collect() -> Iterable[Metric]:
        return writer_metrics(settings.stream, (one.progress() for one in writer.acquisitions))

    def look() -> None:
        plan.look()
        account.keep()

    def end() -> None:
        writer.close()
        display.show(writer.acquisitions)
        display.close()

    with ExitStack() as ends:
        ends.enter_context(served(settings, collect))
        ends.enter_context(_status_channel(writer))
        server.start()
        ends.callback(server.stop)
        # First of all, so that the last status is that of closed files.
        ends.callback(end)
        plan.begin()
        systemd.notify("READY=1")
        display.say(f"Writer of {settings.stream}: {server.address}")
        run_until_signal(lambda stop: _follow(writer, stop, display.show, look))
    account.write()
    return _outcome(writer)


def _status_channel(writer: Writer) -> AbstractContextManager[None]:
    name = writer.settings.status_channel
    if not name:
        return nullcontext()
    # Imported late: without it, bsread streams need no EPICS.
    from pvapy_stream.daq.status_channel import shown_on
    from pvapy_stream.daq.writer_channel import STATUS_FIELDS, writer_stats

    return shown_on(name, "writerId", STATUS_FIELDS, lambda: writer_stats(writer))


class _Account:
    """Keeps the ledger file of a writer."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._written_at = float("-inf")
        self._failed = False

    def keep(self) -> None:
        """Write what a killed writer leaves; a full disk does not end the writer."""
        now = time.monotonic()
        if now - self._written_at < _LEDGER_PERIOD:
            return
        self._written_at = now
        try:
            self.write()
        except LedgerError as error:
            if not self._failed:
                _log.error("%s", error)
            self._failed = True

    def write(self) -> None:
        """Write it.

        Raises:
            LedgerError: it cannot be written.
        """
        if self._writer.settings.ledger:
            write_ledgers(self._writer.settings.ledger, self._writer.ledgers())


def _follow(
    writer: Writer,
    stop: threading.Event,
    show: Callable[..., None],
    look: Callable[[], None],
) -> None:
    """Show how it goes until it is over, and for a little longer."""
    shown_at = 0.0
    look()
    while not stop.wait(_TICK):
        look()
        now = time.monotonic()
        if now - shown_at > _SHOWN_EVERY:
            shown_at = now
            show(writer.acquisitions)
        if writer.ended.is_set():
            stop.wait(_FAREWELL)
            return
        if not writer.settings.service and writer.current.over.is_set():
            _linger(writer, stop)
            return


def _linger(writer: Writer, stop: threading.Event) -> None:
    end = time.monotonic() + writer.settings.linger
    while time.monotonic() < end and not writer.ended.is_set() and not stop.wait(_TICK):
        pass


def _outcome(writer: Writer) -> int:
    """0 when all that was asked for is in files; else what is not, on standard error, and 1."""
    code = 0
    for acquisition in writer.acquisitions:
        found = acquisition.progress()
        what = f"acquisition {found.number}"
        if found.phase == "error":
            code = 1
            sys.stderr.write(f"error: {what}: {found.problem}\n")
        if found.n_lost:
            code = 1
            shown = ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in found.lost[:8])
            more = ", …" if len(found.lost) > 8 else ""
            sys.stderr.write(f"error: {what}: {found.n_lost} pulses are lost: {shown}{more}\n")
    return code


def become(user_id: int) -> None:
    """Change user and group, as one who may; -1: stay.

    Raises:
        SettingsError: that is not allowed.
    """
    if user_id < 0 or user_id == os.getuid():
        return
    try:
        if os.getuid() == 0:
            # The groups of the one who started it are none of this user's.
            os.setgroups([])
        os.setgid(user_id)
        os.setuid(user_id)
    except OSError as error:
        raise SettingsError(
            f"USER_ID: cannot become user {user_id}: {error.strerror}; run it as root, or with -1"
        ) from error


def read_token(file: str | None) -> str:
    """The bearer token; "" when there is none.

    Raises:
        SettingsError: the file cannot be read, or is empty.
    """
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "")
    try:
        token = Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"--token-file: cannot read {file}: {error}") from error
    if not token:
        raise SettingsError(f"--token-file: {file} is empty; put a secret into it")
    return token


if __name__ == "__main__":
    raise SystemExit(main())
