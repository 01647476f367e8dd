"""``python -m chaos``: random chains and faults; truth is read from the pixels of the files."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from chaos.chain import KINDS, plan
from chaos.namespaces import namespaces
from chaos.programs import MARK, left_of
from chaos.table import Outcome, check, table, write
from pvapy_stream.pva.net.environment import LOOPBACK

_LIMIT = 300.0  # s; of one run
_ROOT = Path(__file__).parent.parent


def main() -> int:
    """Run the campaign; 1 if there was a violation."""
    options = _parser().parse_args()
    kinds = _kinds(options.kinds)
    if options.table:
        check(options.table)
    private = namespaces()
    say = sys.stdout.write
    if not private:
        say(
            "file systems cannot be mounted: shared memory is not looked at, and full disks are"
            " tried by the limit for files\n"
        )
    outcomes: list[Outcome] = []
    began = time.monotonic()
    pool = ThreadPoolExecutor(options.jobs)
    try:
        for future in as_completed(
            pool.submit(_one, seed, kinds, private, options.keep)
            for seed in range(options.seed, options.seed + options.runs)
        ):
            outcomes.append(future.result())
            _show(outcomes[-1], options.verbose)
    except KeyboardInterrupt:
        # The table of what was done up to here.
        say("interrupted; runs that have begun are finished\n")
    finally:
        pool.shutdown(cancel_futures=True)
    text = table(outcomes)
    say(f"\n{text}\n{time.monotonic() - began:.0f} s\n")
    if options.table:
        write(options.table, text)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


def _kinds(text: str) -> tuple[str, ...]:
    """The kinds of a list of names and patterns."""
    found: list[str] = []
    for pattern in text.split(","):
        kinds = fnmatch.filter(KINDS, pattern)
        if not kinds:
            raise SystemExit(f"no kind {pattern}; there are {', '.join(KINDS)}")
        found += kinds
    return tuple(dict.fromkeys(found))


def _one(seed: int, kinds: tuple[str, ...], private: list[str], keep: bool) -> Outcome:
    """Do one run in a process of its own."""
    made = plan(seed, kinds)
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    ports = _free_ports(6)
    env = {
        **os.environ, **LOOPBACK, MARK: folder.name, "EPICS_PVA_BROADCAST_PORT": ports[0],
        "EPICS_CA_SERVER_PORT": ports[1], "EPICS_CA_REPEATER_PORT": ports[2],
        "CHAOS_PORTS": " ".join(ports[3:]), "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH")))),
    }  # fmt: skip
    words = [sys.executable, "-m", "chaos.run", str(seed), made.kind, str(folder)]
    if private:
        words = [*private, *words, "--private"]
    text, gone, starts, repaired = "", 0, 0, 0
    try:
        done = subprocess.run(
            words, env=env, cwd=_ROOT, capture_output=True, text=True, timeout=_LIMIT, check=False
        )
        text = done.stderr[-500:]
        found = json.loads((folder / "outcome.json").read_text())
        violations = tuple(found["violations"])
        gone, starts = int(found["gone"]), int(found["starts"])
        repaired = int(found["repaired"])
    except subprocess.TimeoutExpired:
        violations = (f"the run did not end within {_LIMIT:g} s",)
    except (OSError, ValueError):
        violations = (f"the run gave no outcome: {text}",)
    finally:
        # Of a run that was ended by force.
        for process in left_of(folder.name):
            process.kill()
    if violations or keep:
        return Outcome(made, violations, gone, str(folder), starts, repaired)
    shutil.rmtree(folder, ignore_errors=True)
    return Outcome(made, (), gone, starts=starts, repaired=repaired)


def _show(outcome: Outcome, verbose: bool) -> None:
    if not outcome.violations and not verbose:
        return
    gone = f"; {outcome.gone} frames gone" if outcome.gone else ""
    if outcome.repaired:
        gone += f"; {outcome.repaired} frames repaired"
    lines = [f"{'VIOLATION' if outcome.violations else 'clean'}: {outcome.plan}{gone}"]
    lines += [f"    {one}" for one in outcome.violations]
    if outcome.folder:
        lines += [f"    again: {outcome.plan.command}", f"    files: {outcome.folder}"]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _free_ports(n: int) -> list[str]:
    """Ports that are free for TCP and UDP, below those that the system hands out by itself."""
    found: list[str] = []
    for port in random.SystemRandom().sample(range(12000, 32000), 500):
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        found.append(str(port))
        if len(found) == n:
            return found
    raise RuntimeError("no free ports")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=60, help="number of runs [%(default)s]")
    parser.add_argument("--seed", type=int, default=1, help="of the first run [%(default)s]")
    parser.add_argument("--kinds", default=",".join(KINDS), metavar="LIST",
                        help="kinds of runs to choose from, also as patterns such as '*+repair'"
                        " [all: %(default)s]")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side [%(default)s]")
    parser.add_argument("--table", type=Path, metavar="FILE", help="page to put the table into")
    parser.add_argument("--keep", action="store_true", help="keep the files of clean runs too")
    parser.add_argument("--verbose", action="store_true", help="report clean runs too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
