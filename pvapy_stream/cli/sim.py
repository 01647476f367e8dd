"""``sim`` (run): simulate an area detector: publish images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvapy_stream.cli.serve_source import serve_source
from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.early import importing
from pvapy_stream.settings import SimulatorSettings

if TYPE_CHECKING:
    from pvapy_stream.sim.gate import Gate
    from pvapy_stream.sim.sim_server import SimServer

_EPILOG = """\
examples:
  pvapy-stream sim -cn pvapy:image -nx 128 -ny 128 -fps 1000 -rt 60
  pvapy-stream sim -cn pvapy:image -if scan.h5 -hcm --wait-for-clients 4 --n-publish 10000
Every connected process counts as a client.
exit codes: 0 all well; 1 frames could not be read or published, or clients were too few;
            2 wrong options
"""


def run(settings: SimulatorSettings, gate: Gate | None = None) -> int:
    """Serve until the end, or until a signal comes; the gate of a workflow says when to begin.

    Raises:
        PvapyStreamError: frames cannot be read or a channel cannot be hosted.
    """

    def make() -> SimServer:
        with importing():
            from pvapy_stream.sim.sim_server import SimServer

        return SimServer(settings, gate)

    _, code = serve_source(settings, make)
    return code


COMMAND = SettingsCommand(
    "pvapy-ad-sim-server",
    "Simulate an area detector: publish images that are random or from files.",
    SimulatorSettings,
    run,
    _EPILOG,
)
main = COMMAND.main
