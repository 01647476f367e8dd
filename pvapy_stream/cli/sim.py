"""``pvapy-ad-sim-server`` and ``pvapy-stream sim``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pvapy_stream.cli.options import parse, settings_parser
from pvapy_stream.cli.runner import exit_code
from pvapy_stream.logs import configure_logging
from pvapy_stream.pva.search import NameCheck
from pvapy_stream.settings import SimulatorSettings
from pvapy_stream.signals import run_until_signal

if TYPE_CHECKING:
    from pvapy_stream.status.snapshot import Snapshot

_EPILOG = """\
examples:
  pvapy-ad-sim-server -cn pvapy:image -nx 128 -ny 128 -fps 1000 -rt 60
  pvapy-ad-sim-server -cn pvapy:image -if scan.h5 -hcm --wait-for-clients 4 --n-publish 10000
A client is a process that is connected, whatever it does with the channel.
exit codes: 0 all well; 1 frames could not be read or published, or clients were too few;
            2 wrong options
"""


def parser() -> argparse.ArgumentParser:
    """The command's parser."""
    return settings_parser(
        SimulatorSettings,
        "pvapy-ad-sim-server",
        "Publish images as an area detector does: random ones, or from files.",
        _EPILOG,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    settings = parse(SimulatorSettings, parser(), argv)
    return exit_code(lambda: run(settings))


def run(settings: SimulatorSettings) -> int:
    """Serve until the end, or until a signal comes.

    Raises:
        PvapyStreamError: frames cannot be read or a channel cannot be hosted.
    """
    names = NameCheck([settings.channel_name] if settings.output_mode != "shm" else ())
    # Imported late: --help and wrong options need neither EPICS nor HDF5.
    from pvapy_stream.sim.server import SimServer
    from pvapy_stream.status.metrics import served
    from pvapy_stream.status.shown import shown_on

    configure_logging(settings)
    server = SimServer(settings)
    names.refuse()

    def snapshots() -> list[Snapshot]:
        return [server.snapshot()]

    shown = settings.status_names("simulator")
    with (
        served(settings, snapshots),
        shown_on(shown, snapshots, incarnation=settings.incarnation, beside=True),
    ):
        return run_until_signal(server.run)


if __name__ == "__main__":
    raise SystemExit(main())
