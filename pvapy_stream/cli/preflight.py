"""``preflight`` (check): measure which rate is possible, and with which options."""

from __future__ import annotations

import math
import shlex
import sys
import threading
from typing import TYPE_CHECKING

from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.settings import PreflightSettings
from pvapy_stream.signals import run_until_signal

if TYPE_CHECKING:
    from pvapy_stream.preflight import Findings

_EPILOG = """\
examples:
  pvapy-stream preflight -nx 512 -ny 512 -fps 2000 -pf flip.py -pc Flip
  pvapy-stream preflight -ic det:image -pf flip.py -pc Flip -od /data
It streams through real processes on this host, including the source. A source on another host
leaves more CPU time for the consumers, but its network may be slower: then run it with
--input-channel too.
exit codes: 0 the needed rate was reached without loss; 1 it was not; 2 wrong options
"""


def run(settings: PreflightSettings) -> int:
    """Measure and print the results.

    Raises:
        PvapyStreamError: a part cannot be measured.
    """
    # Imported late: --help and wrong options need no EPICS.
    from pvapy_stream.preflight import Preflight

    outcome: list[Findings] = []

    def work(stop: threading.Event) -> int:
        outcome.append(Preflight(settings, _say).run(stop))
        return 1 if stop.is_set() else 0

    if run_until_signal(work):
        return 1
    found = outcome[0]
    sys.stdout.write("".join(f"{line}\n" for line in report(found, settings)))
    wanted = settings.frame_rate or found.source_rate
    return 0 if found.total_rate and found.total_rate >= wanted * 0.999 else 1


def report(found: Findings, settings: PreflightSettings) -> list[str]:
    """Lines with the results and the options to use."""
    size = "x".join(map(str, found.shape))

    def row(what: str, rate: float) -> str:
        return f"  {what:<28} {rate:>10,.0f} frames/s {rate * found.frame_bytes / 1e6:>9,.0f} MB/s"

    lines = [f"Frames of {size} {found.dtype}, {found.frame_bytes:,} bytes"]
    parts = [
        ("the source sends", found.source_rate or math.inf),
        ("one consumer, receiving only", found.link),
        ("the processor alone", found.processor),
        ("the disk alone", found.disk),
        ("one consumer, without loss", found.rate),
    ]
    lines += [row(what, rate) for what, rate in parts if math.isfinite(rate)]
    if found.n_consumers > 1:
        lines.append(row(f"{found.n_consumers} consumers, without loss", found.total_rate))
    if not found.total_rate:
        lines.append("No rate was reached without loss: the frames are too large for this host.")
    else:
        lines += ["Options:", f"  {shlex.join(_options(found, settings))}"]
        lines.append(
            f"  the queue covers {found.server_queue * found.n_consumers / found.total_rate:.2f} s"
            f" and takes {found.server_queue * found.frame_bytes / 1e6:,.0f} MB at the source for"
            " each consumer"
        )
    return lines + [f"Note: {note}" for note in found.notes]


def _options(found: Findings, settings: PreflightSettings) -> list[str]:
    options = ["pvapy-stream", "consumer", "-ic", settings.input_channel or "NAME"]
    if found.n_consumers > 1:
        options += ["-nc", str(found.n_consumers), "-dg", "share", "-dt", "uniqueId"]
    options += ["-sqs", str(found.server_queue)]
    if settings.processor_file:
        options += ["-pf", settings.processor_file]
    if settings.processor_class:
        options += ["-pc", settings.processor_class]
    return options


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


COMMAND = SettingsCommand(
    "pvapy-stream preflight",
    "Measure link, processor and disk; print the highest rate without loss, and the options.",
    PreflightSettings,
    run,
    _EPILOG,
)
main = COMMAND.main
