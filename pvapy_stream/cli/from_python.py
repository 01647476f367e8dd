"""`run`: a command as a function."""

from __future__ import annotations

import inspect
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pvapy_stream.base_settings import Settings
from pvapy_stream.cli.main import load
from pvapy_stream.errors import SettingsError
from pvapy_stream.hpc.processor import UserDataProcessor
from pvapy_stream.settings import StageSettings
from pvapy_stream.settings.consumer_settings import FixedProcessorSettings
from pvapy_stream.signals import STOP_SIGNALS, runs_until_signal, stop_running

# The commands of settings; only the module of the one that is run is imported.
COMMAND_OF = {
    "AdWriterSettings": "ad-writer",
    "BsreadSimSettings": "bsread-sim",
    "DectrisSimSettings": "dectris-sim",
    "BufferSettings": "bsread-buffer",
    "CollectorSettings": "collector",
    "ConsumerSettings": "consumer",
    "DashboardSettings": "dashboard",
    "MirrorSettings": "mirror",
    "PreflightSettings": "preflight",
    "RecordSettings": "record",
    "ReplaySettings": "replay",
    "ReportSettings": "report",
    "SimulatorSettings": "sim",
    "TopSettings": "top",
    "WriteSettings": "save",
    "WriterSettings": "bsread-writer",
}
_TICK = 0.05  # s; how soon `stop` is noticed


def run(
    settings: Settings,
    processor: type[UserDataProcessor] | None = None,
    *,
    stop: threading.Event | None = None,
) -> int:
    """Run the program of these settings until it ends, with its messages and its display.

    It ends as the command does: by its settings (``runtime``, ``n_publish``), by Ctrl-C or SIGTERM,
    or by `stop`. Call it in the main thread, which handles signals; their handlers are restored
    at the end. Stages that load a class from a script import the script again, and so does each
    of several consumers: call `run` below ``if __name__ == "__main__":``.

    Args:
        settings: what to run, such as `ConsumerSettings` or `SimulatorSettings`.
        processor: class for a consumer or collector, instead of ``processor_class``. The stage
            loads it again from its module or file, and gives it ``processor_args``.
        stop: ends the program in order when another thread sets it.

    Returns:
        the exit code of the command: 0 all well, 1 not.

    Raises:
        SettingsError: settings without a program, a processor that cannot be loaded anew, or not
            the main thread.
        PvapyStreamError: the program cannot start.
    """
    name = COMMAND_OF.get(type(settings).__name__)
    if name is None:
        raise SettingsError(
            f"{type(settings).__name__} has no program; run one of {', '.join(COMMAND_OF)}"
        )
    if threading.current_thread() is not threading.main_thread():
        raise SettingsError(
            f"run({type(settings).__name__}) handles signals, so call it in the main thread and"
            f" below `if __name__ == '__main__':`; elsewhere start the command {name}"
        )
    if processor is not None:
        settings = _with_processor(settings, processor)
    command = load(name).COMMAND
    with _handlers_kept(), _stopped_by(stop):
        command.set_up(settings)
        return command.run(settings)


def _with_processor(settings: Settings, processor: type) -> Settings:
    """The settings with a class that their program can load anew."""
    if not isinstance(settings, StageSettings) or isinstance(settings, FixedProcessorSettings):
        raise SettingsError(
            f"{type(settings).__name__} takes no processor; ConsumerSettings and CollectorSettings"
            " do"
        )
    if settings.processor_class:
        raise SettingsError(
            f"both a processor and processor_class {settings.processor_class!r} are given; give"
            " only one"
        )
    name = processor.__qualname__
    if "." in name:
        raise SettingsError(
            f"{name} is not a class at the top level of a module, so no stage can load it;"
            " move it there"
        )
    if processor.__module__ != "__main__":
        return settings.replace(processor_class=f"{processor.__module__}.{name}")
    try:
        file = inspect.getsourcefile(processor)
    except (OSError, TypeError):
        file = None
    if file is None or not Path(file).is_file():
        raise SettingsError(
            f"{name} is defined in no file, so no stage can load it; put it into one, and import it"
        )
    return settings.replace(processor_file=file, processor_class=name)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _stopped_by(stop: threading.Event | None) -> Iterator[None]:
    """Ask what runs to end when the event is set, also if that was before it ran."""
    if stop is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_TICK):
            if stop.is_set() and runs_until_signal():
                stop_running()
                return

    watcher = threading.Thread(target=watch, name="stop-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
