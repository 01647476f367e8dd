"""``bsread-sim`` (run): simulate a source of bsread messages, also with faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvapy_stream.cli.command import say
from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.settings import BsreadSimSettings
from pvapy_stream.signals import run_until_signal

if TYPE_CHECKING:
    from pvapy_stream.sim.gate import Gate

_EPILOG = """\
examples:
  pvapy-stream bsread-sim -ns 300
  pvapy-stream bsread-sim --camera 1280x1024 --camera-compression bitshuffle_lz4 -fps 100
  pvapy-stream bsread-sim -c WAVE=int32/2048/lz4/big,STATE=string/every10 --drop 0.01 --reorder 0.01
The image at a pulse is that of any pulse 16 earlier or later; scalars are the pulse id.
exit codes: 0 all well; 1 the address cannot be bound; 2 wrong options
"""


def run(settings: BsreadSimSettings, gate: Gate | None = None) -> int:
    """Send until the end, or until a signal.

    Args:
        settings: what to send.
        gate: defines when to begin, in a workflow.

    Raises:
        PvapyStreamError: the address cannot be bound, channels that cannot be, or a ledger that
            cannot be written.
    """
    # Imported late: --help and wrong options need no ZeroMQ.
    from pvapy_stream.bsread.simulator import BsreadSimulator

    simulator = BsreadSimulator(settings)
    say(f"sending {len(settings.all_channels)} channels on {simulator.address}")
    code = run_until_signal(lambda stop: simulator.run(stop, gate))
    counts = simulator.summary()
    say(
        f"{counts['pulses']} pulses, {counts['sent']} messages sent, {counts['not taken']} not"
        f" taken, {counts['late']} late; {counts['rate']:.1f} messages/s"
    )
    return code


COMMAND = SettingsCommand(
    "pvapy-stream bsread-sim",
    "Simulate a source of bsread messages, also with faults.",
    BsreadSimSettings,
    run,
    _EPILOG,
)
main = COMMAND.main
