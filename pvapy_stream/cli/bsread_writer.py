"""``bsread-writer`` (record): write pulses of a bsread stream that are requested over REST."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pvapy_stream.accounting.keeper import LedgerKeeper
from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.early import importing
from pvapy_stream.errors import SettingsError
from pvapy_stream.logs import configure_logging
from pvapy_stream.plugins import require
from pvapy_stream.settings import WriterSettings
from pvapy_stream.signals import run_until_signal

if TYPE_CHECKING:
    from pvapy_stream.daq.writer import AcquisitionWriter
    from pvapy_stream.status.snapshot import Snapshot

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
  pvapy-stream bsread-writer buffer://127.0.0.1:8083 run_1.h5 -1 0 --start 100 --stop-pulse-id 200
  pvapy-stream bsread-writer pva://SIM:Image run.h5 -1 8888 --layout nexus --keep-seconds 60
  pvapy-stream bsread-writer buffer://127.0.0.1:8083 /data/run -1 8888 --service --parallel 4
The file is named OUTPUT_FILE.part until it is closed; the file of a killed writer is completed by
pvapy-stream verify --repair. The interface is listed at /docs, a live page is at /.
exit codes: 0 all written; 1 something failed, or pulses of the range are lost; 2 wrong options
"""


_log = logging.getLogger(__name__)


def run(settings: WriterSettings) -> int:
    """Write until the acquisition is over, with --service until stopped.

    Raises:
        PvapyStreamError: the writer cannot be started.
    """
    require("fastapi", "web")
    # Imported late: --help and wrong options need none of it.
    with importing():
        from pvapy_stream import systemd
        from pvapy_stream.cli.writer_display import Display
        from pvapy_stream.daq.acquisition_plan import Plan
        from pvapy_stream.daq.rest import build_app
        from pvapy_stream.daq.web import WebThread
        from pvapy_stream.daq.writer import AcquisitionWriter
        from pvapy_stream.daq.writer_status import snapshot_of
        from pvapy_stream.status.metrics import served
        from pvapy_stream.web_security import is_loopback

    token = read_token(settings.token_file)
    # After the imports and the token, which the other user may not be allowed to read.
    become(settings.user_id)
    configure_logging(settings)
    if not token and not is_loopback(settings.rest_host):
        _log.warning(
            "--rest-host %s: anyone who reaches it can start and stop; give a --token-file",
            settings.rest_host,
        )
    writer = AcquisitionWriter(settings)
    server = WebThread(build_app(writer, token), settings.rest_host, settings.rest_port)
    display = Display(settings.report_period)
    plan = Plan(writer)

    def ledgers() -> Iterable[dict[str, Any]]:
        # They know themselves whether they are closed: as soon as their file is.
        return [one.to_dict() for one in writer.ledgers()]

    keeper = LedgerKeeper(settings.ledger, ledgers, _LEDGER_PERIOD)

    def look() -> None:
        plan.look()
        keeper.keep()

    def end() -> None:
        writer.close()
        display.show(writer.acquisitions)
        display.close()

    def snapshots() -> list[Snapshot]:
        found = snapshot_of(writer)
        return [replace(found, message=found.message or keeper.problem)]

    with ExitStack() as ends:
        ends.enter_context(served(settings, snapshots))
        ends.enter_context(_status_channel(settings, snapshots))
        server.start()
        ends.callback(server.stop)
        # First of all, so that the last status is that of closed files.
        ends.callback(end)
        plan.begin()
        systemd.notify("READY=1")
        display.say(f"Writer of {settings.stream}: {server.address}")
        run_until_signal(lambda stop: _follow(writer, stop, display.show, look))
    return _outcome(writer, keeper.close())


def _status_channel(
    settings: WriterSettings, snapshots: Callable[[], list[Snapshot]]
) -> AbstractContextManager[None]:
    names = settings.status_names("writer")
    if not names:
        return nullcontext()
    # Imported late: without it, bsread streams need no EPICS.
    from pvapy_stream.status.shown import shown_on

    return shown_on(names, snapshots, incarnation=settings.incarnation)


def _follow(
    writer: AcquisitionWriter,
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


def _linger(writer: AcquisitionWriter, stop: threading.Event) -> None:
    end = time.monotonic() + writer.settings.linger
    while time.monotonic() < end and not writer.ended.is_set() and not stop.wait(_TICK):
        pass


def _outcome(writer: AcquisitionWriter, ledger_problem: str) -> int:
    """0 when all that was asked for is in files; else what is not, on standard error, and 1.

    The last line for each acquisition sums up all pulses that are not in its file.
    """
    lines = [f"error: {ledger_problem}"] if ledger_problem else []
    for acquisition in writer.acquisitions:
        found = acquisition.progress()
        what = f"error: acquisition {found.number}"
        if found.phase == "error":
            lines.append(f"{what}: {found.problem}")
        unsaved = acquisition.not_saved()
        missing = [
            f"{count} {name}"
            for count, name in (
                (found.n_lost, f"pulses are lost: {_ranges(found.lost)}"),
                (len(unsaved), f"pulses were received and are not in the file: {unsaved}"),
                (sum(found.damaged.values()), f"values were damaged: {_channels(found.damaged)}"),
            )
            if count > 0
        ]
        if missing:
            lines.append(f"{what}: {'; '.join(missing)} ({found.rows} rows in {found.file})")
    for line in lines:
        sys.stderr.write(f"{line}\n")
    return 1 if lines else 0


def _ranges(lost: Sequence[tuple[int, int]]) -> str:
    shown = ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in lost[:8])
    return shown + (", …" if len(lost) > 8 else "")


def _channels(damaged: Mapping[str, int]) -> str:
    shown = ", ".join(f"{name} {n}" for name, n in list(damaged.items())[:8])
    return shown + (", …" if len(damaged) > 8 else "")


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


COMMAND = SettingsCommand(
    "sf_bsread_writer",
    "Write the pulses that are asked for over REST to HDF5 files in the SwissFEL layout.",
    WriterSettings,
    run,
    _EPILOG,
    logs=False,
)
main = COMMAND.main
