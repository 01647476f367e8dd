"""The measurement before a run, with real streams."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pvapy_stream.preflight import queue_for
from tests.in_process import call
from tests.integration.test_sharing import P4P, Posting
from tests.pva.net.partner import Partner
from tests.support import Commands, write_processor

SLOW = """
import time
from pvapy_stream import FrameProcessor

class Slow(FrameProcessor):
    def process_frame(self, frame):
        time.sleep(0.05)
        return frame
"""


@pytest.mark.parametrize(
    ("rate", "size", "expected"), [(100, 1000, 51), (1e6, 1000, 10_000), (10, 10**9, 2)]
)
def test_queues_bridge_the_pause_within_the_memory(rate: float, size: int, expected: int) -> None:
    assert queue_for(rate, size, 0.5, 10**7) == expected


def test_a_slow_processor_decides_and_a_second_consumer_helps(
    commands: Commands, tmp_path: Path
) -> None:
    file = write_processor(tmp_path, SLOW)
    program = commands(
        "preflight", "-nx", "32", "-ny", "16", "-fps", "22", "-pf", file, "-pc", "Slow",
        "-od", tmp_path, "--seconds", "0.3",
    )  # fmt: skip
    assert program.wait() == 0, program.text
    rates = dict(re.findall(r"^  (.*?)\s+([\d,]+) frames/s", "".join(program.out), re.MULTILINE))
    alone = float(rates["the processor alone"])
    # It sleeps for 50 ms: one consumer is too slow whatever else runs, and two are not.
    assert alone <= 20
    assert 1 < float(rates["one consumer, without loss"]) <= 20
    assert float(rates["2 consumers, without loss"]) == 22
    assert re.search(r"-nc 2 -dg share -dt uniqueId -sqs \d+", program.text)
    assert float(rates["the disk alone"].replace(",", "")) > 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["processor.py"]


def test_a_rate_that_cannot_be_reached_from_a_source_without_a_distributor(
    prefix: str, tmp_path: Path
) -> None:
    file = write_processor(tmp_path, SLOW)
    server = Partner(P4P, f"{prefix}image")
    try:
        with Posting(server):
            ended = call(
                "preflight", "-ic", f"{prefix}image", "-fps", "5000", "-pf", file, "-pc", "Slow",
                "--seconds", "0.3",
            )  # fmt: skip
    finally:
        server.kill()
    assert ended.code == 1, ended.text
    assert "Frames of 8x8 uint16, 128 bytes" in ended.text
    assert "the source sends" in ended.text
    assert f"Note: {prefix}image: its server (PVXS" in ended.text
    assert "5000 frames/s were not reached with 2 consumers" in ended.text
    # What they do reach is told, and the options for it.
    rates = dict(re.findall(r"^  (.*?)\s+([\d,]+) frames/s", "".join(ended.out), re.MULTILINE))
    assert float(rates["one consumer, without loss"]) < float(rates["2 consumers, without loss"])
    assert "-nc 2 -dg share" in ended.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-od", "/nowhere"], "cannot write to /nowhere"),
        (["-pc", "pvapy_stream.processors.Region", "-pa", '{"x": 50}'], "does not take these"),
        (["-pf", "a.py"], "--processor-file needs --processor-class"),
    ],
)
def test_what_cannot_be_measured(options: list[str], message: str) -> None:
    ended = call("preflight", "-nx", "8", "-ny", "8", "--seconds", "0.1", *options)
    assert ended.code != 0
    assert message in ended.text
