"""Mirrors of real channels on loopback, from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pvaccess as pva
import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.frame import Frame
from pvapy_stream.transport.pva import MonitorReceiver
from tests.in_process import Called, call
from tests.support import Commands, Ioc, Program, Source, some_of, status, wait_until
from tests.support import image as picture

N = 300


class Client:
    """A monitor of a mirror, with all it was shown."""

    def __init__(self, channel: str) -> None:
        self.seen: list[dict[str, Any]] = []
        # The server drops what a client's queue does not take.
        self._receiver = MonitorReceiver(channel, "record[queueSize=1000]field()")
        self._receiver.start(lambda obj: self.seen.append(obj.toDict()))

    @property
    def ids(self) -> list[int]:
        return [obj["uniqueId"] for obj in list(self.seen)]

    def wait_for(self, condition: Any) -> None:
        def met() -> bool:
            self._receiver.keep_up()
            return bool(condition(self))

        wait_until(met, what=f"what {self.seen[-3:]} is not yet")

    def close(self) -> None:
        self._receiver.stop()


@contextmanager
def client_of(channel: str) -> Iterator[Client]:
    client = Client(channel)
    try:
        yield client
    finally:
        client.close()


def end(program: Program, code: int = 0) -> None:
    program.signal()
    assert program.wait() == code, program.text


def audit(*files: Path) -> Called:
    return call("audit", *files)


def counters(program: Program) -> str:
    return next(line for line in reversed(program.out) if line.startswith("Channel "))


def test_mirror_before_source_then_all_ids_and_the_audit(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("sim.json", "mirror.json", "consumers.json")]
    image, mirrored = f"{prefix}image", f"{prefix}mirror"
    mirror = commands("mirror", "-cm", f"({mirrored},{image},pva,100)", "--ledger", files[1])
    consumers = commands(
        "consumer", "-ic", mirrored, "-nc", "2", "-dg", "g", "-dt", "uniqueId", "-sqs", "100",
        "-sc", f"{prefix}status:*", "--ledger", files[2],
    )  # fmt: skip
    sim = commands(
        "sim", "-cn", image, "-nx", "8", "-ny", "8", "-fps", "500", "--n-publish", N, "-rp", "0",
        "-nf", "10", "-dc", "--wait-for-stages", f"{prefix}status:1,{prefix}status:2", "-shd",
        "0.5", "-rt", "0", "--ledger", files[0],
    )  # fmt: skip
    assert sim.wait() == 0, sim.text

    def processed() -> int:
        return sum(
            status(f"{prefix}status:{k}").get("processorStats", {}).get("nProcessed", 0)
            for k in (1, 2)
        )

    wait_until(lambda: processed() >= N - 1, what="frames at the consumers")
    end(consumers)
    end(mirror)
    report = audit(*files)
    assert report.code == 0, report.text
    assert f"published {N}, " in report.out[-1]
    assert report.out[-1].endswith("missed 0, without a fate 0: OK\n")
    assert "'nOverruns': 0, 'nErrors': 0}" in counters(mirror)


def test_a_source_in_shared_memory(prefix: str, commands: Commands, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("sim.json", "mirror.json")]
    image, mirrored = f"{prefix}image", f"{prefix}mirror"
    mirror = commands("mirror", "-cm", f"({mirrored},{image},shm,100)", "--ledger", files[1])
    with client_of(mirrored) as client:
        sim = commands(
            "sim", "-cn", image, "-om", "shm", "-nx", "8", "-ny", "8", "-fps", "200", "-nf", "10",
            "--n-publish", "100", "--wait-for-clients", "1", "-rp", "0", "-dc", "-shd", "1",
            "-rt", "0", "--ledger", files[0],
        )  # fmt: skip
        assert sim.wait() == 0, sim.text
        client.wait_for(lambda c: c.ids[-1:] == [100])
    end(mirror)
    (ledger,) = read_ledgers(files[1])
    assert list(ledger.published) == [*range(1, 101)]
    assert ledger.opened
    report = audit(*files)
    assert report.code == 0, report.text


def test_source_restarted_with_another_structure(prefix: str, commands: Commands) -> None:
    image, mirrored = f"{prefix}image", f"{prefix}mirror"
    old = Source(image, pva.PvObject({"uniqueId": pva.INT, "x": pva.INT}, {"uniqueId": 7}))
    mirror = commands("mirror", "-cm", f"({mirrored},{image})")
    with client_of(mirrored) as client:
        client.wait_for(lambda c: c.ids == [7])
        old.close()
        new = Source(image, pva.PvObject({"uniqueId": pva.INT, "y": pva.STRING}, {"uniqueId": 8}))
        try:
            client.wait_for(lambda c: c.seen[-1] == {"uniqueId": 8, "y": ""})
            new.put(
                pva.PvObject({"uniqueId": pva.INT, "y": pva.STRING}, {"uniqueId": 9, "y": "new"})
            )
            client.wait_for(lambda c: c.seen[-1] == {"uniqueId": 9, "y": "new"})
        finally:
            new.close()
    end(mirror)
    assert "".join(mirror.err).count("has changed") == 1
    assert "'nPublished': 3," in counters(mirror)


def test_same_object_after_a_restart_is_published_once(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    image, mirrored, file = f"{prefix}image", f"{prefix}mirror", tmp_path / "mirror.json"
    source = Source(image)
    mirror = commands("mirror", "-cm", f"({mirrored},{image})", "--ledger", file)
    with client_of(mirrored) as client:
        client.wait_for(lambda c: c.ids == [0])
        source.publish([1, 2, 3])
        client.wait_for(lambda c: c.ids[-1] == 3)
        builder = source.builder
        source.close()
        source = Source(image, builder.build(Frame.of(3, picture(3))))
        try:
            wait_until(
                lambda: any(3 in one.skipped for one in read_ledgers(file)), what="the old value"
            )
            source.publish([4])
            client.wait_for(lambda c: c.ids[-1] == 4)
        finally:
            source.close()
        assert client.ids == [0, 1, 2, 3, 4]
    end(mirror)
    # Another server, so another source: its ids have an account of their own.
    before, after = read_ledgers(file)
    assert str(before.published) == str(before.processed) == "1-3"
    assert str(after.published) == str(after.processed) == "4"


@pytest.mark.parametrize(("library", "shown"), some_of(["own", "binding"], [0, 2]))
def test_what_a_new_source_shows_is_not_passed_on(
    prefix: str, commands: Commands, tmp_path: Path, library: str, shown: int
) -> None:
    image, mirrored, file = f"{prefix}image", f"{prefix}mirror", tmp_path / "mirror.json"
    source = Source(image)
    mirror = commands(
        "mirror", "-cm", f"({mirrored},{image})", "--ledger", file, "--pva-library", library,
        "-sc", f"{prefix}status",
    )  # fmt: skip
    with client_of(mirrored) as client:
        client.wait_for(lambda c: c.ids == [0])
        source.publish([1, 2, 3])
        client.wait_for(lambda c: c.ids[-1] == 3)
        builder = source.builder
        source.close()
        wait_until(lambda: status(f"{prefix}status")["state"] == "disconnected")
        source = Source(image, builder.build(Frame.of(shown, picture(shown))))
        try:
            wait_until(lambda: status(f"{prefix}status")["receiverStats"]["nReceived"] == 5)
            source.publish([shown + 1])
            client.wait_for(lambda c: len(c.ids) >= 5)
        finally:
            source.close()
        assert client.ids == [0, 1, 2, 3, shown + 1]
    end(mirror)
    before, after = read_ledgers(file)
    assert str(before.published) == str(before.processed) == "1-3"
    assert str(after.published) == str(after.processed) == str(shown + 1)
    # Those before it were sent while nobody was there, or were not.
    assert list(after.unknown) == [*range(1, shown + 1)]


@pytest.mark.parametrize("mode", ["pva", "shm"])
def test_a_source_that_is_killed_is_followed_again_and_what_opens_its_channel_is_passed_on_once(
    prefix: str, commands: Commands, mode: str
) -> None:
    image, mirrored = f"{prefix}image", f"{prefix}mirror"

    def simulate() -> Program:
        return commands(
            "sim", "-cn", image, "-om", mode, "-nx", "8", "-ny", "8", "-fps", "50", "-nf", "2",
            "-dc", "--wait-for-clients", "1", "-std", "0", "-rt", "60", "-rp", "0",
        )  # fmt: skip

    mirror = commands("mirror", "-cm", f"({mirrored},{image},{mode},100)")
    before = 0
    with client_of(mirrored) as client:
        for _ in range(2):
            before = len(client.ids)
            source = simulate()
            client.wait_for(lambda c, before=before: len(c.ids) > before + 10)
            source.process.kill()
            source.process.wait(10)
        assert 0 not in client.ids[before:]
    end(mirror)


def test_monitors_that_share_the_stream(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    mirrored, file = f"{prefix}mirror", tmp_path / "mirror.json"
    request = "_[pydistributor=updates:1;group:m;trigger:uniqueId]"
    mirror = commands(
        "mirror", "-cm", f"({mirrored},{source.channel},pva,100,2,{request})", "--ledger", file,
        "-rp", "0.3",
    )  # fmt: skip
    with client_of(mirrored) as client:
        client.wait_for(lambda c: c.ids == [0])
        wait_until(lambda: "'nReceived': 2," in counters(mirror) if mirror.out else False)
        for first in range(1, N + 1, 10):
            # Not more at once than queues take: what a client is too slow for, the server drops.
            source.publish(range(first, first + 10))
            client.wait_for(lambda c, last=first + 9: last in c.ids)
        client.wait_for(lambda c: len(c.ids) == N + 1)
        assert sorted(client.ids) == list(range(N + 1))
    end(mirror)
    (ledger,) = read_ledgers(file)
    assert ledger.group == "m"
    assert str(ledger.received) == f"0-{N}"
    assert str(ledger.skipped) == "0"
    assert str(ledger.published) == str(ledger.processed) == f"1-{N}"


@pytest.fixture
def motor(prefix: str, tmp_path: Path) -> Iterator[str]:
    """A CA channel of a real IOC."""
    records = f'record(calc,"{prefix}m1"){{field(SCAN,".1 second") field(CALC,"VAL+1")}}'
    with Ioc(tmp_path, records):
        yield f"{prefix}m1"


def test_ca_source(prefix: str, motor: str, commands: Commands, tmp_path: Path) -> None:
    mirrored, file = f"{prefix}mirror", tmp_path / "mirror.json"
    mirror = commands("mirror", "-cm", f"({mirrored},{motor},ca)", "--ledger", file)
    with client_of(mirrored) as client:
        client.wait_for(lambda c: len(c.seen) > 4)
        values = [obj["value"] for obj in client.seen]
        assert values == [values[0] + k for k in range(len(values))]
        assert client.seen[-1]["timeStamp"]["secondsPastEpoch"] > 0
    end(mirror)
    (ledger,) = read_ledgers(file)
    assert ledger.anonymous > 4
    assert not ledger.received
    assert audit(file).code == 0


def sharing(commands: Commands, channel: str, prefix: str, file: Path, n: int) -> Program:
    """Consumers that share the stream of a mirror."""
    return commands(
        "consumer", "-ic", channel, "-nc", n, "-dg", "g", "-dt", "uniqueId", "-sqs", "100",
        "-sc", f"{prefix}status:*", "--ledger", file,
    )  # fmt: skip


def n_processed(prefix: str, n: int) -> int:
    shown = [status(f"{prefix}status:{k + 1}") for k in range(n)]
    return sum(one["processorStats"]["nProcessed"] for one in shown)


def test_consumers_that_join_late_are_waited_for_and_what_went_by_is_named(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    mirrored, files = f"{prefix}mirror", [tmp_path / name for name in ("m.json", "c.json")]
    mirror = commands(
        "mirror", "-cm", f"({mirrored},{source.channel},pva,100)", "--ledger", files[0],
        "--wait-for-consumers", "2",
    )  # fmt: skip

    def rejected() -> int:
        (ledger,) = read_ledgers(files[0])
        return sum(len(ids) for ids in ledger.rejected.values())

    wait_until(lambda: files[0].exists() and read_ledgers(files[0])[0].skipped, what="the source")
    source.publish(range(1, 21))
    wait_until(lambda: rejected() == 20, what="ids that go by")
    consumers = sharing(commands, mirrored, prefix, files[1], 2)
    wait_until(lambda: any("arrived before its consumers" in line for line in mirror.err))
    source.publish(range(21, 81), 0.005)
    wait_until(lambda: n_processed(prefix, 2) == 60, what="all that came after")
    end(consumers)
    end(mirror)
    assert f"20 objects of {source.channel} arrived before its consumers" in mirror.text
    assert "ids 1-20" in mirror.text
    (ledger,) = read_ledgers(files[0])
    assert str(ledger.rejected["before the consumers"]) == "1-20"
    assert str(ledger.published) == "21-80"
    report = audit(*files)
    assert report.code == 0, report.text


def test_a_consumer_that_joins_late_and_is_not_waited_for_has_what_it_lost_named(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    mirrored, files = f"{prefix}mirror", [tmp_path / name for name in ("m.json", "c.json")]
    mirror = commands(
        "mirror", "-cm", f"({mirrored},{source.channel},pva,100)", "--ledger", files[0]
    )
    wait_until(lambda: files[0].exists() and read_ledgers(files[0])[0].skipped, what="the source")
    source.publish(range(1, 21))
    wait_until(lambda: str(read_ledgers(files[0])[0].published) == "1-20")
    consumer = sharing(commands, mirrored, prefix, files[1], 1)
    wait_until(
        lambda: status(f"{prefix}status:1")["receiverStats"]["nReceived"], what="the current value"
    )
    source.publish(range(21, 81), 0.005)
    wait_until(lambda: n_processed(prefix, 1) == 60, what="all that came after")
    end(consumer)
    end(mirror)
    report = audit(*files)
    assert report.code == 1, report.text
    assert "1-19" in report.text or "1-20" in report.text


def test_too_few_consumers(prefix: str, source: Source, commands: Commands) -> None:
    mirrored = f"{prefix}mirror"
    mirror = commands(
        "mirror", "-cm", f"({mirrored},{source.channel})", "--wait-for-consumers", "2",
        "--wait-timeout", "1",
    )  # fmt: skip
    wait_until(lambda: any("0 of 2 consumers" in line for line in mirror.err))
    with client_of(mirrored) as client:
        client.wait_for(lambda c: c.ids == [0])
        source.publish([1, 2])
        client.wait_for(lambda c: c.ids[-1] == 2)
    end(mirror, 1)
    assert "error: 0 of 2 consumers connected within 1 s" in mirror.err[-1]


def test_source_that_never_came(prefix: str) -> None:
    ended = call("mirror", "-cm", f"({prefix}m,{prefix}none)", "-rt", "0.6", "-rp", "0.2")
    assert ended.code == 1
    assert f"source {prefix}none was never found" in ended.err[-1]
    assert len([line for line in ended.out if line.startswith(f"Channel {prefix}m @ ")]) >= 3


def test_wrong_map_is_a_usage_error() -> None:
    ended = call("mirror", "-cm", "(m,m)")
    assert ended.code == 2
    assert "(m,m) mirrors a channel under its own name" in ended.text
