"""Streams from end to end: start order, metadata, CA, chains, run time."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pvaccess as pva
import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from tests.support import (
    Commands,
    Ioc,
    Source,
    get,
    status,
    wait_for_monitors,
    wait_until,
    write_processor,
)


def test_a_source_that_comes_late_loses_nothing(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    """Consumers first, then a second stage's consumer, the source last: every id is processed."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    stages = [
        commands("consumer", "-ic", a, "-oc", b, "-sc", s, "-sqs", "500", "--ledger", file)
        for a, b, s, file in (
            (f"{prefix}mid", f"{prefix}end", f"{prefix}s2", second),
            (f"{prefix}image", f"{prefix}mid", f"{prefix}s1", first),
        )
    ]
    for channel in (f"{prefix}s1", f"{prefix}s2"):
        wait_until(lambda channel=channel: status(channel).get("state") == "waiting")
    # The second client is this test, once both stages have seen the initial object.
    simulator = commands(
        "sim", "-cn", f"{prefix}image", "-nx", "8", "-ny", "8", "-nf", "10", "-fps", "500",
        "--n-publish", "300", "--wait-for-clients", "2", "-shd", "0.5", "-rp", "0",
    )  # fmt: skip
    wait_for_monitors([f"{prefix}s1", f"{prefix}s2"])
    gun = pva.Channel(f"{prefix}image")
    gun.get("field(uniqueId)")
    assert simulator.wait() == 0, simulator.text
    wait_until(lambda: status(f"{prefix}s2")["processorStats"]["nProcessed"] == 300)
    for stage in stages:
        stage.signal(signal.SIGINT)
        assert stage.wait() == 0, stage.text
    for file in (first, second):
        assert str(read_ledgers(file)[0].processed) == "1-300"


POOL = """
from pvapy_stream.hpc.workers import UserMpDataProcessor, UserMpWorkerPool

class Odd(UserMpDataProcessor):
    def process(self, frame):
        if frame.id == 5:
            raise ValueError("five")
        return frame

class Pool(UserMpWorkerPool):
    workerClass = Odd
"""


