"""``pvapy-stream demo``: the main job on this machine, with real frames and a verified end."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from pvapy_stream.cli import audit
from pvapy_stream.cli.options import plain_parser
from pvapy_stream.cli.runner import exit_code
from pvapy_stream.cli.stages import Board
from pvapy_stream.hpc.launch.local import run_stages
from pvapy_stream.settings import ConsumerSettings
from pvapy_stream.signals import run_until_signal

_LOOPBACK = {
    "EPICS_PVA_ADDR_LIST": "127.0.0.1",
    "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
    "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1",
    "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
    "EPICS_CA_ADDR_LIST": "127.0.0.1",
    "EPICS_CA_AUTO_ADDR_LIST": "NO",
    "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
    "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
    "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
}

_DATASET = "/Scan 1/EBSD/Data/patterns"

_READY_TIMEOUT = 30.0  # s; starting five processes on a busy machine
_END_TIMEOUT = 20.0  # s; for a program to drain

_NEXT = """\
To look inside, run it with --keep-running and, in another terminal with the same EPICS variables:
  {pv}pvget {p}status:1
  {pv}pvput {p}control:1 '{{"command": "get_stats"}}'
  {pv}pvput {p}control:1 '{{"command": "pause"}}'     then resume, reload, reset_stats, stop
  {pv}pvmonitor {p}out:1
Then write a processor of your own:  pvapy-stream new-processor my_processor
"""


def parser() -> argparse.ArgumentParser:
    """The command's parser."""
    made = plain_parser(
        "pvapy-stream demo",
        "Run a simulator with real frames, a mirror, and two consumers that share the stream; then"
        " audit it.",
    )
    made.add_argument(
        "--seconds", type=float, default=10.0, help="how long frames are published [default 10 s]"
    )
    made.add_argument("--rate", type=float, default=500.0, help="frames per second [default 500]")
    made.add_argument("--keep-running", action="store_true", help="publish until interrupted")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parser().parse_args(argv)
    # Before EPICS is used: the demonstration stays on this machine.
    os.environ.update(_LOOPBACK)
    # The folder outlives an error, so that its logs can be read.
    folder = Path(tempfile.mkdtemp(prefix="pvapy-stream-demo-"))
    demo = Demo(
        folder, 0 if options.keep_running else round(options.seconds * options.rate), options.rate
    )
    return exit_code(lambda: run_until_signal(demo.run))


class Demo:
    """The chain: simulator, mirror, two consumers.

    Args:
        folder: where ledgers and logs go.
        n_frames: how many frames are published; 0: until interrupted.
        rate: frames/s.
    """

    def __init__(self, folder: Path, n_frames: int, rate: float) -> None:
        self._folder = folder
        self._n_frames = n_frames
        self._rate = rate
        # With --keep-running the names are known beforehand; otherwise runs must not meet.
        self._prefix = f"demo:{uuid.uuid4().hex[:6]}:" if n_frames else "demo:"
        self._console = Console()
        self._programs: list[subprocess.Popen[bytes]] = []

    def run(self, stop: threading.Event) -> int:
        """Run to the end; 0 when every frame was processed.

        Raises:
            PvapyStreamError: a part did not start.
        """
        settings = self._consumers()
        self._console.print(
            "Simulator -> mirror -> consumers 1 and 2: nickel diffraction patterns at"
            f" {self._rate:g} frames/s, transposed."
        )
        consumers_stop = threading.Event()
        outcome: list[str] = []
        board = Board(settings, self._console)

        consumers = threading.Thread(
            target=lambda: outcome.append(run_stages(settings, consumers_stop, board.show))
        )
        simulator, mirror = self._start_programs()
        try:
            consumers.start()
            while simulator.poll() is None and consumers.is_alive() and not stop.wait(0.2):
                pass
        finally:
            early = simulator.poll() is None
            self._end(simulator)
            consumers_stop.set()
            if consumers.ident:
                consumers.join(settings.drain_timeout + _END_TIMEOUT)
            self._end(mirror)
            board.close()
        problems = outcome or ["the consumers did not end"]
        if simulator.returncode and not early:
            problems.append(f"the simulator failed; see {self._folder}/sim.log")
        return self._report("; ".join(filter(None, problems)))

    def _consumers(self) -> ConsumerSettings:
        return ConsumerSettings.of(
            input_channel=f"{self._prefix}mirror",
            output_channel=f"{self._prefix}out:*",
            status_channel=f"{self._prefix}status:*",
            control_channel=f"{self._prefix}control:*",
            n_consumers=2,
            distributor_group="demo",
            distributor_trigger="uniqueId",
            server_queue_size=1000,
            processor_class="pvapy_stream.processors.transpose.Transpose",
            status_period=0.5,
            report_period=2,
            report_stats=("processor",),
            ledger=self._ledger("consumers"),
        )

    def _ledger(self, name: str) -> str:
        return str(self._folder / f"{name}.json")

    def _start_programs(self) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
        frames = str(files("pvapy_stream") / "data" / "nickel_ebsd_small.h5")
        simulator = self._start(
            "sim", "-cn", f"{self._prefix}image",
            "-if", frames, "-hds", _DATASET,
            "-fps", f"{self._rate}", "-rp", "0", "-dc", "-rt", "0", "--n-publish",
            str(self._n_frames),
            "--wait-for-stages", f"{self._prefix}status:1,{self._prefix}status:2",
            "--wait-timeout", f"{_READY_TIMEOUT}", "-shd", "2",
            "--ledger", self._ledger("simulator"),
        )  # fmt: skip
        mirror = self._start(
            "mirror",
            "-cm",
            f"({self._prefix}mirror,{self._prefix}image,pva,1000)",
            "--ledger",
            self._ledger("mirror"),
        )
        return simulator, mirror

    def _start(self, *args: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{args[0]}.log").open("wb") as log:
            program = subprocess.Popen(
                [sys.executable, "-m", "pvapy_stream.cli.main", *args], stdout=log, stderr=log
            )
        self._programs.append(program)
        return program

    def _end(self, program: subprocess.Popen[bytes]) -> None:
        if program.poll() is None:
            program.terminate()
        try:
            program.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            program.kill()

    def _report(self, problem: str) -> int:
        code = audit.run([self._ledger(n) for n in ("simulator", "mirror", "consumers")])
        if problem:
            self._console.print(f"Not all went well: {problem}", markup=False)
        self._console.print(f"Ledgers and logs are in {self._folder}", markup=False, soft_wrap=True)
        beside = Path(sys.executable).parent
        pv = f"{beside}/" if (beside / "pvget").exists() else ""
        self._console.print(
            _NEXT.format(pv=pv, p=self._prefix if not self._n_frames else "demo:"),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return 1 if problem else code
