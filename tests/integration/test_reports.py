"""What status channels, replies and reports say in mid-run fits together and is bounded."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pvaccess as pva
import pytest

from tests.support import (
    Commands,
    Source,
    command,
    get,
    status,
    wait_for_monitors,
    wait_until,
    write_processor,
)

LONG = """
from pvapy_stream import UserDataProcessor

class Long(UserDataProcessor):
    def configure(self, configDict):
        raise ValueError('a' + 'é' * 5000)
    def process(self, pvObject):
        raise ValueError('a' + 'é' * 5000)
"""
SLOW = """
import time
from pvapy_stream import UserDataProcessor

class Slow(UserDataProcessor):
    def process(self, pvObject):
        self.updateOutputChannel(pvObject)
        time.sleep(0.002)
    def getStats(self):
        # Time for a reset to come in between.
        time.sleep(0.05)
"""
HANGING = """
import os, time
from pvapy_stream import UserDataProcessor

class Hanging(UserDataProcessor):
    def __init__(self, configDict):
        super().__init__(configDict)
        self.flag = configDict["while"]
    def process(self, pvObject):
        while os.path.exists(self.flag):
            time.sleep(0.02)
"""


def inconsistencies(stats: dict[str, Any]) -> list[str]:
    """What cannot be true at one moment."""
    queue, processor = stats["queueStats"], stats["processorStats"]
    received = stats["receiverStats"]["nReceived"]
    handled = processor["nProcessed"] + processor["nFiltered"] + processor["nErrors"]
    rules = {
        "received": handled <= received,
        "queue": queue["nReceived"] <= received,
        "delivered": handled <= queue["nDelivered"],
        "sum": queue["nReceived"] == queue["nDelivered"] + queue["nQueued"],
        "published": processor["nProcessed"] <= stats["publisherStats"]["nPublished"] <= received,
    }
    return [f"{name}: {stats}" for name, holds in rules.items() if not holds]


@pytest.mark.parametrize("queue", ["-1", "0", "20"])
def test_a_status_in_mid_run_is_consistent(
    prefix: str, source: Source, commands: Commands, tmp_path: Path, queue: str
) -> None:
    file = write_processor(tmp_path, SLOW)
    channel = f"{prefix}status"
    program = commands(
        "consumer", "-ic", source.channel, "-oc", f"{prefix}out", "-sc", channel, "-pf", file,
        "-pc", "Slow", "-rqs", queue, "-sqs", "1000", "-cc", f"{prefix}control",
        "--status-period", "0.02",
    )  # fmt: skip
    wait_for_monitors([channel])
    wrong: list[str] = []
    seen: list[int] = []
    every = threading.Event()

    def look(stats: Any) -> None:
        wrong.extend(inconsistencies(stats.get()))
        seen.append(stats["processorStats"]["nProcessed"])
        if len(seen) > 40:
            every.set()

    watch = pva.Channel(channel)
    watch.monitor(look, "field()")
    try:
        sending = threading.Thread(target=source.publish, args=(range(1, 601), 0.003))
        sending.start()
        for _ in range(5):
            # What waits in the queue was received before the counts began anew.
            assert command(f"{prefix}control", "reset_stats") == "Stats reset successful"
        sending.join(60)
        source.publish(range(601, 701), period=0.001)
        assert every.wait(60)
        wait_until(lambda: status(channel)["objectId"] > 650)
    finally:
        watch.stopMonitor()
    assert wrong == []
    program.signal()
    assert program.wait() == 0, program.text


def test_messages_are_bounded_and_stay_text(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = write_processor(tmp_path, LONG)
    program = commands(
        "consumer", "-ic", source.channel, "-sc", f"{prefix}status", "-pf", file, "-pc", "Long",
        "-cc", f"{prefix}control", "-sqs", "100",
    )  # fmt: skip
    wait_for_monitors([f"{prefix}status"])
    reply = command(f"{prefix}control", "configure", "{}")
    assert 1000 < len(reply.encode()) <= 1024
    assert reply.endswith("éé…")
    source.publish(range(1, 3))
    message = wait_until(lambda: get(f"{prefix}status", "message"))
    assert 1000 < len(message.encode()) <= 1024
    assert message.endswith("éé…")
    program.signal()
    assert program.wait() == 1


def test_a_reset_while_process_hangs_is_refused_in_time_and_the_status_goes_on(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = write_processor(tmp_path, HANGING)
    flag = tmp_path / "hangs"
    flag.touch()
    channel, control = f"{prefix}status", f"{prefix}control"
    program = commands(
        "consumer", "-ic", source.channel, "-sc", channel, "-pf", file, "-pc", "Hanging",
        "-pa", json.dumps({"while": str(flag)}), "-cc", control, "-rqs", "100",
        "--status-period", "0.1",
    )  # fmt: skip
    wait_for_monitors([channel])
    source.publish(range(1, 6))
    wait_until(lambda: "process() has not returned" in status(channel)["message"])
    for name, kept in (("reset_stats", "statistics are not reset"), ("configure", "nothing is")):
        reply = command(control, name, "{}" if name == "configure" else "")
        assert reply.startswith(f"Error: {kept}")
        assert "process() has not returned for 4 s; give the command again" in reply
    # Commands that need nothing of the processor are taken, and the status goes on.
    assert command(control, "pause") == "Paused"
    wait_until(lambda: status(channel)["state"] == "paused")
    assert status(channel)["queueStats"]["nQueued"] == 4
    flag.unlink()
    assert command(control, "resume") == "Resumed"
    wait_until(lambda: status(channel)["processorStats"]["nProcessed"] == 5)
    # Nothing was set back: the object that the channel was opened with is among them.
    assert status(channel)["receiverStats"]["nReceived"] == 6
    assert command(control, "reset_stats") == "Stats reset successful"
    assert status(channel)["receiverStats"]["nReceived"] == 0
    program.signal()
    assert program.wait() == 0, program.text
