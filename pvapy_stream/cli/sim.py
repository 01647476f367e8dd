"""``sim`` (run): simulate an area detector: publish images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvapy_stream.cli.command import SettingsCommand
from pvapy_stream.pva.search import NameCheck
from pvapy_stream.settings import SimulatorSettings
from pvapy_stream.signals import run_until_signal

if TYPE_CHECKING:
    from pvapy_stream.sim.gate import Gate
    from pvapy_stream.status.snapshot import Snapshot

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
    names = NameCheck(settings.hosted)
    # Imported late: --help and wrong options need neither EPICS nor HDF5.
    from pvapy_stream.sim.sim_server import SimServer
    from pvapy_stream.status.metrics import served
    from pvapy_stream.status.shown import shown_on

    server = SimServer(settings, gate)
    names.refuse(settings.incarnation)

    def snapshots() -> list[Snapshot]:
        return [server.snapshot()]

    shown = settings.status_names("simulator")
    with (
        served(settings, snapshots),
        shown_on(shown, snapshots, incarnation=settings.incarnation, beside=True),
    ):
        return run_until_signal(server.run)


COMMAND = SettingsCommand(
    "pvapy-ad-sim-server",
    "Simulate an area detector: publish images that are random or from files.",
    SimulatorSettings,
    run,
    _EPILOG,
)
main = COMMAND.main
