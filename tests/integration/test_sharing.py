"""Consumers that share a source whose server has no distributor: PVXS, as in p4p."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pvapy_stream.accounting.ledger import Ledger, read_ledgers, union
from pvapy_stream.frame import Frame
from pvapy_stream.settings import ConsumerSettings
from tests.in_process import Called, call
from tests.pva.net.partner import Partner
from tests.support import (
    PATIENCE,
    Commands,
    ImageIoc,
    Program,
    Source,
    pvput,
    status,
    wait_for_monitors,
    wait_until,
    write_processor,
)

N = 200

# Posts images with these ids, whose pixels carry them; with `+ NAME` it goes on with a new channel.
P4P = """
import sys, time
import numpy as np
from p4p.nt import NTNDArray
from p4p.server import Server, StaticProvider
from p4p.server.thread import SharedPV
nt = NTNDArray()
def image(number, side=8):
    value = nt.wrap(np.full((side, side), number, "u2"))
    value.uniqueId = number
    return value
provider = StaticProvider("x")
def channel(name):
    made = SharedPV(initial=image(0))
    provider.add(name, made)
    return made
pvs = [channel(name) for name in sys.argv[1:]]
server = Server(providers=[provider])
print("up", flush=True)
for line in sys.stdin:
    if line.startswith("+"):
        pvs.append(channel(line[1:].strip()))
        print("added", flush=True)
        continue
    first, last, period = line.split()
    for number in range(int(first), int(last) + 1):
        pvs[-1].post(image(number))
        time.sleep(float(period))
    print("posted", flush=True)
"""

# Fails for an image whose pixels are not those of its id.
PROCESSOR = """
from pvapy_stream import FrameProcessor
class P(FrameProcessor):
    def process_frame(self, frame):
        if frame.image.min() != frame.id or frame.image.max() != frame.id:
            raise ValueError(f"pixels {frame.image.flat[0]}, id {frame.id}")
        return frame
