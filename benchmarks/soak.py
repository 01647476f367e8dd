"""``python -m benchmarks.soak [--seconds S] [--size N]``: the chain over shared memory for long.

Simulator, consumer and consumer at 80 % of the highest rate; every frame is accounted for by the
audit, and memory must be flat. Exits with 1 when something is lost, late or growing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chain import PASS_THROUGH, unpaced_flow
from benchmarks.run import OURS, ROOT, Child, Consumer, Simulator, channel
from benchmarks.table import Row, facts, show
from benchmarks.watched import Stage

_PART = 0.8  # of the highest rate
_PROBE = 4.0  # s
_WARM = 0.1  # of the time; memory may grow that long
_GROWTH = 4.0  # MB, and the frames that may wait in a stage
_WAITING = 64
_PERIOD = 5.0  # s
_MB = 1e6


def main() -> int:
    """Run it; 1 when a row's target is not met."""
    parser = argparse.ArgumentParser("python -m benchmarks.soak", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=600, help="how long (default: %(default)g)"
    )
    parser.add_argument("--size", type=int, default=512, help="rows and columns (default: 512)")
    options = parser.parse_args()
    first = unpaced_flow(options.size, 10_000, PASS_THROUGH[OURS], 2).rate
    highest = unpaced_flow(options.size, int(first * _PROBE), PASS_THROUGH[OURS], 2).rate
    print(
        f"highest rate {highest:.0f} frames/s; {options.seconds:g} s at {_PART:g} of it", flush=True
    )
    with tempfile.TemporaryDirectory(prefix="bench-soak-") as folder:
        rows = _soak(options.size, _PART * highest, options.seconds, Path(folder))
    show(rows)
    print(f"\n{facts(False)}")
    return 0 if all(row.met for row in rows) else 1


def _soak(size: int, rate: float, seconds: float, folder: Path) -> list[Row]:
    ledgers = [folder / f"{name}.json" for name in ("sim", "first", "second")]
    name = channel("soak")
    with Stage(Consumer, name, "shm", "-sqs", 0, "--ledger", ledgers[1]) as first:
        with Stage(
            Consumer, first.program.output, "shm", "-sqs", 0, "--ledger", ledgers[2]
        ) as second:
            statuses = ",".join(stage.status for stage in (first, second))
            with Simulator(
                OURS, "-om", "shm", "-fps", rate, "-rt", seconds, "--wait-for-stages", statuses,
                "--ledger", ledgers[0], size=size, name=name,
            ) as simulator:  # fmt: skip
                programs = [simulator, first.program, second.program]
                growth = _growth(programs, seconds)
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
    limit = _GROWTH + _WAITING * size * size / _MB
    return [
        Row(f"{what}: published", "frames", published, None, "", True),
        Row(f"{what}: rate", "frames/s", reached, None, f">= 0.95 x {rate:.0f}",
            reached >= 0.95 * rate),
        Row(f"{what}: lost", "frames", lost, None, "0", lost == 0),
        Row(f"{what}: exit code of the audit", "", audit.returncode, None, "0",
            not audit.returncode),
        *(
            Row(f"{what}: growth of the {role} after a tenth", "MB", more, None, f"<= {limit:.0f}",
                more <= limit)
            for role, more in zip(
                ("simulator", "first consumer", "second consumer"), growth, strict=True
            )
        ),
    ]  # fmt: skip


def _growth(programs: Sequence[Child], seconds: float) -> list[float]:
    """MB of its own that each grows between a tenth of the time and its end."""
    start = time.monotonic()
    early: list[int] = []
    late = [0] * len(programs)
    while (now := time.monotonic() - start) < seconds and not programs[0].ended:
        time.sleep(min(_PERIOD, seconds / 20))
        late = [one.private() for one in programs]
        if now >= _WARM * seconds and not early:
            early = late
    return [(after - before) / _MB for before, after in zip(early, late, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
