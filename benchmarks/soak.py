"""``python -m benchmarks.soak [--seconds S] [--size N] [--kill-every S]``: shared memory for long.

Simulator, consumer and consumer at 80 % of the highest rate; every frame is accounted for by the
audit, and memory must be flat. Beside them, two more stages are killed (SIGKILL) in turns while
they hold payloads, and are started again, at 10 % of the highest rate; nothing may be left in
`/dev/shm` at the end. Exits with 1 when something is lost, late, growing or left.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.chain import PASS_THROUGH, unpaced_flow
from benchmarks.run import OURS, ROOT, Child, Consumer, Simulator, channel
from benchmarks.table import Row, facts, show
from benchmarks.victims import Victims
from benchmarks.watched import Stage
from chaos.left import shared_memory
from chaos.namespaces import namespaces

_PART, _PART_WITH_KILLS = 0.8, 0.1  # of the highest rate
_PROBE = 4.0  # s
_WARM = 0.1  # of the time; memory may grow that long
_GROWTH = 4.0  # MB, and the frames that may wait in a stage
_WAITING = 64
_PERIOD = 5.0  # s
_MB = 1e6
# Frames by which shared memory may grow: pools of a stage that was killed, and of its successor.
_SHARED = 2 * 64
_SHM = Path("/dev/shm")
# A /dev/shm of this run alone.
_MOUNT = 'mount -t tmpfs -o mode=1777 tmpfs /dev/shm && exec "$@"'
_PRIVATE = "SOAK_PRIVATE"


def main() -> int:
    """Run it; 1 when a row's target is not met."""
    parser = argparse.ArgumentParser("python -m benchmarks.soak", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=600, help="how long (default: %(default)g)"
    )
    parser.add_argument("--size", type=int, default=512, help="rows and columns (default: 512)")
    parser.add_argument(
        "--kill-every", type=float, default=20, metavar="S",
        help="time between two kills, s; 0: none (default: %(default)g)",
    )  # fmt: skip
    options = parser.parse_args()
    private = bool(os.environ.get(_PRIVATE))
    if not private and (words := namespaces()):
        return subprocess.run(
            [*words, "sh", "-c", _MOUNT, "sh", sys.executable, "-m", "benchmarks.soak",
             *sys.argv[1:]],
            env={**os.environ, _PRIVATE: "1"}, check=False,
        ).returncode  # fmt: skip
    if not private:
        print(
            "file systems cannot be mounted: others use /dev/shm too, so what is left there is not"
            " looked at",
            flush=True,
        )
    first = unpaced_flow(options.size, 10_000, PASS_THROUGH[OURS], 2).rate
    highest = unpaced_flow(options.size, int(first * _PROBE), PASS_THROUGH[OURS], 2).rate
    part = _PART_WITH_KILLS if options.kill_every else _PART
    print(
        f"highest rate {highest:.0f} frames/s; {options.seconds:g} s at {part:g} of it", flush=True
    )
    with tempfile.TemporaryDirectory(prefix="bench-soak-") as folder:
        rows = _soak(
            options.size, part * highest, options.seconds, options.kill_every, Path(folder)
        )
    if private:
        left = shared_memory()
        print(*left, sep="\n")
        rows.append(Row("left in /dev/shm", "files", len(left), None, "0", not left))
    show(rows)
    print(f"\n{facts(False)}")
    return 0 if all(row.met for row in rows) else 1


def _soak(size: int, rate: float, seconds: float, period: float, folder: Path) -> list[Row]:
    ledgers = [folder / f"{name}.json" for name in ("sim", "first", "second")]
    name = channel("soak")
    with ExitStack() as programs:
        add = programs.enter_context
        first = add(Stage(Consumer, name, "shm", "-sqs", 0, "--ledger", ledgers[1]))
        second = add(
            Stage(Consumer, first.program.output, "shm", "-sqs", 0, "--ledger", ledgers[2])
        )
        victims = add(Victims(name, period)) if period else None
        statuses = ",".join(stage.status for stage in (first, second))
        simulator = add(
            Simulator(
                OURS, "-om", "shm", "-fps", rate, "-rt", seconds, "--wait-for-stages", statuses,
                "--ledger", ledgers[0], size=size, name=name,
            )
        )  # fmt: skip
        watched = [simulator, first.program, second.program]
        growth = _growth(watched, victims, seconds)
        published, reached = simulator.rate(60)
        processed = [stage.finish()[0] for stage in (first, second)]
    audit = subprocess.run(
        [sys.executable, "-m", "pvapy_stream.cli.main", "audit", "--strict", *map(str, ledgers)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if audit.returncode:
        print(audit.stdout, audit.stderr)
    what = f"soak of {seconds:g} s, {size}x{size} over shm"
    lost = published - processed[-1]
    frame = size * size / _MB
    limits = [*[_GROWTH + _WAITING * frame] * len(watched), _SHARED * frame]
    return [
        Row(f"{what}: published", "frames", published, None, "", True),
        Row(f"{what}: rate", "frames/s", reached, None, f">= 0.95 x {rate:.0f}",
            reached >= 0.95 * rate),
        Row(f"{what}: lost", "frames", lost, None, "0", lost == 0),
        Row(f"{what}: exit code of the audit", "", audit.returncode, None, "0",
            not audit.returncode),
        *_of_victims(what, victims),
        *(
            Row(f"{what}: growth of {role} after a tenth", "MB", more, None, f"<= {limit:.0f}",
                more <= limit)
            for role, more, limit in zip(
                ("the simulator", "the first consumer", "the second consumer", "/dev/shm"),
                growth, limits, strict=True,
            )
        ),
    ]  # fmt: skip


def _of_victims(what: str, victims: Victims | None) -> list[Row]:
    if victims is None:
        return []
    return [
        Row(f"{what}: stages killed", "", victims.kills, None, ">= 1", victims.kills > 0),
        Row(f"{what}: of them without a frame", "", victims.idle, None, "0", not victims.idle),
        Row(f"{what}: of them ended before", "", victims.died, None, "0", not victims.died),
    ]


def _growth(programs: Sequence[Child], victims: Victims | None, seconds: float) -> list[float]:
    """MB that each program and shared memory grow between a tenth of the time and its end."""
    start = time.monotonic()
    early: list[int] = []
    late = [0] * (len(programs) + 1)
    while (now := time.monotonic() - start) < seconds and not programs[0].ended:
        time.sleep(min(_PERIOD, seconds / 20))
        if victims is not None:
            victims.look()
        late = [*(one.private() for one in programs), _shared()]
        if now >= _WARM * seconds and not early:
            early = late
    return [(after - before) / _MB for before, after in zip(early, late, strict=True)]


def _shared() -> int:
    """Shared memory that is in use, bytes."""
    found = os.statvfs(_SHM)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


if __name__ == "__main__":
    sys.exit(main())