"""


def frame(number: int) -> Frame:
    """An image whose pixels carry its id."""
    return Frame.of(number, np.full((8, 8), number, np.uint16))


class Posting:
    """Has a server post images in a row, after that with the id `last`, until it is ended."""

    def __init__(self, server: Partner, last: int = 0) -> None:
        self._server = server
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.last = last
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            assert self._server.tell(f"{self.last + 1} {self.last + 50} 0.003") == "posted"
            self.last += 50

    def __enter__(self) -> Posting:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> int:
        """The id of the last image."""
        self._ending.set()
        self._thread.join(PATIENCE)
        return self.last


@pytest.fixture(scope="module")
def pvxs() -> Iterator[Partner]:
    """A server for the channels of all tests, as it costs a start."""
    made = Partner(P4P)
    yield made
    made.kill()


def start(server: Partner, prefix: str) -> Partner:
    """Have the server post on a channel of this test from now on."""
    assert server.tell(f"+ {prefix}image") == "added"
    return server


def consumers(
    commands: Commands, prefix: str, folder: Path, *options: object, n: int = 2
) -> Program:
    file = write_processor(folder, PROCESSOR)
    return commands(
        "consumer", "-ic", f"{prefix}image", "-nc", n, "-dg", "g", "-dt", "uniqueId", "-sqs", "200",
        "-sc", f"{prefix}status:*", "-cc", f"{prefix}control:*", "-pf", file, "-pc", "P",
        "--ledger", folder / "ledger.json", *options,
    )  # fmt: skip


def statuses(prefix: str) -> list[str]:
    return [f"{prefix}status:1", f"{prefix}status:2"]


def processed(prefix: str) -> list[int]:
    return [status(one)["processorStats"]["nProcessed"] for one in statuses(prefix)]


def wait_for_processed(prefix: str, n: int) -> None:
    """Wait until the consumers have processed so many objects together."""
    try:
        wait_until(lambda: sum(processed(prefix)) == n)
    except AssertionError:
        shown = [status(one) for one in (*statuses(prefix), f"{prefix}image:dealer:g")]
        raise AssertionError(f"not {n} objects: {shown}") from None


def wait_for_dealer(prefix: str) -> None:
    """Wait until what the source posts is dealt out."""
    wait_for_monitors(statuses(prefix))
    wait_until(lambda: status(f"{prefix}image:dealer:g").get("state") == "running")


def end(program: Program, code: int = 0) -> None:
    program.signal()
    assert program.wait() == code, program.text


def by_stage(folder: Path) -> dict[str, list[Ledger]]:
    found: dict[str, list[Ledger]] = {}
    for one in read_ledgers(folder / "ledger.json"):
        found.setdefault(f"{one.stage} {one.stage_id}", []).append(one)
    return found


def processed_of(folder: Path) -> list[int]:
    ledgers = by_stage(folder)
    return sorted(i for k in (1, 2) for one in ledgers[f"consumer {k}"] for i in one.processed)


def audit(folder: Path) -> Called:
    return call("audit", folder / "ledger.json")


def post_and_see_that_both_share(prefix: str, server: Partner) -> None:
    wait_for_dealer(prefix)
    assert server.tell(f"1 {N} 0.002") == "posted"
    wait_for_processed(prefix, N)
    assert processed(prefix) == [N / 2, N / 2]


def see_that_each_id_was_processed_once(prefix: str, folder: Path, n: int) -> None:
    assert processed_of(folder) == [*range(1, n + 1)]
    assert [list(one.received) for one in by_stage(folder)["mirror 1"]] == [[*range(n + 1)]]
    report = audit(folder)
    assert report.code == 0, report.text
    assert f"published {n}, processed {n}, missed 0, without a fate 0: OK" in report.out[-1]


def test_two_consumers_process_each_id_once_until_a_stop_in_mid_stream(
    prefix: str, pvxs: Partner, commands: Commands, tmp_path: Path
) -> None:
    server = start(pvxs, prefix)
    program = consumers(commands, prefix, tmp_path, "-fr", "value,dimension")
    post_and_see_that_both_share(prefix, server)
    with Posting(server, N) as posting:
        wait_until(lambda: sum(processed(prefix)) > N + 100)
        end(program)
        sent = posting.end()
    done = processed_of(tmp_path)
    assert N + 100 < len(done) < sent
    see_that_each_id_was_processed_once(prefix, tmp_path, len(done))
    assert "its server (PVXS" in program.text
    assert program.text.count("distributes it to the 2 consumers") == 1


def test_a_source_that_comes_late_is_shared_once_and_a_second_command_for_the_group_is_refused(
    prefix: str, pvxs: Partner, commands: Commands, tmp_path: Path
) -> None:
    program = consumers(commands, prefix, tmp_path, "-im", "auto", "--pva-library", "binding")
    wait_until(lambda: [status(one)["state"] for one in statuses(prefix)] == ["waiting"] * 2)
    server = start(pvxs, prefix)
    wait_for_dealer(prefix)
    second = commands("consumer", "-ic", f"{prefix}image", "-nc", "2", "-dg", "g")
    assert second.wait() == 1, second.text
    assert f"channel {prefix}image:dealer:g is already served by the program" in second.err[-1]
    post_and_see_that_both_share(prefix, server)
    end(program)
    see_that_each_id_was_processed_once(prefix, tmp_path, N)
    assert "its server (PVXS" in program.text
    assert program.text.count("distributes it to the 2 consumers") == 1


def test_a_source_that_comes_back_without_a_distributor_and_once_more_begins_anew(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    source = Source(f"{prefix}image")
    try:
        program = consumers(commands, prefix, tmp_path)
        wait_for_monitors(statuses(prefix))
        for number in range(1, N + 1):
            source.put(source.builder.build(frame(number)))
        wait_for_processed(prefix, N)
        assert "distributes it" not in program.text
    finally:
        source.close()
    for time in (2, 3):
        server = Partner(P4P, f"{prefix}image")
        try:
            wait_for_dealer(prefix)
            assert server.tell(f"1 {N} 0.002") == "posted"
            # What it shows at first, here the image with id 0, is no frame of it.
            wait_for_processed(prefix, time * N)
        finally:
            server.kill()
        wait_until(lambda: status(f"{prefix}image:dealer:g")["state"] == "disconnected")
    end(program)
    ledgers = by_stage(tmp_path)
    # A connection that is lost before the first object has an epoch without any.
    epochs = [[one for one in ledgers[f"consumer {k}"] if one.processed] for k in (1, 2)]
    for epoch, both in enumerate(zip(*epochs, strict=True)):
        assert sorted(i for one in both for i in one.processed) == [*range(1, N + 1)]
        for one in both:
            if epoch:
                assert one.input_channel.startswith(f"{prefix}image:dealt:")
            else:
                assert one.input_channel == f"{prefix}image"
    assert len(epochs[0]) == 3
    report = audit(tmp_path)
    assert report.code == 0, report.text


def test_two_consumers_share_an_ioc(prefix: str, commands: Commands, tmp_path: Path) -> None:
    with ImageIoc(tmp_path, prefix):
        program = commands(
            "consumer", "-ic", f"{prefix}image", "-nc", "2", "-dg", "g", "-dt", "uniqueId", "-sqs",
            "100", "-sc", f"{prefix}status:*", "--ledger", tmp_path / "ledger.json",
        )  # fmt: skip
        wait_for_dealer(prefix)
        for number in range(1, 21):
            pvput(f"{prefix}id", value=str(number))
        wait_for_processed(prefix, 20)
        end(program)
    assert processed_of(tmp_path) == [*range(1, 21)]
    assert "its server (QSRV" in program.text


def test_a_killed_dealer_comes_back_and_what_it_missed_is_named(
    prefix: str, pvxs: Partner, commands: Commands, tmp_path: Path
) -> None:
    server = start(pvxs, prefix)
    program = consumers(commands, prefix, tmp_path)
    wait_for_dealer(prefix)
    with Posting(server) as posting:
        wait_until(lambda: sum(processed(prefix)) > 100)
        # It was started last.
        children = psutil.Process(program.process.pid).children()
        max(children, key=lambda child: child.create_time()).kill()
        before = sum(processed(prefix))
        wait_until(lambda: sum(processed(prefix)) > before + 200)
        sent = posting.end()
    wait_until(lambda: status(f"{prefix}image:dealer:g")["objectId"] == sent)
    end(program, 1)
    assert "dealer of" in program.err[-1]
    assert "died (signal SIGKILL) and was started again" in program.err[-1]
    ledgers = by_stage(tmp_path)
    first, second = ledgers["mirror 1"]
    assert not first.closed
    done = union(one.processed for k in (1, 2) for one in ledgers[f"consumer {k}"])
    last, shown = max(i for i in done if i < second.received.first), second.received.first
    named = [*range(last + 1, shown + 1), *second.rejected["before the consumers"]]
    assert sorted([*done, *named]) == [*range(1, sent + 1)]
    report = audit(tmp_path)
    assert report.code == 1, report.text
    assert (
        f"{last + 1}-{shown - 1} unknown: it cannot be known whether they were sent" in report.text
    )
    assert "lost" not in report.out[-1]


def test_a_killed_consumer_goes_to_the_dealer_at_once(
    prefix: str, pvxs: Partner, commands: Commands, tmp_path: Path
) -> None:
    server = start(pvxs, prefix)
    program = consumers(commands, prefix, tmp_path)
    wait_for_dealer(prefix)
    assert server.tell(f"1 {N} 0.002") == "posted"
    wait_for_processed(prefix, N)
    children = psutil.Process(program.process.pid).children()
    sorted(children, key=lambda child: child.create_time())[-2].kill()
    wait_until(lambda: status(f"{prefix}status:2").get("restarts") == 1)
    wait_for_monitors(statuses(prefix))
    assert server.tell(f"{N + 1} {2 * N} 0.002") == "posted"
    wait_for_processed(prefix, N + N / 2)
    end(program, 1)
    assert processed_of(tmp_path) == [*range(1, 2 * N + 1)]
    report = audit(tmp_path)
    assert report.code == 0, report.text
    assert "restarts 1" in report.out[-1]


@pytest.mark.parametrize("options", [[], ["--pva-library", "binding"]])
def test_a_consumer_alone_is_refused_and_told_what_to_do(
    prefix: str, pvxs: Partner, commands: Commands, tmp_path: Path, options: list[str]
) -> None:
    start(pvxs, prefix)
    program = consumers(commands, prefix, tmp_path, *options, n=1)
    told = f"distributor: channel {prefix}image cannot be shared in group g: its server (PVXS"
    wait_until(lambda: status(f"{prefix}status:1")["message"].startswith(told))
    assert status(f"{prefix}status:1")["receiverStats"]["nReceived"] == 0
    assert f'pvapy-stream mirror -cm "(MIRROR,{prefix}image,pva,100)"' in program.text
    end(program, 1)
    assert f"1 errors, the last: {told}" in program.err[-1]


def test_monitors_of_a_mirror_cannot_share_it(
    prefix: str, pvxs: Partner, commands: Commands
) -> None:
    start(pvxs, prefix)
    entry = f"({prefix}mirror,{prefix}image,pva,100,2,_[pydistributor=group:m])"
    program = commands("mirror", "-cm", entry)
    wait_until(lambda: "cannot be shared by monitors: its server (PVXS" in program.text)
    end(program, 1)
    assert "leave their number and the distributor out of its entry" in program.err[-1]


@pytest.mark.parametrize(
    ("options", "can"),
    [
        ({"n_consumers": 2, "distributor_group": "g"}, True),
        ({"n_consumers": 2, "distributor_set": "A", "n_distributor_sets": 1}, True),
        # The other sets are those of other commands.
        ({"n_consumers": 2, "distributor_set": "A", "n_distributor_sets": 2}, False),
        ({"n_consumers": 1, "distributor_group": "g"}, False),
        ({"n_consumers": 2}, False),
        ({"n_consumers": 2, "distributor_group": "g", "input_mode": "shm"}, False),
        ({"n_consumers": 2, "distributor_group": "g", "input_channel": "x:*"}, False),
    ],
)
def test_who_can_deal(options: dict[str, Any], can: bool) -> None:
    assert ConsumerSettings.of(**{"input_channel": "x", **options}).can_deal == can
