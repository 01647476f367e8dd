"""``python -m benchmarks [NAME…] [--quick] [--write FILE]``."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.plots import Plot, save
from benchmarks.table import Row, facts, section, show, write

TOPICS = (
    "build",
    "consumer",
    "rates",
    "chain",
    "batches",
    "policies",
    "repair",
    "flatness",
    "tuning",
    "simulator",
    "replay",
    "startup",
    "memory",
    "collector",
    "encryption",
    "files",
    "monitoring",
    "bsread",
    "writer",
    "workflow",
)


def _terminate(*_: Any) -> None:
    # As an exception, so that every process that was started is ended on the way out.
    raise SystemExit(143)


def main() -> int:
    """Run the benchmarks; 1 when one could not be measured, whatever became of the targets."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(TOPICS)}")
    parser.add_argument(
        "--quick", action="store_true", help="one short round of each: for a look only"
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="renew the figures in this Markdown file, and curves in plots/ beside it",
    )
    options = parser.parse_args()
    unknown = set(options.names) - set(TOPICS)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(TOPICS)}")
    # Children inherit how signals stand: an ignored SIGINT (a job of a shell) would not stop them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    sections: dict[str, str] = {}
    plots: list[Plot] = []
    failed = 0
    start = time.monotonic()
    for name in TOPICS:
        if options.names and name not in options.names:
            continue
        began = time.monotonic()
        try:
            found = importlib.import_module(f"benchmarks.{name}").run(options.quick)
        except Exception as error:  # the other benchmarks are still worth having
            failed += 1
            print(f"error: {name}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        new = [one for one in found if isinstance(one, Row)]
        sections[name] = section(name, new, facts(options.quick))
        plots += [one for one in found if isinstance(one, Plot)]
        print(f"\n{name} ({time.monotonic() - began:.0f} s)\n")
        show(new)
    print(f"\n{facts(options.quick)}\nAll in {time.monotonic() - start:.0f} s.")
    if options.write and sections:
        write(options.write, sections, TOPICS)
        drawn = save(plots, options.write.parent / "plots") if plots else []
        print(f"Written to {', '.join(map(str, [options.write, *drawn]))}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
