"""``dectris-sim`` (run): simulate a DECTRIS detector with Stream V2, also with faults."""

from __future__ import annotations

from pvapy_stream.cli.command import say
from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.settings.dectris_sim_settings import DectrisSimSettings
from pvapy_stream.signals import run_until_signal

_EPILOG = """\
examples:
  pvapy-stream dectris-sim -nx 1030 -ny 1065 --n-images 500 -fps 50
  pvapy-stream dectris-sim --thresholds 2 --compression lz4 --n-series 3 --omit-last 2
The first pixels of an image are its series id, its image id and the number of its threshold.
exit codes: 0 all well; 1 the address cannot be bound, or nobody takes messages; 2 wrong options
"""


def run(settings: DectrisSimSettings) -> int:
    """Send until the end, or until a signal.

    Raises:
        PvapyStreamError: the address cannot be bound, or nobody takes messages.
    """
    # Imported late: --help and wrong options need no ZeroMQ.
    from pvapy_stream.sim.dectris_detector import DectrisSimulator

    simulator = DectrisSimulator(settings)
    say(f"a detector at {simulator.address}")
    code = run_until_signal(simulator.run)
    say(f"{simulator.images} images sent")
    return code


COMMAND = SettingsCommand(
    "pvapy-stream dectris-sim",
    "Simulate a DECTRIS detector with the Stream V2 interface, also with faults.",
    DectrisSimSettings,
    run,
    _EPILOG,
)
main = COMMAND.main
