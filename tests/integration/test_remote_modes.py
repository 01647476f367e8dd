"""PVAS to PVA, PVA to PVAS and RPC to RPC, with the incumbent's consumer at either end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.in_process import call
from tests.support import (
    Commands,
    Source,
    rounds,
    status,
    wait_for_monitors,
    wait_until,
    write_processor,
)

N = 60

# What a user of the incumbent writes to receive images that others put.
RECEIVING = """
import pvaccess as pva
from pvapy.hpc.userDataProcessor import UserDataProcessor

class Receiving(UserDataProcessor):
    def __init__(self, configDict={}):
        UserDataProcessor.__init__(self, configDict)
    def getInputPvObjectType(self):
        return pva.NtNdArray()
    def process(self, pvObject):
        self.updateOutputChannel(pvObject)
        return pvObject
"""


class Incumbent:
    """The incumbent's consumer as a user starts it."""

    def __init__(self, *args: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pvapy.cli.hpcConsumer", *map(str, args), "-dc", "-rp", "0.5"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            env=os.environ,
        )

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)


def both(who: str, first: list[Any], second: list[Any], commands: Commands) -> Any:
    """Start the two stages of a chain, the one named `who` as the incumbent's program."""
    incumbent = Incumbent(*(second if who == "last" else first))
    ours = commands("consumer", *(first if who == "last" else second))
    return incumbent, ours


# The incumbent monitors, puts and calls; the other half with make test-more.
@pytest.mark.parametrize(
    ("out", "into", "who"),
    [
        ("pvas", "pva", "last"),
        ("pva", "pvas", "first"),
        ("rpc", "rpc", "first"),
        ("pvas", "pva", "first"),
        ("pva", "pvas", "last"),
        ("rpc", "rpc", "last"),
    ][: rounds(3)],
)
def test_chains_with_the_incumbent(
    prefix: str,
    source: Source,
    commands: Commands,
    tmp_path: Path,
    out: str,
    into: str,
    who: str,
) -> None:
    middle, file = f"{prefix}middle", write_processor(tmp_path, RECEIVING)
    processor = ["-pf", file, "-pc", "Receiving", "-siu", "0"]
    first = ["-ic", source.channel, "-oc", middle, "-om", out, "-sc", f"{prefix}s1", "-sqs", "200"]
    second = ["-ic", middle, "-im", into, "-sc", f"{prefix}s2", "-sqs", "200"]
    incumbent, ours = both(who, [*first, *processor], [*second, *processor], commands)
    try:
        wait_for_monitors([f"{prefix}s1"])

        def arrives() -> bool:
            # What is put or called before the other side is there is lost, after a time-out: one
            # after the other, or they would fill the queue, and what follows would be dropped.
            before = status(f"{prefix}s1")["receiverStats"]["nReceived"]
            source.publish([0])
            wait_until(lambda: status(f"{prefix}s1")["receiverStats"]["nReceived"] > before)
            return status(f"{prefix}s2")["receiverStats"]["nReceived"] > 0

        wait_until(arrives, what="a first object at the second stage")
        source.publish(range(1, N + 1), period=0.01)
        counts = wait_until(
            lambda: (s := status(f"{prefix}s2")["processorStats"])["lastObjectId"] == N and s
        )
        assert counts["nProcessed"] >= N
        assert counts["nMissed"] == 0
        if who == "last":
            wait_until(lambda: status(f"{prefix}s1")["publisherStats"]["nPublished"] >= N)
        ours.signal()
        assert ours.wait() == 0, ours.text
    finally:
        incumbent.close()


def test_errors_of_a_remote_side_are_counted_retried_and_shown(
    prefix: str, source: Source, commands: Commands
) -> None:
    middle = f"{prefix}middle"
    first = commands(
        "consumer", "-ic", source.channel, "-oc", middle, "-om", "pva", "-sc", f"{prefix}s1",
        "-sqs", "500", "--remote-timeout", "0.3",
    )  # fmt: skip
    wait_for_monitors([f"{prefix}s1"])
    source.publish(range(1, 6))
    shown = wait_until(lambda: (s := status(f"{prefix}s1"))["publisherStats"]["nErrors"] >= 2 and s)
    assert f"cannot put to channel {middle}" in shown["message"]
    second = commands("consumer", "-ic", middle, "-im", "pvas", "-sc", f"{prefix}s2")
    wait_until(lambda: status(f"{prefix}s2"))

    def arrives() -> bool:
        source.publish([100, 101])
        return bool(status(f"{prefix}s2")["processorStats"]["nProcessed"])

    wait_until(arrives)
    first.signal()
    # Objects that could not be sent make the run no success.
    assert first.wait() == 1, first.text
    second.signal()
    assert second.wait() == 0, second.text


def test_two_consumers_do_not_host_the_same_channel() -> None:
    done = call("consumer", "-ic", "same", "-im", "pvas", "-nc", 2)
    assert done.code == 2
    assert "write it like same:*" in done.text
