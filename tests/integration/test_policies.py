"""Consumers of one command that divide a stream by load, or by the value of an attribute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from chaos.judge import Account
from pvapy_stream.frame import Frame
from tests.in_process import call
from tests.integration.test_sharing import audit, end
from tests.support import (
    Commands,
    Program,
    Source,
    status,
    wait_for_monitors,
    wait_until,
    write_processor,
)

N = 120
STEP = 6  # images that are published before it is waited for them
QUEUE = 8

# Writes the id that the pixels carry into a file of its own; the second consumer waits for a file.
PROCESSOR = """
import os, time
from pathlib import Path
from pvapy_stream import FrameProcessor
class P(FrameProcessor):
    def process_frame(self, frame):
        folder = Path(FOLDER)
        if self.processorId == 2:
            while not (folder / "go").exists():
                time.sleep(0.01)
        with open(folder / f"ids.{self.processorId}", "a") as file:
            file.write(f"{frame.image.min()} {frame.attributes.get('run')}\\n")
        return frame
"""


@pytest.fixture
def source(prefix: str) -> Iterator[Source]:
    made = Source(f"{prefix}image")
    yield made
    made.close()


def publish(source: Source, first: int, last: int) -> None:
    for number in range(first, last + 1):
        pixels = np.full((8, 8), number, np.uint16)
        frame = Frame.of(number, pixels, attributes={"run": number // 7})
        source.put(source.builder.build(frame))


def start(commands: Commands, prefix: str, folder: Path, policy: str) -> Program:
    file = write_processor(folder, PROCESSOR.replace("FOLDER", repr(str(folder))))
    program = commands(
        "consumer", "-ic", f"{prefix}image", "-nc", 3, "-dg", "g", "--distributor-policy", policy,
        "-sqs", QUEUE, "-sc", f"{prefix}status:*", "-pf", file, "-pc", "P",
        "--ledger", folder / "ledger.json",
    )  # fmt: skip
    wait_for_monitors([f"{prefix}status:{k}" for k in (1, 2, 3)])
    wait_until(lambda: status(f"{prefix}image:dealer:g").get("state") == "running")
    return program


def children_of(program: Program) -> list[psutil.Process]:
    """Processes of the command; the last four are the dealer and the consumers."""
    children = psutil.Process(program.process.pid).children()
    return sorted(children, key=lambda child: child.create_time())


def came(folder: Path) -> dict[int, list[tuple[int, int]]]:
    """Ids, and runs, by consumer, as their pixels and attributes say."""
    found: dict[int, list[tuple[int, int]]] = {}
    for number in (1, 2, 3):
        path = folder / f"ids.{number}"
        lines = path.read_text().splitlines() if path.exists() else []
        found[number] = [(int(a), int(b)) for a, b in map(str.split, lines)]
    return found


def ids(folder: Path) -> list[int]:
    return sorted(number for one in came(folder).values() for number, _ in one)


def publish_slowly(source: Source, folder: Path, first: int, last: int, held: int) -> None:
    """Publish; only so many may wait in the queue of the second consumer."""
    for number in range(first, last + 1, STEP):
        publish(source, number, min(number + STEP - 1, last))
        due = min(number + STEP - 1, last) - held
        wait_until(lambda due=due: len(ids(folder)) >= due)


def test_who_is_busy_gets_less_and_each_image_is_processed_once(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    program = start(commands, prefix, tmp_path, "least-queued")
    # One that is processed, and a full queue.
    publish_slowly(source, tmp_path, 1, N, held=QUEUE + 1)
    assert not came(tmp_path)[2]
    (tmp_path / "go").touch()
    wait_until(lambda: ids(tmp_path) == [*range(1, N + 1)])
    assert 0 < len(came(tmp_path)[2]) <= QUEUE + 1
    shown = status(f"{prefix}status:1")
    assert shown["processorStats"]["nMissed"] == shown["processorStats"]["nUnknown"] == 0
    assert shown["message"] == ""
    end(program)
    report = audit(tmp_path)
    assert report.code == 0, report.text
    assert f"published {N}, processed {N}, missed 0, without a fate 0: OK" in report.out[-1]


def test_what_a_killed_consumer_had_is_named(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    program = start(commands, prefix, tmp_path, "least-queued")
    publish_slowly(source, tmp_path, 1, N, held=QUEUE + 1)
    children_of(program)[-2].kill()
    wait_until(lambda: status(f"{prefix}status:2").get("restarts") == 1)
    wait_for_monitors([f"{prefix}status:2"])
    (tmp_path / "go").touch()
    publish_slowly(source, tmp_path, N + 1, 2 * N, held=QUEUE + 1)
    wait_until(lambda: ids(tmp_path)[-1] == 2 * N)
    end(program, 1)
    lost = set(range(1, 2 * N + 1)) - set(ids(tmp_path))
    assert len(ids(tmp_path)) == len(set(ids(tmp_path)))
    assert 0 < len(lost) <= QUEUE + 1
    report = call("audit", tmp_path / "ledger.json", "--json")
    assert report.code == 1
    assert Account.of(json.loads("".join(report.out)), "mirror").lost == lost


def test_images_of_a_run_go_to_one_consumer(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    program = start(commands, prefix, tmp_path, "sticky:run")
    publish_slowly(source, tmp_path, 1, N, held=0)
    end(program)
    runs = [{run for _, run in one} for one in came(tmp_path).values()]
    assert sum(map(len, runs)) == len(set.union(*runs)) == N // 7 + 1
    assert all(runs)
    report = audit(tmp_path)
    assert report.code == 0, report.text


def test_one_that_is_suspended_holds_nobody_up(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    program = start(commands, prefix, tmp_path, "least-queued")
    publish_slowly(source, tmp_path, 1, N, held=0)
    third = children_of(program)[-1]
    third.suspend()
    before = len(came(tmp_path)[3])
    publish_slowly(source, tmp_path, N + 1, 2 * N, held=QUEUE + 1)
    assert len(came(tmp_path)[3]) == before
    third.resume()
    publish_slowly(source, tmp_path, 2 * N + 1, 3 * N, held=0)
    wait_until(lambda: ids(tmp_path) == [*range(1, 3 * N + 1)])
    end(program)
    report = audit(tmp_path)
    assert report.code == 0, report.text


def test_what_a_killed_dealer_had_is_named(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    program = start(commands, prefix, tmp_path, "sticky:run")
    publish_slowly(source, tmp_path, 1, N, held=0)
    dealer = children_of(program)[-4]
    dealer.suspend()
    # It has not received these, or not dealt them out.
    publish(source, N + 1, N + 4)
    dealer.kill()
    wait_until(lambda: status(f"{prefix}image:dealer:g").get("restarts") == 1)
    wait_until(lambda: status(f"{prefix}image:dealer:g")["state"] == "running")
    wait_for_monitors([f"{prefix}status:{k}" for k in (1, 2, 3)])
    first = N + 10
    publish(source, first, first)
    publish_slowly(source, tmp_path, first + 1, 2 * N, held=10)
    wait_until(lambda: ids(tmp_path)[-1] == 2 * N)
    end(program, 1)
    assert len(ids(tmp_path)) == len(set(ids(tmp_path)))
    published = {*range(1, N + 5), *range(first, 2 * N + 1)}
    lost = published - set(ids(tmp_path))
    assert lost >= {*range(N + 1, N + 5)}
    report = call("audit", tmp_path / "ledger.json", "--json")
    assert report.code == 1
    account = Account.of(json.loads("".join(report.out)), "mirror")
    # It cannot know which ids the source did not use.
    assert lost <= account.named
    assert not account.lost & set(ids(tmp_path))
