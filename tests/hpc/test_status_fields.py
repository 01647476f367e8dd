"""Status channels have every field that the incumbent's have."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pvaccess as pva
import pytest

from pvapy_stream.testing import metadata_object
from tests.support import Commands, Source, status, wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "incumbent.md").read_text()
# Counters have 64 bits here, and ids are signed: whoever reads a number reads these too.
WIDER = {pva.UINT: {pva.UINT, pva.ULONG, pva.LONG}}


@pytest.fixture
def incumbent() -> Iterator[Any]:
    """Starts the incumbent's own programs."""
    started: list[subprocess.Popen[bytes]] = []

    def start(kind: str, *args: object) -> None:
        words = [sys.executable, "-m", f"pvapy.cli.hpc{kind}", *map(str, args), "-dc", "-rp", "0.5"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        started.append(subprocess.Popen(words, env=dict(os.environ), **quiet))  # pyright: ignore

    yield start
    for process in started:
        process.kill()
        process.wait(10)


def types(channel: str) -> dict[str, Any]:
    """The type of each field of a channel, by its path."""
    pv = pva.Channel(channel)
    pv.setTimeout(5)
    return dict(flat(pv.get("field()").getStructureDict()))


def flat(structure: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, kind in structure.items():
        if isinstance(kind, dict):
            yield from flat(kind, f"{path}{name}.")
        else:
            yield f"{path}{name}", kind


def compare(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    assert not set(theirs) - set(ours)
    odd = {
        name: (kind, ours[name])
        for name, kind in theirs.items()
        if ours[name] not in WIDER.get(kind, {kind})
    }
    assert not odd
    named = set(re.findall(r"`([^`]+)`", PAGE))
    extra = {re.sub(r"_\d+\.", "_N.", name) for name in set(ours) - set(theirs)}
    told = {name for name in extra if name in named or f"{name.partition('.')[0]}.*" in named}
    assert not extra - told, "these are not in docs/incumbent.md"


@pytest.fixture
def metadata(prefix: str) -> Iterator[str]:
    server = pva.PvaServer()
    server.addRecord(f"{prefix}m", metadata_object(1.0, 1), None)
    server.start()
    yield f"{prefix}m"
    server.stop()


def test_fields_of_a_consumer(
    prefix: str, source: Source, metadata: str, commands: Commands, incumbent: Any
) -> None:
    def args(who: str) -> list[str]:
        return ["-ic", source.channel, "-sc", f"{prefix}{who}", "-mc", f"pva://{metadata}",
                "-rqs", "100", "-sqs", "100"]  # fmt: skip

    incumbent("Consumer", *args("theirs"))
    commands("consumer", *args("ours"))
    for who in ("theirs", "ours"):
        wait_until(lambda who=who: status(f"{prefix}{who}"), what=who)
    compare(types(f"{prefix}theirs"), types(f"{prefix}ours"))
    found = wait_until(
        lambda: (
            (s := status(f"{prefix}ours"))["metadataStats_1"]["receiverStats"]["nReceived"]
            and s["metadataStats_1"]
        )
    )
    assert found["producerId"] == 1
    assert found["queueStats"]["nReceived"] == found["receiverStats"]["nReceived"] == 1


def test_fields_of_a_collector(
    prefix: str, metadata: str, commands: Commands, incumbent: Any
) -> None:
    def args(who: str) -> list[str]:
        return ["-ic", f"{prefix}p:*", "-sc", f"{prefix}{who}", "-mc", f"pva://{metadata}",
                "-pid", "3,7", "-rqs", "100", "-sqs", "100"]  # fmt: skip

    producers = {number: Source(f"{prefix}p:{number}") for number in (3, 7)}
    try:
        incumbent("Collector", *args("theirs"))
        program = commands("collector", *args("ours"))
        for who in ("theirs", "ours"):
            wait_until(lambda who=who: status(f"{prefix}{who}"), what=who)
        compare(types(f"{prefix}theirs"), types(f"{prefix}ours"))
        queues = [f"producerStats_{number}" for number in producers]
        wait_until(
            lambda: all(
                status(f"{prefix}ours")[name]["receiverStats"]["nReceived"] for name in queues
            )
        )
        producers[3].publish([1, 3, 5])
        producers[7].publish([2])

        def delivered() -> list[int]:
            now = status(f"{prefix}ours")
            return [now[name]["queueStats"]["nDelivered"] for name in queues]

        # The initial update of each, and what was published.
        wait_until(lambda: delivered() == [4, 2], what="objects of both producers")
        for name in queues:
            found = status(f"{prefix}ours")[name]["queueStats"]
            assert found["nReceived"] == found["nDelivered"]
            assert (found["nQueued"], found["nRejected"]) == (0, 0)
        # A server that is asked for a channel just as that is taken away refuses it.
        program.signal()
        assert program.wait() == 0, program.text
    finally:
        for producer in producers.values():
            producer.close()
