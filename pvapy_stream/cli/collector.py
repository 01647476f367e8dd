"""``collector`` (run): collect the streams of several producers in the order of ids."""

from __future__ import annotations

from pvapy_stream.cli.run_stages import run
from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.settings import CollectorSettings

_EPILOG = """\
examples:
  pvapy-stream collector -ic 'stage:*:out' -pid 1,2,3,4 -oc all:out -sc all:status -cc all:control
  pvapy-stream collector -ic 'stage:*:out' -pid 'range(1,9)' -pf myproc.py -pc MyProcessor
exit codes: 0 all well; 1 the collector failed or objects met errors; 2 wrong options
"""


COMMAND = SettingsCommand(
    "pvapy-hpc-collector",
    "Gather the streams of several producers in the order of ids, process and publish them.",
    CollectorSettings,
    run,
    _EPILOG,
    logs=False,
)
main = COMMAND.main