def test_what_fails_in_a_worker_fails_in_the_account(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.json"
    consumer = commands(
        "consumer", "-ic", source.channel, "-oc", f"{prefix}out", "-sc", f"{prefix}s", "-sqs",
        "100", "-pf", write_processor(tmp_path, POOL), "-pc", "Pool", "--ledger", ledger,
        "--status-period", "0.2",
    )  # fmt: skip
    wait_for_monitors([f"{prefix}s"])
    source.publish(range(1, 11))
    shown = wait_until(
        lambda: (s := status(f"{prefix}s")) and s["publisherStats"]["nPublished"] == 9 and s
    )
    wait_until(lambda: status(f"{prefix}s")["processorStats"]["nErrors"] == 1)
    assert shown["state"] == "running"
    consumer.signal()
    assert consumer.wait() == 1
    assert "object 5: process: ValueError: five" in consumer.text
    account = read_ledgers(ledger)[0]
    assert str(account.processed) == str(account.published) == "1-4,6-10"
    assert {kind: list(ids) for kind, ids in account.failed.items()} == {"process: ValueError": [5]}


SLOW = """
import time
from pvapy_stream import FrameProcessor

class Slow(FrameProcessor):
    def process_frame(self, frame):
        time.sleep(0.02)
        return frame
"""


def test_a_stop_while_an_object_is_processed_and_more_wait(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    """The binding must not lose its channel while it is in our callback."""
    simulator = commands(
        "sim", "-cn", f"{prefix}image", "-nx", "16", "-ny", "16", "-nf", "10", "-fps", "1000",
        "-rt", "30", "--wait-for-stages", f"{prefix}s", "-shd", "0", "-rp", "0",
    )  # fmt: skip
    consumer = commands(
        "consumer", "-ic", f"{prefix}image", "-oc", f"{prefix}out", "-sc", f"{prefix}s",
        "-pf", write_processor(tmp_path, SLOW), "-pc", "Slow", "--status-period", "0.2",
    )  # fmt: skip
    wait_until(lambda: status(f"{prefix}s")["processorStats"]["nProcessed"] > 20)
    consumer.signal()
    assert consumer.wait() == 0, consumer.text
    assert "nProcessed" in consumer.text
    simulator.signal()
    simulator.wait()


def test_a_source_that_restarts_is_followed_and_its_first_object_is_skipped(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.json"
    consumer = commands(
        "consumer", "-ic", f"{prefix}image", "-sc", f"{prefix}s", "-sqs", "100", "--ledger", ledger
    )
    received = 0
    for expected in (20, 40):
        source = Source(f"{prefix}image")
        wait_until(
            lambda received=received: status(f"{prefix}s")["receiverStats"]["nReceived"] > received
        )
        source.publish(range(1, 21))
        wait_until(
            lambda expected=expected: (
                status(f"{prefix}s")["processorStats"]["nProcessed"] == expected
            )
        )
        source.close()
        wait_until(lambda: status(f"{prefix}s")["state"] == "disconnected")
        received = status(f"{prefix}s")["receiverStats"]["nReceived"]
    consumer.signal()
    assert consumer.wait() == 0, consumer.text
    # The same ids once more are an epoch of their own.
    first, second = read_ledgers(ledger)
    assert str(first.processed) == str(second.processed) == "1-20"
    # A server that removes a record tells its clients first: a quick one may see it once more.
    assert str(first.skipped) in ("0", "0,20")
    assert str(second.skipped) == "0"


METADATA = """
import pvaccess as pva
import pytest
from pvapy_stream import UserDataProcessor

class Collect(UserDataProcessor):
    def __init__(self, configDict):
        super().__init__(configDict)
        self.last = {}
    def process(self, pvObject):
        for name, queue in self.metadataQueueMap.items():
            while len(queue):
                self.last[name.split(":")[1]] = queue.get(0)["value"]
    def getStats(self):
        return dict(self.last)
    def getStatsPvaTypes(self):
        return {"x": pva.DOUBLE, "y": pva.DOUBLE}
"""


def test_metadata_channels_fill_queues_of_the_processor(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    for name in ("x", "y"):
        source.server.addRecord(
            f"{prefix}{name}", pva.PvObject({"value": pva.DOUBLE}, {"value": 0.5}), None
        )
    file = write_processor(tmp_path, METADATA)
    consumer = commands(
        "consumer", "-ic", source.channel, "-sc", f"{prefix}s", "-pf", file, "-pc", "Collect",
        "-mc", f"pva://{prefix}x,pva://{prefix}y",
    )  # fmt: skip
    wait_until(
        lambda: all(
            status(f"{prefix}s")[f"metadataStats_{k}"]["queueStats"]["nReceived"] for k in (1, 2)
        )
    )
    for number in range(1, 6):
        for name, value in (("x", number), ("y", -number)):
            source.server.update(
                f"{prefix}{name}", pva.PvObject({"value": pva.DOUBLE}, {"value": float(value)})
            )
        # A server that is quicker than its client may skip values.
        time.sleep(0.05)
    source.publish(range(1, 40), period=0.02)
    wait_until(lambda: status(f"{prefix}s")["userStats"] == {"x": 5.0, "y": -5.0})
    consumer.signal()
    assert consumer.wait() == 0, consumer.text


def test_a_ca_channel_and_ca_metadata(prefix: str, commands: Commands, tmp_path: Path) -> None:
    records = (
        f'record(calc, "{prefix}count") {{ field(CALC, "VAL+1") field(SCAN, ".1 second") '
        f'field(VAL, "0") }}\n'
        f'record(ao, "{prefix}x") {{ field(VAL, "3.5") field(PINI, "YES") }}\n'
    )
    with Ioc(tmp_path, records):
        file = write_processor(tmp_path, METADATA)
        consumer = commands(
            "consumer", "-im", "ca", "-ic", f"{prefix}count", "-of", "value", "-sc", f"{prefix}s",
            "-pf", file, "-pc", "Collect", "-mc", f"{prefix}x",
        )  # fmt: skip
        wait_until(
            lambda: (
                (s := status(f"{prefix}s"))
                and s["processorStats"]["nProcessed"] >= 10
                and s["userStats"]["x"] == 3.5
            )
        )
        stats = status(f"{prefix}s")["processorStats"]
        assert stats["nMissed"] == 0
        assert stats["lastObjectId"] >= stats["firstObjectId"] + 9
        consumer.signal()
        assert consumer.wait() == 0, consumer.text


def test_runtime_ends_the_run_and_the_report_says_what_was_done(
    prefix: str, source: Source, commands: Commands
) -> None:
    started = time.monotonic()
    consumer = commands(
        "consumer", "-ic", source.channel, "-nc", "2", "-sc", f"{prefix}s:*", "-rt", "8",
        "-rp", "0.5", "-rs", "processor",
    )  # fmt: skip
    wait_for_monitors([f"{prefix}s:1", f"{prefix}s:2"])
    source.publish(range(1, 51))
    assert consumer.wait() == 0, consumer.text
    assert 8 <= time.monotonic() - started < 60
    assert "consumer 1: running" in consumer.text
    assert "consumer 2: stopped" in consumer.text
    assert "all: nProcessed 100" in consumer.text
    assert "receiver " not in consumer.text


def test_what_never_came_at_the_end_is_missed(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    """A consumer that cannot keep up with a short server queue knows what it lost at the end."""
    slow = write_processor(
        tmp_path,
        "import time\nfrom pvapy_stream import UserDataProcessor\n"
        "class Slow(UserDataProcessor):\n    def process(self, pvObject):\n"
        "        time.sleep(3 if pvObject['uniqueId'] == 1 else 0)\n",
    )
    ledger = tmp_path / "ledger.json"
    consumer = commands(
        "consumer", "-ic", source.channel, "-sc", f"{prefix}s", "-pf", slow, "-pc", "Slow",
        "--ledger", ledger,
    )  # fmt: skip
    wait_for_monitors([f"{prefix}s"])
    # More than all buffers on the way hold.
    source.publish(range(1, 301), period=0.0002, side=512)
    stats = wait_until(
        lambda: (
            (s := status(f"{prefix}s")["processorStats"])["nProcessed"] + s["nMissed"] == 300 and s
        )
    )
    assert stats["nProcessed"] < 250
    consumer.signal()
    assert consumer.wait() == 0
    (account,) = read_ledgers(ledger)
    assert str(account.processed | account.missed) == "1-300"
    assert get(source.channel, "uniqueId") == 300


@pytest.mark.parametrize("mode", ["pva", "shm"])
def test_a_source_that_ends_waits_for_who_has_not_taken_its_last_frames(
    prefix: str, commands: Commands, tmp_path: Path, mode: str
) -> None:
    """More than the kernel keeps of a connection."""
    channel, file, n = f"{prefix}image", tmp_path / "ledger.json", 40
    consumer = commands(
        "consumer", "-ic", channel, "-im", mode, "-sqs", "500", "-sc", f"{prefix}status",
        "--ledger", file,
    )  # fmt: skip
    source = commands(
        "sim", "-cn", channel, "-om", mode, "-nx", "1024", "-ny", "1024", "-nf", "2", "-fps",
        "1000", "--n-publish", n, "-rt", "0", "--start-delay", "3", "--shutdown-delay", "0",
        "-ll", "info",
    )  # fmt: skip
    wait_for_monitors([f"{prefix}status"])
    consumer.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: f"published {n} frames" in source.text)
        with pytest.raises(AssertionError, match="still running"):
            source.wait(3)
    finally:
        consumer.signal(signal.SIGCONT)
    assert source.wait() == 0, source.text
    wait_until(lambda: status(f"{prefix}status")["processorStats"]["nProcessed"] == n)
    consumer.signal()
    assert consumer.wait() == 0, consumer.text
    (ledger,) = read_ledgers(file)
    assert list(ledger.processed) == list(range(1, n + 1))
