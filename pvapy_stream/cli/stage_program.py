"""A stage of a workflow as a program, controlled through its standard input.

The first line is JSON: the command, its settings, and a file for its state. Later lines are
commands of `launch.entry`. The end of the input means that the workflow has ended: the stage
then stops in order, as at SIGTERM.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from pvapy_stream import settings as models
from pvapy_stream.cli.exit_codes import exit_code
from pvapy_stream.cli.main import load
from pvapy_stream.launch.entry import Orders, enter
from pvapy_stream.settings import BsreadSimSettings
from pvapy_stream.settings.source_settings import SourceSettings
from pvapy_stream.signals import stop_early

_READY, _DONE = "ready", "done"
_END_LIMIT = 60.0  # s; from the end of the input to our end, beside the time to drain


def main() -> int:
    """Run the stage that standard input defines."""
    enter()
    stop_early()
    # The buffered reader of sys.stdin would hold its lock while the program ends.
    orders = os.fdopen(os.dup(0), encoding="utf-8")
    order = msgspec.json.decode(orders.readline())
    drain = order.get("settings", {}).get("drain_timeout", 0.0)
    gate = StateFile(Path(order["state"]), _END_LIMIT + float(drain))
    gate.follow(line.strip() for line in orders)
    # Ctrl-C reaches the whole process group; the workflow alone decides.
    return exit_code(lambda: _run(order, gate))


def _run(order: dict[str, Any], gate: StateFile) -> int:
    name = order["command"]
    if "argv" in order:
        return load(name).main(order["argv"])
    settings = getattr(models, order["settings_class"]).of(**order["settings"])
    module = load(name)
    module.COMMAND.set_up(settings)
    # Not COMMAND.run: `save` alone is stricter than in a workflow, which has an audit.
    if isinstance(settings, (SourceSettings, BsreadSimSettings)):
        return module.run(settings, gate)
    return module.run(settings)


class StateFile(Orders):
    """The gate of a source: reports the state of the source to the workflow in a file.

    Args:
        state: the file.
        limit: s from the end of the workflow to ours, by force.
    """

    def __init__(self, state: Path, limit: float) -> None:
        super().__init__(limit)
        self._state = state

    def begin(self, stop: threading.Event) -> None:
        threading.Thread(target=self._finish_after, args=(stop,), daemon=True).start()
        self._state.write_text(_READY)
        while not self.finish.is_set() and not self.go.wait(0.02):
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
