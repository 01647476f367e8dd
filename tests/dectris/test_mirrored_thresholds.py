"""A mirror of two thresholds of a detector, and the files behind it."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - reads the chunks
import numpy as np

from pvapy_stream.accounting.ledger import Ledger, read_ledgers
from pvapy_stream.mirror.mirror_server import MirrorServer
from pvapy_stream.settings import MirrorSettings
from pvapy_stream.sim.dectris_detector import pixels_of
from pvapy_stream.transport.memory_mode import MemoryReceiver
from tests.dectris.test_programs import LIKE, detector, metadata_of, sent
from tests.dectris.test_thresholds import channel, send_all, simulator
from tests.ports import free_port
from tests.support import Commands, Program, wait_for_monitors, wait_until


def test_what_waits_when_a_mirror_stops_is_passed_on(prefix: str) -> None:
    sim = simulator(n_images=20)
    names = [f"{prefix}{number}" for number in (1, 2)]
    entries = [f"({name},{channel(sim.address, n)},dectris)" for n, name in enumerate(names, 1)]
    server = MirrorServer(MirrorSettings.of(channel_map=",".join(entries)), hosted="memory")
    held, arrived, stop = threading.Event(), threading.Event(), threading.Event()
    passed_on: list[list[int]] = [[], []]

    def hold(obj: Any) -> None:
        arrived.set()
        held.wait(60)
        passed_on[0].append(obj.id)

    outputs = [MemoryReceiver(name) for name in names]
    outputs[0].start(hold)
    outputs[1].start(lambda obj: passed_on[1].append(obj.id))
    thread = threading.Thread(target=server.run, args=(stop,))
    thread.start()
    try:
        send_all(sim)
        assert arrived.wait(60)
        stop.set()
        receiver: Any = server.channels[0]._receivers[0]
        wait_until(lambda: receiver._seat.deadline < math.inf)
    finally:
        held.set()
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    for one, ids in zip(server.channels, passed_on, strict=True):
        assert ids == list(range(1, 21))
        (ledger,) = one.ledgers()
        assert str(ledger.received) == str(ledger.processed) == str(ledger.published) == "1-20"
    assert server.problems() == []


def read(path: Path) -> list[Ledger]:
    """What the ledgers of a program say; none before they are written."""
    return read_ledgers(path) if path.exists() else []


class Programs:
    """A mirror of two thresholds, and a file behind each; they start in this order."""

    def __init__(self, commands: Commands, folder: Path, prefix: str) -> None:
        self.commands = commands
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.names = [f"{prefix}{number}" for number in (1, 2)]
        self.files = [folder / f"{number}.h5" for number in (1, 2)]
        self.ledgers = [folder / f"{name}.json" for name in ("mirror", "again", "1", "2")]
        self.of_saves = self.ledgers[2:]
        self.mirror = self.start_mirror(self.ledgers[0])
        self.saves = [
            commands(
                "save", "-ic", name, "-o", file, "--ledger", ledger, "--server-queue-size", 500,
                "--status-channel", f"{name}:status",
            )
            for name, file, ledger in zip(self.names, self.files, self.of_saves, strict=True)
        ]  # fmt: skip

    def start_mirror(self, ledger: Path) -> Program:
        entries = [
            f"({name},{channel(self.address, number)},dectris)"
            for number, name in enumerate(self.names, 1)
        ]
        return self.commands("mirror", "-cm", ",".join(entries), "--ledger", ledger)

    def detector(self, *more: object) -> Program:
        return detector(self.commands, self.address, "--thresholds", 2, "-fps", 50, *more)

    def end(self) -> list[int]:
        """End the mirror, which passes on what it has, and then the others; their exit codes."""
        codes: list[int] = []
        for program in (self.mirror, *self.saves):
            program.signal()
            codes.append(program.wait())
        return codes

    def audit(self) -> tuple[int, dict[str, Any]]:
        told = self.commands("audit", "--json", *filter(Path.exists, self.ledgers))
        return told.wait(), json.loads("".join(told.out))


def test_both_thresholds_are_stored_behind_a_mirror(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    run = Programs(commands, tmp_path, prefix)
    # The mirror has channels when it has seen an image; then they are found.
    assert run.detector("-n", 1).wait() == 0
    wait_for_monitors([f"{name}:status" for name in run.names])
    assert run.detector("-n", 30, "--first-series", 2, "--n-series", 2).wait() == 0
    wait_until(lambda: [len(one.published) for one in read(run.ledgers[0])] == [61, 61])
    assert run.end() == [0, 0, 0], run.mirror.text
    assert run.audit()[0] == 0
    for number, file in enumerate(run.files, 1):
        with h5py.File(file) as found:
            images, ids = found["entry/data/data"][()], list(found["entry/data/id"])
        # The image that the channel showed may be among them.
        assert ids in (list(range(1, 62)), list(range(2, 62)))
        rows = [(1, 0), *((series, image) for series in (2, 3) for image in range(30))]
        for image, row in zip(images, rows[-len(ids) :], strict=True):
            assert np.array_equal(image, pixels_of(*row, number, LIKE))
        assert metadata_of(file)[0] == sent(50, number)


def test_what_a_killed_mirror_loses_is_named_for_each_threshold(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    run = Programs(commands, tmp_path, prefix)
    sim = run.detector("-n", 1_000_000)
    wait_until(lambda: all(sum(len(one.processed) for one in read(of)) > 20 for of in run.of_saves))
    # What waits for it now goes with it.
    run.mirror.signal(signal.SIGSTOP)
    time.sleep(0.5)
    run.mirror.process.kill()
    run.mirror.wait()
    run.mirror = run.start_mirror(run.ledgers[1])
    wait_until(
        lambda: all(
            len(parts := read(of)) == 2 and len(parts[1].processed) > 20 for of in run.of_saves
        )
    )
    sim.signal()
    assert sim.wait() == 0
    # What it lacks of the series it cannot know: it did not see its beginning.
    assert run.end()[0] == 1
    assert run.mirror.text.count("series 1: images come, and its start message did not") == 2
    code, result = run.audit()
    assert code == 1
    came = read(run.ledgers[1])
    for number, file in enumerate(run.files, 1):
        with h5py.File(file) as found:
            images, ids = found["entry/data/data"][()], list(map(int, found["entry/data/id"]))
        assert len(set(ids)) == len(ids)
        for image, value in zip(images, ids, strict=True):
            assert np.array_equal(image, pixels_of(1, value - 1, number, LIKE))
        last = came[number - 1].received.last
        assert last is not None
        assert sorted({*range(1, last + 1)} - {*ids}) == named(
            result, run.names[number - 1], channel(run.address, number)
        )
    assert came[0].received.last == came[1].received.last


def named(result: dict[str, Any], *channels: str) -> list[int]:
    """The ids that an audit names as not processed on some channels."""
    found: set[int] = set()
    for one in result["channels"]:
        if one["channel"] in channels:
            (subscriber,) = one["subscribers"]
            for fate in ("lost", "unknown", "unprocessed"):
                for first, last in subscriber[fate]:
                    assert not found & {*range(first, last + 1)}
                    found |= {*range(first, last + 1)}
    return sorted(found)
