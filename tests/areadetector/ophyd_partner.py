"""Captures images with ophyd's HDF5 plugin, over Channel Access; prints a line of JSON."""

from __future__ import annotations

import json
import sys

from ophyd.areadetector.plugins import HDF5Plugin_V34
from ophyd.status import SubscriptionStatus


def main() -> None:
    prefix, folder, name, count = sys.argv[1:]
    plugin = HDF5Plugin_V34(prefix, name="hdf")
    plugin.file_write_mode.set("Stream").wait(60)
    plugin.file_path.set(f"{folder}/").wait(60)
    plugin.file_template.set("%s%s.h5").wait(60)
    plugin.file_name.set(name).wait(60)
    plugin.num_capture.set(int(count)).wait(60)
    plugin.auto_save.set("No").wait(60)
    plugin.capture.set(1).wait(60)
    done = SubscriptionStatus(plugin.num_captured, lambda value, **_: value == int(count))
    done.wait(100)
    over = SubscriptionStatus(plugin.capture, lambda value, **_: value == 0)
    over.wait(60)
    said = {
        "captured": plugin.num_captured.get(),
        "file": plugin.full_file_name.get(),
        "status": plugin.write_status.get(as_string=True),
        "capturing": plugin.capture.get(),
    }
    sys.stdout.write(f"{json.dumps(said)}\n")


if __name__ == "__main__":
    main()
