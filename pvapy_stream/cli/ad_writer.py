"""``ad-writer`` (record): write images when areaDetector's clients, such as Bluesky, ask for it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

from pvapy_stream.cli.command import say
from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.errors import SettingsError
from pvapy_stream.settings import AdWriterSettings
from pvapy_stream.signals import run_until_signal

_EPILOG = """\
examples:
  pvapy-stream ad-writer -p 13SIM1:HDF1: -ic 13SIM1:Pva1:Image --folder /data
  pvput 13SIM1:HDF1:FileName scan
  pvput 13SIM1:HDF1:Capture 1
It has the records of areaDetector's HDF5 plugin, over PVAccess, and with --channel-access also
over Channel Access. An existing file is never replaced.
exit codes: 0 all captures are complete; 1 some are not; 2 wrong options
"""


def run(settings: AdWriterSettings) -> int:
    """Serve until stopped.

    Raises:
        PvapyStreamError: it cannot be started.
    """
    if not Path(settings.folder).is_dir():
        raise SettingsError(f"--folder {settings.folder} is not a folder; make it first")
    # Imported late: --help and wrong options need no EPICS.
    from pvapy_stream import __version__, systemd
    from pvapy_stream.areadetector.plugin import Plugin
    from pvapy_stream.areadetector.plugin_records import FIELDS
    from pvapy_stream.areadetector.records import names
    from pvapy_stream.plugins import require
    from pvapy_stream.pva.net.server import Server
    from pvapy_stream.pva.search import NameCheck
    from pvapy_stream.pva.serving import PutRights, put_check

    # They are all the same.
    check = NameCheck(names(settings.prefix, FIELDS)[:1])
    may_put = put_check(PutRights(settings.control_from, settings.access_security))
    server = Server(version=__version__)
    plugin = Plugin(settings, server, __version__, may_put, say)
    check.refuse()
    with ExitStack() as ends:
        server.start()
        ends.callback(server.stop)
        if settings.channel_access:
            require("caproto", "ca")
            from pvapy_stream.areadetector.ca_server import CaServer

            older = CaServer(plugin.records)
            older.start()
            ends.callback(older.stop)
        systemd.notify("READY=1")
        say(f"HDF5 plugin {settings.prefix} writes {settings.input_channel} to {settings.folder}")
        run_until_signal(plugin.run)
    for problem in plugin.problems:
        sys.stderr.write(f"error: {problem}\n")
    return 1 if plugin.problems else 0


COMMAND = SettingsCommand(
    "pvapy-stream ad-writer",
    "Write images to HDF5/NeXus files, controlled by the records of areaDetector's HDF5 plugin.",
    AdWriterSettings,
    run,
    _EPILOG,
)
main = COMMAND.main
