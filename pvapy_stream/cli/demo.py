"""``demo`` (set up): run a whole stream on this machine, of frames or of bsread pulses."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import threading
import uuid
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from rich.live import Live

from pvapy_stream.cli import audit, verify
from pvapy_stream.cli.command import CliCommand
from pvapy_stream.cli.console import make_console
from pvapy_stream.cli.projects import status_table
from pvapy_stream.errors import SettingsError
from pvapy_stream.logs import configure_logging
from pvapy_stream.pva.net.environment import LOOPBACK
from pvapy_stream.settings import LoggingSettings
from pvapy_stream.signals import run_until_signal

if TYPE_CHECKING:
    from pvapy_stream.workflow import Outcome, Project, Workflow

_DATASET = "/Scan 1/EBSD/Data/patterns"
_FILE = "patterns.h5"
# What the file's compression and the report need.
_EXTRAS = {"bitshuffle": ("codecs", "the file is not compressed"), "jinja2": ("web", "no report")}
_WIDE = 160
_REFRESH = 0.5  # s

_LOOK = """\
To inspect it while it runs, in another terminal:
  . {folder}/epics.sh      # limits EPICS to this machine
  {bin}pvapy-stream dashboard --workflow {folder}/demo.yaml -ic {p}gather
  {pv}pvget {p}workers:status:1
  {pv}pvput {p}workers:control:1 '{{"command": "get_stats"}}'
  {pv}pvput {p}workers:control:1 '{{"command": "pause"}}'     then resume, reload, reset_stats
  {pv}pvmonitor {p}gather"""

_NEXT = """\
To inspect it, run it with --keep-running, which prints the commands.
Then write your own processor:  pvapy-stream new-processor my_processor
Or change the workflow, and run it:
  . {folder}/epics.sh
  pvapy-stream workflow run {folder}/demo.yaml
