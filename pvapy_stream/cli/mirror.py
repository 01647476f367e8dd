"""``mirror`` (run): republish channels of other servers under new names."""

from __future__ import annotations

import sys

from pvapy_stream.cli.command import say
from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.early import importing
from pvapy_stream.errors import SettingsError
from pvapy_stream.pva.search import NameCheck
from pvapy_stream.settings import MirrorSettings
from pvapy_stream.settings.channel_map import parse_channel_map
from pvapy_stream.signals import run_until_signal

_EPILOG = """\
examples:
  pvapy-stream mirror -cm "(my:image,13SIM1:Pva1:Image),(my:motor,13IDA:m1,ca)"
  pvapy-stream mirror -cm "(my:image,cam:image,pva,100,2,_[pydistributor=group:m;trigger:uniqueId])"
  pvapy-stream mirror -cm "(low,tcp://HOST:31001?threshold=threshold_1,dectris),\\
    (high,tcp://HOST:31001?threshold=threshold_2,dectris)"
exit codes: 0 all well; 1 a source or consumers were never found, or updates could not be published;
2 wrong options
"""


def run(settings: MirrorSettings) -> int:
    """Mirror until the runtime is over, or until a signal comes.

    Raises:
        PvapyStreamError: the channel map is wrong, another program serves one of its names, or the
            ledger cannot be written.
    """
    mirrored = [entry.mirror for entry in parse_channel_map(settings.channel_map)]
    shown = settings.status_names("mirror", len(mirrored))
    if same := set(shown) & set(mirrored):
        raise SettingsError(
            f"--channel-map and --status-channel both have {min(same)}; give them different names"
        )
    names = NameCheck(mirrored)
    # Imported late: --help and wrong options need no EPICS.
    with importing():
        from pvapy_stream.mirror.mirror_server import MirrorServer
        from pvapy_stream.status.metrics import served
        from pvapy_stream.status.shown import shown_on

    server = MirrorServer(settings, say)
    names.refuse(settings.incarnation)
    with (
        served(settings, server.snapshots),
        shown_on(shown, server.snapshots, incarnation=settings.incarnation, beside=True),
    ):
        code = run_until_signal(server.run)
    for problem in server.problems():
        sys.stderr.write(f"error: {problem}\n")
    return code


COMMAND = SettingsCommand(
    "pvapy-mirror-server",
    "Republish channels of other servers under new names.",
    MirrorSettings,
    run,
    _EPILOG,
)
main = COMMAND.main
