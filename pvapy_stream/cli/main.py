"""``pvapy-stream COMMAND``: one program for all commands.

Only the module of the chosen command is imported, so the list of commands comes at once.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

PROG = "pvapy-stream"


class Command(NamedTuple):
    """Where a command lives, and what it does in one line.

    The module has ``parser() -> ArgumentParser`` and ``main(argv) -> int``.
    """

    module: str
    help: str


COMMANDS = {
    "consumer": Command(
        "consumer", "receive a stream, split it over processes, process and publish it"
    ),
    "collector": Command("collector", "gather the streams of several producers in order"),
    "mirror": Command("mirror", "show channels of other servers under names of your own"),
    "sim": Command("sim", "publish images as an area detector does"),
    "audit": Command("audit", "tell whether every frame of a run has a fate"),
    "write": Command("write", "write a stream to HDF5/NeXus files"),
    "verify": Command("verify", "check files for lost and damaged images; recover unclosed ones"),
    "monitor": Command("monitor", "watch disks, machines, stages, images, tables; give alarms"),
    "report": Command("report", "write a page about stages, series and alarms"),
    "dashboard": Command("dashboard", "serve a live page: the chain, images, alarms, controls"),
    "top": Command("top", "see all stages on the terminal, live"),
    "workflow": Command("workflow", "run, check or draw a whole chain from one file"),
    "template": Command("template", "fill in a template of a workflow, in a form, and run it"),
    "create-project": Command("create_project", "make a project from a workflow file"),
    "schedule-project": Command("schedule_project", "run the protocols of a project"),
    "stop-project": Command("stop_project", "end the run of a project in order"),
    "project": Command("projects", "list, show and resume projects"),
    "buffer": Command("buffer", "keep the newest pulses of a stream, and give them out"),
    "bsread-sim": Command("bsread_sim", "send bsread messages as a beamline's sources do"),
    "writer": Command("bsread_writer", "write the pulses that are asked for over REST"),
    "writer-client": Command("writer_client", "start and stop a writer, and see how it stands"),
    "demo": Command("demo", "see a whole stream at work on this machine"),
    "preflight": Command("preflight", "measure which rate is possible, and with which options"),
    "demo-writer": Command(
        "demo_writer", "see a simulator, a buffer and a writer at work on this machine"
    ),
    "doctor": Command("doctor", "look at the installation, the network settings and a channel"),
    "new-processor": Command("new_processor", "write a processor and its test to start from"),
    "try": Command("try_processor", "run a processor over frames of a file, without a network"),
    "keygen": Command("keygen", "make a pair of keys for encrypting or signing a stream"),
    "completion": Command(
        "completion", "print what makes bash, zsh or tcsh complete these commands"
    ),
}


def usage() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROG} [-h] [-v] COMMAND …",
            "",
            "Distributed, real-time streaming of detector data over EPICS PVAccess.",
            "",
            "commands:",
            *lines,
            "",
            f"{PROG} COMMAND -h tells the options of a command.",
            "",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; returns its exit code, 2 if unknown."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "-h"
    if name in ("-h", "--help", "help"):
        sys.stdout.write(usage())
        return 0
    if name in ("-v", "--version"):
        from pvapy_stream import __version__

        sys.stdout.write(f"{PROG} {__version__}\n")
        return 0
    command = COMMANDS.get(name)
    if command is None:
        sys.stderr.write(f"error: {_unknown(name)}\n")
        return 2
    return importlib.import_module(f"pvapy_stream.cli.{command.module}").main(arguments[1:])


def _unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"commands are {', '.join(COMMANDS)}"
    what = "option" if name.startswith("-") else "command"
    return f"{PROG} has no {what} {name!r}; {hint}"


if __name__ == "__main__":
    sys.exit(main())