"""


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    made.add_argument(
        "--seconds", type=float, default=10.0, help="how long frames are published [default 10 s]"
    )
    made.add_argument(
        "--rate", type=float, default=500.0, help="frames per second [default 500 frames/s]"
    )
    made.add_argument(
        "--bsread",
        action="store_true",
        help="instead, run a bsread simulator and a buffer, and write a range of pulses that began"
        " before it was requested; --pulses and --folder belong to it",
    )
    made.add_argument(
        "--pulses",
        type=int,
        default=300,
        help="how many are written, at 100 a second [default 300 pulses]",
    )
    made.add_argument("--folder", help="folder for the file and the logs; default: a new one")
    made.add_argument(
        "--choose",
        action="store_true",
        help="ask what to run, this demonstration or a built-in template, and with which values",
    )
    made.add_argument("--keep-running", action="store_true", help="publish until interrupted")


def run(options: argparse.Namespace) -> int:
    """Run the demonstration; 0 when everything is in the file.

    Raises:
        PvapyStreamError: a part did not start.
    """
    if options.choose:
        from pvapy_stream.cli.choose import choose

        return choose(lambda bsread: _run(options, bsread))
    return _run(options, options.bsread)


def _run(options: argparse.Namespace, bsread: bool) -> int:
    if bsread:
        from pvapy_stream.cli.bsread_demo import run_demo

        return run_demo(options.folder, options.pulses)
    if options.folder:
        raise SettingsError("--folder belongs to --bsread; give both")
    # Before EPICS is used: the demonstration stays on this machine.
    os.environ.update(LOOPBACK)
    configure_logging(LoggingSettings.of())
    # The folder outlives an error, so that its logs can be read.
    folder = Path(tempfile.mkdtemp(prefix="pvapy-stream-demo-"))
    demo = Demo(
        folder, 0 if options.keep_running else round(options.seconds * options.rate), options.rate
    )
    return run_until_signal(demo.run)


class Demo:
    """A workflow: simulator, mirror, two consumers, collector, writer, and a report beside them.

    Args:
        folder: where the file, the report, ledgers and logs go.
        n_frames: how many frames are published; 0: until interrupted.
        rate: frames/s.
    """

    def __init__(self, folder: Path, n_frames: int, rate: float) -> None:
        self._folder = folder
        self._n_frames = n_frames
        self._rate = rate
        # With --keep-running the names are known beforehand; otherwise runs must not meet.
        self._prefix = f"demo:{uuid.uuid4().hex[:6]}:" if n_frames else "demo:"
        self._run = folder / "run"
        self._page = folder / "report.html"
        console = make_console()
        self._console = console if console.is_terminal else make_console(width=_WIDE)

    def run(self, stop: threading.Event) -> int:
        """Run to the end; 0 when every frame was processed and is in the file.

        Raises:
            PvapyStreamError: a part did not start.
        """
        # Imported late, when the environment of EPICS is set.
        from pvapy_stream.workflow import Project, to_yaml

        flow = self._workflow()
        (self._folder / "demo.yaml").write_text(to_yaml(flow))
        (self._folder / "epics.sh").write_text(
            "".join(f"export {name}={value}\n" for name, value in LOOPBACK.items())
        )
        self._say(
            "Simulator -> mirror -> consumers 1 and 2 -> collector -> writer: nickel diffraction"
            f" patterns at {self._rate:g} frames/s, transposed, compressed, saved."
        )
        if not self._n_frames:
            beside = Path(sys.executable).parent
            pv = f"{beside}/" if (beside / "pvget").exists() else ""
            names = {"bin": f"{beside}/", "pv": pv, "p": self._prefix, "folder": self._folder}
            self._say(_LOOK.format(**names))
        project = Project.create_in(self._run, flow)
        try:
            outcome = self._watch(project, stop)
        finally:
            project.close()
        return self._report(outcome)

    def _workflow(self) -> Workflow:
        from pvapy_stream.workflow import (
            Collector,
            Command,
            Consumer,
            Mirror,
            Simulator,
            Workflow,
            Writer,
        )

        flow = Workflow("demo", "Nickel diffraction patterns to disk", channels=self._prefix)
        detector = flow.add(
            Simulator(
                input_file=str(files("pvapy_stream") / "data" / "nickel_ebsd_small.h5"),
                hdf_dataset=_DATASET,
                frame_rate=self._rate,
                n_publish=self._n_frames,
            ),
            "detector",
        )
        mirror = flow.add(Mirror(input=detector["output"], server_queue_size=1000), "mirror")
        workers = flow.add(
            Consumer(
                input=mirror["output"],
                n_consumers=2,
                server_queue_size=1000,
                processor_class="pvapy_stream.processors.Transpose",
            ),
            "workers",
        )
        gather = flow.add(Collector(input=workers["output"], server_queue_size=1000), "gather")
        # A first try has to work without any extra.
        flow.add(
            Writer(
                input=gather["output"],
                output=_FILE,
                compression="bslz4" if _has("bitshuffle") else "none",
                server_queue_size=1000,
            ),
            "disk",
        )
        if not _has("jinja2"):
            return flow
        status = [f"{{prefix}}{name}:status:1" for name in ("workers", "gather", "disk")]
        flow.add(
            Command(
                command=f"report -sc {' '.join(status)} {{prefix}}workers:status:2"
                f" -ic {{prefix}}gather --interval 2 --title Demo -o {self._page}"
            ),
            "page",
        )
        return flow

    def _watch(self, project: Project, stop: threading.Event) -> Outcome:
        """Run the project, with a live table on a terminal."""
        from pvapy_stream.workflow import Scheduler

        if not self._console.is_terminal:
            return Scheduler(project, say=self._say).run(stop)
        found: list[Outcome] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                found.append(Scheduler(project, say=self._say).run(stop))
            except BaseException as error:
                errors.append(error)

        worker = threading.Thread(target=work, name="demo-scheduler")
        worker.start()
        with Live(
            status_table(project),
            console=self._console,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
        ) as live:
            while worker.is_alive():
                worker.join(_REFRESH)
                live.update(status_table(project))
        if errors:
            raise errors[0]
        return found[0]

    def _report(self, outcome: Outcome) -> int:
        for one in outcome.audits:
            audit.show(one)
        whole = False
        file = self._run / _FILE
        if file.exists():
            report = verify.verify(file)
            verify.show([report])
            whole = report.ok
        for problem in outcome.problems:
            self._say(f"The demonstration failed: {problem}")
        self._say(f"File, report, ledgers and logs are in {self._folder}")
        for module, (extra, what) in _EXTRAS.items():
            if not _has(module):
                self._say(f"Without an extra, {what}:  pip install 'pvapy-stream[{extra}]'")
        self._say(_NEXT.format(folder=self._folder))
        return 0 if outcome.ok and whole else 1

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


COMMAND = CliCommand(
    "pvapy-stream demo",
    "Run a simulator with real frames, a mirror, two consumers that share the stream, a"
    " collector and a writer, as one workflow; then audit it and verify the file.",
    run,
    add_arguments=add_arguments,
)
main = COMMAND.main
