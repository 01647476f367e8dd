"""``python -m chaos``: the campaign."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from chaos.campaign import Outcome, one_run, table, write_table
from chaos.plan import KINDS


def main() -> int:
    """Run the campaign; 1 if there was a violation."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=60, help="number of runs")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first run")
    parser.add_argument("--kind", default="", choices=("", *KINDS), help="faults of one kind only")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--table", type=Path, help="page to put the table into")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.runs)
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for outcome in pool.map(one_run, seeds, [options.kind] * len(seeds)):
            outcomes.append(outcome)
            if outcome.violations:
                sys.stdout.write(f"{outcome.plan}\n  in {outcome.folder}\n")
                sys.stdout.writelines(f"  VIOLATION: {one}\n" for one in outcome.violations)
                sys.stdout.flush()
    text = table(outcomes)
    sys.stdout.write(f"\n{text}\n")
    if options.table:
        write_table(options.table, text)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
