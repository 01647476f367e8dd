"""``TiledSink`` with a Tiled server; a second client reads while the run goes on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.frame import Frame
from tests.areadetector.bluesky_environment import python, tiled_python
from tests.areadetector.tiled_proxy import LosesReply
from tests.areadetector.tiled_server import TiledReader, TiledServer
from tests.processors.tiled_stage import NAME, Sink
from tests.support import Commands, Source, image, wait_until

# The first one installs Tiled.
pytestmark = [pytest.mark.foreign, pytest.mark.timeout(1500)]

RUN = f"{NAME}.1"


@pytest.fixture(scope="module")
def pythons(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """Of the server, and of the stage."""
    wanted = "foreign" in (request.config.getoption("-m") or "")
    return python(wanted), tiled_python(wanted)


@pytest.fixture
def server(pythons: tuple[Path, Path], tmp_path: Path) -> Iterator[TiledServer]:
    """A server that keeps its data when it is started again."""
    data = tmp_path / "data"
    data.mkdir()
    options = (tmp_path / "catalog.db", "--init", "--write", data)
    with TiledServer(pythons[0], *options) as made:
        yield made


@pytest.fixture
def reader(pythons: tuple[Path, Path], server: TiledServer) -> Iterator[TiledReader]:
    made = TiledReader(pythons[0], server)
    yield made
    made.close()


@pytest.fixture
def sink(
    commands: Commands,
    pythons: tuple[Path, Path],
    source: Source,
    server: TiledServer,
    tmp_path: Path,
) -> Sink:
    return Sink(commands, pythons[1], source, server, tmp_path)


def stored(reader: TiledReader, ids: list[int], name: str = RUN) -> dict[str, Any]:
    """What a second client reads, when it has these ids; each image is that of its id."""

    def found() -> Any:
        read = reader.read(name)
        assert read["ids"] == ids[: read["count"]], "rows are in their order, and complete"
        assert read.get("first", []) == read["ids"], "each image is that of its id"
        return read["count"] == len(ids) and read

    return wait_until(found, what=f"{len(ids)} rows")


def kinds(ledger: Ledger) -> dict[str, list[int]]:
    return {kind: list(ids) for kind, ids in ledger.failed.items()}


def put(source: Source, number: int, pixels: np.ndarray, **attributes: object) -> None:
    made = Frame.of(number, pixels, time_ns=number * 10**9, attributes=attributes)
    source.put(source.builder.build(made))


def publish_until_taken(sink: Sink, source: Source, first: int, stored: int) -> None:
    """Publish ids from the first on until more frames are stored than before.

    The server is tried again after some seconds, with frames.
    """
    more = itertools.count(first)

    def takes_again() -> bool:
        source.publish([next(more)], 0.1)
        return sink.user["nStored"] > stored

    wait_until(takes_again, what="a frame that is taken again")


def test_a_second_client_sees_the_images_while_the_run_goes_on(
    sink: Sink, source: Source, server: TiledServer, reader: TiledReader
) -> None:
    about = {"attributes": ["exposure", "absent"], "metadata": {"sample": "nickel"}}
    sink(["--log-level", "info"], batchFrames=7, **about)
    sink.receives()
    for number in range(1, 21):
        put(source, number, image(number), exposure=number / 2)
    # The next ones are not sent before these have been read.
    read = stored(reader, [*range(1, 21)])
    assert sink.program.process.poll() is None
    assert (read["shape"], read["dtype"]) == ([20, 4, 6], "uint16")
    assert read["all"] == [image(n).reshape(-1).tolist() for n in range(1, 21)]
    assert read["time_ns"] == [n * 10**9 for n in range(1, 21)]
    expected = [[str(float(image(n).sum())), str(n / 2), "nan"] for n in range(1, 21)]
    assert read["values"] == expected
    assert read["metadata"]["columns"] == ["sum", "exposure", "absent"]
    assert read["metadata"]["sample"] == "nickel"
    for number in range(21, 51):
        put(source, number, image(number), exposure=number / 2)
    read = stored(reader, [*range(1, 51)])
    assert read["arrays"] == ["count", "id", "image", "time_ns", "values"]
    assert sink.user["container"] == RUN
    # The key is not in the list of processes, and not in the log; nor is a line for each request.
    family = [psutil.Process(sink.program.process.pid)]
    family += family[0].children(recursive=True)
    assert all(server.key not in " ".join(one.cmdline()) for one in family)
    assert sink.end() == 0
    assert list(sink.ledger.processed) == [*range(1, 51)]
    assert server.key not in sink.program.text
    assert "HTTP Request" not in sink.program.text


def test_other_shapes_and_types_and_ids_without_order(
    sink: Sink, source: Source, reader: TiledReader
) -> None:
    sink().receives()
    small = [1, 2, 5, 4, 9]
    for number in small:
        put(source, number, image(number))
    for number in (10, 11):
        put(source, number, image(number).astype(np.float32))
    # The first form again, and a third one.
    put(source, 12, image(12))
    colour = np.full((4, 6, 3), 13, np.uint8)
    put(source, 13, colour)
    read = stored(reader, [*small, 12])
    assert read["dtype"] == "uint16"
    second = wait_until(lambda: (r := reader.read(RUN, "_2"))["count"] == 2 and r)
    assert (second["ids"], second["first"], second["dtype"]) == ([10, 11], [10, 11], "float32")
    third = wait_until(lambda: (r := reader.read(RUN, "_3"))["count"] == 1 and r)
    assert (third["ids"], third["shape"]) == ([13], [1, 4, 6, 3])
    assert third["all"] == [colour.reshape(-1).tolist()]
    sink.end()
    assert {*small, 10, 11, 12, 13} <= {n for one in [sink.ledger] for n in one.processed}
    assert not sink.ledger.failed


def test_a_server_that_is_killed_and_started_again_loses_nothing(
    sink: Sink, source: Source, server: TiledServer, reader: TiledReader
) -> None:
    sink(retryTime=500).receives()
    source.publish(range(1, 31))
    stored(reader, [*range(1, 31)])
    server.kill()
    source.publish(range(31, 61))
    wait_until(lambda: sink.user["nRetries"] > 0, what="an attempt that failed")
    # Not counted, as the server has not taken them.
    assert sink.stats["nProcessed"] == 30
    server.start()
    source.publish(range(61, 91))
    stored(reader, [*range(1, 91)])
    assert sink.end() == 0
    assert list(sink.ledger.processed) == [*range(1, 91)]
    assert sink.program.text.count("does not answer") == 1


def test_a_server_that_hangs_for_a_while_has_no_row_twice(
    sink: Sink, source: Source, server: TiledServer, reader: TiledReader
) -> None:
    sink(retryTime=500, requestTimeout=1).receives()
    source.publish(range(1, 11))
    stored(reader, [*range(1, 11)])
    server.halt(True)
    try:
        source.publish(range(11, 41))
        # The requests reach it, and their replies are not waited for.
        wait_until(lambda: sink.user["nRetries"] > 1, what="attempts without a reply")
    finally:
        server.halt(False)
    stored(reader, [*range(1, 41)])
    assert sink.end() == 0
    assert list(sink.ledger.processed) == [*range(1, 41)]


def test_what_a_server_that_is_gone_does_not_take_is_named_and_the_stage_goes_on(
    sink: Sink, source: Source, server: TiledServer, reader: TiledReader
) -> None:
    sink(retryTime=0.5).receives()
    source.publish(range(1, 11))
    stored(reader, [*range(1, 11)])
    server.kill()
    source.publish(range(11, 21))
    wait_until(lambda: sink.user["nLost"] == 10, what="the frames that were given up")
    source.publish(range(21, 31))
    wait_until(lambda: sink.user["nLost"] == 20, what="the frames that were given up")
    server.start()

    publish_until_taken(sink, source, 31, stored=10)
    assert sink.end() == 1
    ledger = sink.ledger
    assert [*kinds(ledger)] == ["tiled: no answer"]
    lost = kinds(ledger)["tiled: no answer"]
    assert {*range(11, 31)} <= {*lost}
    assert {*ledger.processed}.isdisjoint(lost)
    assert {*ledger.processed} | {*lost} == {*ledger.received} - {*ledger.skipped}
    assert reader.read(RUN)["ids"] == list(ledger.processed)


def test_a_disk_that_is_full_fails_the_frames_that_are_not_stored(
    pythons: tuple[Path, Path],
    commands: Commands,
    source: Source,
    small_disk: Path,
    tmp_path: Path,
) -> None:
    options = (tmp_path / "catalog.db", "--init", "--write", small_disk)
    with TiledServer(pythons[0], *options) as server:
        reader = TiledReader(pythons[0], server)
        sink = Sink(commands, pythons[1], source, server, tmp_path)
        sink(retryTime=0.5, batchFrames=4).receives()
        done = 0
        noise = np.random.default_rng(1)
        for number in range(1, 41):
            pixels = noise.integers(0, 1 << 16, (512, 512), np.uint16)
            pixels[0, 0] = number
            put(source, number, pixels)
            done = number
            wait_until(lambda: sink.user["nStored"] + sink.user["nLost"] >= done)  # noqa: B023
            if sink.user["nLost"] > 5:
                break
        assert sink.end() == 1
        ledger = sink.ledger
        assert [*kinds(ledger)] == ["tiled: server error"]
        read = reader.read(RUN)
        reader.close()
    # What was counted is there, with its pixels; what is not there was not counted.
    assert read["ids"] == read["first"] == list(ledger.processed)
    assert len(ledger.processed) > 5
    assert len(ledger.processed) + len(kinds(ledger)["tiled: server error"]) == done


def test_a_server_that_hangs_at_stop_does_not_keep_the_stage(
    sink: Sink, source: Source, server: TiledServer, reader: TiledReader
) -> None:
    sink(drainTimeout=1).receives()
    source.publish(range(1, 11))
    stored(reader, [*range(1, 11)])
    server.halt(True)
    try:
        source.publish(range(11, 21))
        wait_until(lambda: sink.user["nQueued"] == 10, what="frames that wait")
        assert sink.end() == 1
    finally:
        server.halt(False)
    assert kinds(sink.ledger) == {"tiled: left at stop": [*range(11, 21)]}
    assert list(sink.ledger.processed) == [*range(1, 11)]


def test_frames_for_which_the_queue_has_no_room_are_named(
    sink: Sink, source: Source, server: TiledServer, reader: TiledReader
) -> None:
    # 48 bytes an image.
    sink(retryTime=500, queueMB=48 * 10 / 1e6).receives()
    source.publish([1])
    stored(reader, [1])
    server.kill()
    source.publish(range(2, 22))
    wait_until(lambda: sink.stats["nErrors"] == 10, what="the frames without room")
    server.start()
    stored(reader, [*range(1, 12)])
    assert sink.end() == 1
    assert kinds(sink.ledger) == {"process: TiledQueueError": [*range(12, 22)]}
    assert list(sink.ledger.processed) == [*range(1, 12)]


def test_a_key_that_is_wrong_or_replaced(
    sink: Sink, source: Source, server: TiledServer, reader: TiledReader, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text("0123456789abcdef")
    sink(apiKeyFile=str(file))
    assert sink.program.wait() != 0
    assert "denies access" in sink.program.text
    assert "0123456789abcdef" not in sink.program.text
    file.write_text(f"{server.key}\n")
    sink(apiKeyFile=str(file), retryTime=500).receives()
    source.publish(range(1, 11))
    stored(reader, [*range(1, 11)])
    # The key of before is worth nothing any more.
    old = server.key
    server.kill()
    server.key = old[::-1]
    server.start()
    source.publish(range(11, 21))
    wait_until(lambda: sink.program.text.count("denies access") > 0, what="a refusal")
    assert sink.stats["nProcessed"] == 10
    file.write_text(server.key)
    wait_until(lambda: sink.stats["nProcessed"] == 20, what="the frames after the refusal")
    assert sink.end() == 0
    assert list(sink.ledger.processed) == [*range(1, 21)]
    assert server.key not in sink.program.text
    assert old not in sink.program.text


def test_a_name_of_another_run_is_refused_and_one_of_the_same_run_gets_a_number(
    sink: Sink,
    source: Source,
    reader: TiledReader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PVAPY_STREAM_RUN", "one")
    sink().receives()
    source.publish(range(1, 6))
    stored(reader, [*range(1, 6)])
    assert sink.end() == 0
    monkeypatch.setenv("PVAPY_STREAM_RUN", "other")
    sink()
    assert sink.program.wait() != 0
    assert "is of another run" in sink.program.text
    monkeypatch.setenv("PVAPY_STREAM_RUN", "one")
    sink().receives()
    source.publish(range(6, 11))
    stored(reader, [*range(6, 11)], f"{RUN}.2")
    assert sink.end() == 0
    assert reader.read(RUN)["ids"] == [*range(1, 6)]


def test_a_server_that_comes_after_the_stage(
    sink: Sink, source: Source, server: TiledServer
) -> None:
    server.kill()
    sink(retryTime=500)
    wait_until(lambda: "frames wait for it" in sink.program.text, what="the message")
    sink.receives()
    source.publish(range(1, 11))
    wait_until(lambda: sink.user["nQueued"] == 10, what="frames that wait")
    server.start()
    wait_until(lambda: sink.stats["nProcessed"] == 10, what="the frames that waited")
    assert sink.end() == 0
    assert list(sink.ledger.processed) == [*range(1, 11)]


@pytest.mark.parametrize("retry", [0, 500])
def test_a_reply_that_is_lost(
    sink: Sink, source: Source, server: TiledServer, reader: TiledReader, retry: int
) -> None:
    with LosesReply(server.port) as connection:
        sink(uri=connection.address, retryTime=retry, batchFrames=5).receives()
        source.publish(range(1, 6))
        stored(reader, [*range(1, 6)])
        connection.at = b"/count"
        source.publish(range(6, 11))
        # The server counts them, and nobody is told.
        stored(reader, [*range(1, 11)])
        wait_until(lambda: connection.lost, what="the lost reply")
        if retry:
            # They are written again, where they were.
            source.publish(range(11, 16))
            stored(reader, [*range(1, 16)])
            assert sink.end() == 0
            assert list(sink.ledger.processed) == [*range(1, 16)]
            return
        wait_until(lambda: sink.user["nLost"] == 5, what="the frames that were given up")
        publish_until_taken(sink, source, 11, stored=5)
        assert sink.end() == 1
        # What a reader may have seen stays as it was; the next rows are elsewhere.
        assert reader.read(RUN)["ids"] == [*range(1, 11)]
        again = reader.read(RUN, "_2")
        assert again["ids"] == again["first"]
        assert [*range(1, 6), *again["ids"]] == list(sink.ledger.processed)
        assert kinds(sink.ledger)["tiled: no answer"][:5] == [*range(6, 11)]
