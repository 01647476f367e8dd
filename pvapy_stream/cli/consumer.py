"""``consumer`` (run): receive a stream, distribute it over processes, process and publish it."""

from __future__ import annotations

from pvapy_stream.cli.run_stages import run
from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.settings import ConsumerSettings

_EPILOG = """\
examples:
  pvapy-stream consumer -ic pvapy:image -oc out:* -sc stat:* -cc ctrl:* -pf my.py -pc Mine
  pvapy-stream consumer -ic pvapy:image -nc 4 -dg g -dt uniqueId -sqs 100 -pf my.py -pc Mine
exit codes: 0 all well; 1 a consumer failed or objects met errors; 2 wrong options
"""


COMMAND = SettingsCommand(
    "pvapy-hpc-consumer",
    "Receive a stream, distribute it over processes, process and publish it.",
    ConsumerSettings,
    run,
    _EPILOG,
    logs=False,
)
main = COMMAND.main
