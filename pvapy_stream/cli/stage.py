"""A stage of a workflow as a program: it is told what to do on its standard input.

The first line is JSON: the command, its settings, and a file for its state. Later lines are
``go`` (a source may begin), ``finish`` (it publishes no more, but stays), ``stop`` and ``hurry``
(stop without draining). The end of the input means that the workflow is gone: the stage then stops
in order, as at SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

import msgspec

from pvapy_stream import settings as models
from pvapy_stream.cli.main import load
from pvapy_stream.cli.runner import exit_code
from pvapy_stream.logs import configure_logging
from pvapy_stream.pva.search import NameCheck
from pvapy_stream.settings import BsreadSimSettings, SimulatorSettings
from pvapy_stream.signals import (
    end_with_parent,
    leave_by_force,
    request_stop,
    runs_until_signal,
    still_ending,
    stop_early,
)

_READY, _DONE = "ready", "done"
_END_LIMIT = 60.0  # s; from the word stop, or the end of the input, to our end
_HURRY_LIMIT = 10.0  # s; from the word hurry to our end
_PARENT_PERIOD = 10.0  # s
_BEGIN_LIMIT = 5.0  # s; for a program to begin, so that it hears of a stop


def main() -> int:
    """Run the stage that standard input tells."""
    end_with_parent()
    threading.Thread(target=_follow_parent, name="parent", daemon=True).start()
    stop_early()
    # The buffered reader of sys.stdin would hold its lock while the program ends.
    told = os.fdopen(os.dup(0), encoding="utf-8")
    order = msgspec.json.decode(told.readline())
    drain = order.get("settings", {}).get("drain_timeout", 0.0)
    orders = Orders(Path(order["state"]), _END_LIMIT + float(drain))
    # A source waits for `go` in a thread that has no other way to be told.
    threading.Thread(target=orders.listen, args=(told,), name="workflow", daemon=True).start()
    # Ctrl-C reaches the whole process group; the workflow alone decides.
    return exit_code(lambda: _run(order, orders))


def _follow_parent() -> None:
    """Take back what the end of the thread that started us has set going: the parent is there."""
    parent = os.getppid()
    while os.getppid() == parent:
        still_ending(0)
        time.sleep(_PARENT_PERIOD)


def _run(order: dict[str, Any], orders: Orders) -> int:
    name = order["command"]
    if "argv" in order:
        return load(name).main(order["argv"])
    settings = getattr(models, order["settings_class"]).of(**order["settings"])
    if isinstance(settings, SimulatorSettings):
        return _simulate(settings, orders)
    module = load(name)
    module.COMMAND.set_up(settings)
    # Not COMMAND.run: `save` is stricter on its own than in a workflow, which has an audit.
    if isinstance(settings, BsreadSimSettings):
        return module.run(settings, orders)
    return module.run(settings)


def _simulate(settings: SimulatorSettings, orders: Orders) -> int:
    from pvapy_stream.signals import run_until_signal
    from pvapy_stream.sim.server import SimServer

    configure_logging(settings)
    names = NameCheck(settings.hosted)
    server = SimServer(settings, orders)
    names.refuse(settings.incarnation)
    return run_until_signal(server.run)


class Orders:
    """What the workflow says; the gate of a source.

    Args:
        state: file that tells the workflow how far a source is.
        limit: s from a stop until the program is ended by force.
    """

    def __init__(self, state: Path, limit: float = _END_LIMIT) -> None:
        self._state = state
        self._limit = limit
        self._go = threading.Event()
        self.finish = threading.Event()

    def listen(self, told: TextIO) -> None:
        """Obey until the end of the input."""
        for line in told:
            word = line.strip()
            if word == "go":
                self._go.set()
            elif word == "finish":
                self.finish.set()
            elif word in ("stop", "hurry"):
                self._stop(word == "hurry")
        sys.stderr.write("the workflow is gone; stopping\n")
        still_ending(self._limit + _BEGIN_LIMIT)
        self._stop(False)
        time.sleep(self._limit)

    def _stop(self, hurry: bool) -> None:
        request_stop(hurry)
        limit = _HURRY_LIMIT if hurry else self._limit
        threading.Thread(target=self._end_after, args=(limit,), daemon=True).start()

    def _end_after(self, limit: float) -> None:
        time.sleep(min(limit, _BEGIN_LIMIT))
        if not runs_until_signal():
            # It knows no orderly end.
            os.kill(os.getpid(), signal.SIGTERM)
        # A workflow that is there would end us by force; one that is gone cannot.
        time.sleep(max(0.0, limit - _BEGIN_LIMIT))
        sys.stderr.write(f"no end within {limit:g} s; ending by force\n")
        leave_by_force()

    def begin(self, stop: threading.Event) -> None:
        threading.Thread(target=self._finish_after, args=(stop,), daemon=True).start()
        self._state.write_text(_READY)
        while not self.finish.is_set() and not self._go.wait(0.02):
            pass

    def _finish_after(self, stop: threading.Event) -> None:
        while not stop.wait(60):
            pass
        self.finish.set()

    def end(self, stop: threading.Event) -> None:
        self._state.write_text(_DONE)
        while not stop.wait(60):
            pass


if __name__ == "__main__":
    sys.exit(main())
