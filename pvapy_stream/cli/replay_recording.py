"""``replay`` (record): publish a recording again, at the same intervals, with faults on request."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pvapy_stream.cli.command import say
from pvapy_stream.cli.serve_source import serve_source
from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.settings import ReplaySettings

if TYPE_CHECKING:
    from pvapy_stream.sim.gate import Gate
    from pvapy_stream.sim.replay_server import ReplayServer

_EPILOG = """\
examples:
  pvapy-stream replay night.h5 -cn replay:image
  pvapy-stream replay night.h5 -cn replay:image --speed max --wait-for-clients 4
  pvapy-stream replay night.h5 -cn replay:image --drop 0.01 --duplicate 0.01 --reorder 0.01 \\
    --seed 7 --ledger replay.json
Objects keep their ids and time stamps. The last lines report how well intervals were kept, and what
was done on purpose; the ledger has the ids. --output-mode pva puts to a channel of another program.
exit codes: 0 all that was recorded is published, apart from faults; 1 some is not, or the recording
            is cut short; 2 wrong options
"""


def run(settings: ReplaySettings, gate: Gate | None = None) -> int:
    """Publish until the end, or until a signal comes; the gate of a workflow says when to begin.

    Raises:
        PvapyStreamError: the recording cannot be read or a channel cannot be hosted.
    """

    def make() -> ReplayServer:
        from pvapy_stream.sim.replay_server import ReplayServer

        return ReplayServer(settings, gate)

    server, code = serve_source(settings, make)
    for line in server.report():
        say(line)
    if server.problem:
        sys.stderr.write(f"error: {settings.file}: {server.problem}\n")
    return code


COMMAND = SettingsCommand(
    "pvapy-stream replay",
    "Publish a recording again, at the same intervals, with faults on request.",
    ReplaySettings,
    run,
    _EPILOG,
)
main = COMMAND.main
