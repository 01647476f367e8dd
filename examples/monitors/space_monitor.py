"""A monitor of one's own: reports when the free space of a disk is too little, and enough again.

    python examples/monitors/space_monitor.py --path /data --min-free 50
    python examples/monitors/space_monitor.py --path /data --min-free 50 --interval 60 --time 480 \
        --email-to me@home.org --smtp-server mail.lab.org

Each step writes a line to a table with tabs. `pvapy-stream monitor disk` does this and more; here
it is shown how little a monitor needs: a `step`, and `notify`.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

from pvapy_stream.monitor import Alarm, EmailNotifier, Monitor, Notifier, parse_rule

GB = 2**30
TABLE = "space.txt"


class SpaceMonitor(Monitor):
    """Watches the free space of one disk.

    Args:
        path: a path on the disk.
        min_free: GB (2^30 bytes); less is reported.
        options: as `Monitor` takes them: workingDir, samplingInterval (s), monitorTime (min), …
    """

    def __init__(self, path: str, min_free: float, **options: Any) -> None:
        super().__init__(**options)
        self.path = path
        # It is good again only when there is one percent more: no message for every byte.
        self.alarm = Alarm(parse_rule(f"free < {min_free} clear {1.01 * min_free}"), path)

    def initLoop(self) -> None:
        """Begin the table."""
        self.table = Path(self.workingDir) / TABLE
        self.table.write_text("time\ttotal_gb\tused_gb\tfree_gb\n", encoding="utf-8")

    def step(self) -> bool:
        """Write a line, and report what is new; True would end the loop."""
        total, used, free = (value / GB for value in shutil.disk_usage(self.path))
        with self.table.open("a", encoding="utf-8") as table:
            table.write(f"{time.time():.0f}\t{total:.3f}\t{used:.3f}\t{free:.3f}\n")
        alarm = self.alarm.update(free, self.clock.now())
        if alarm:
            word = {"enter": "is low", "leave": "is enough again", "repeat": "is still low"}[
                alarm[0]
            ]
            self.notify(f"Space on {self.path} {word}", f"{free:.1f} GB of {total:.1f} GB are free")
        return False


def main() -> None:
    """Watch until the time is over."""
    parser = argparse.ArgumentParser(description="Watch the free space of a disk.")
    parser.add_argument("--path", default=".", help="a path on the disk [default: here]")
    parser.add_argument("--min-free", type=float, required=True, help="GB")
    parser.add_argument("--interval", type=float, default=60, help="s [default 60]")
    parser.add_argument("--time", type=float, default=0, help="min; 0: for ever [default 0]")
    parser.add_argument("--working-dir", default=".", help="for the table [default: here]")
    parser.add_argument("--email-to", help="send mail to this address too")
    parser.add_argument("--email-from", default="", help="sender")
    parser.add_argument("--smtp-server", default="localhost", help="[default localhost]")
    parser.add_argument("--smtp-port", type=int, default=25, help="[default 25]")
    options = parser.parse_args()
    email: Notifier | None = None
    if options.email_to:
        email = EmailNotifier(
            [options.email_to], options.email_from, options.smtp_server, options.smtp_port
        )
    SpaceMonitor(
        options.path,
        options.min_free,
        workingDir=options.working_dir,
        samplingInterval=options.interval,
        monitorTime=options.time,
        email=email,
        stdout=True,
    ).loop()


if __name__ == "__main__":
    main()
