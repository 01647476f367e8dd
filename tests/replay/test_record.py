"""The recorder: as a processor in this process, and as a command."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.errors import FileError, SettingsError
from pvapy_stream.files.recorded import RecordedStream
from pvapy_stream.frame import Frame
from pvapy_stream.processors import StreamRecorder
from pvapy_stream.pva.ntndarray import ObjectBuilder, to_frame
from pvapy_stream.pva.serial import dumps, loads
from pvapy_stream.settings import RecordSettings
from pvapy_stream.testing import ProcessorRun, Result, image_object
from tests.support import Commands, Source, image, wait_for_monitors, wait_until


def recorded(path: Path) -> list[Any]:
    """The objects of a recording."""
    with RecordedStream(path) as stream:
        return [loads(row.data) for row in stream.rows()]


def record(objects: list[Any], path: Path, **args: Any) -> Result:
    run = ProcessorRun(StreamRecorder, args={"outputFile": str(path), **args})
    for obj in objects:
        run.feed(obj)
    return run.finish()


def test_objects_are_recorded_with_all_their_fields_and_payloads_as_they_came(
    tmp_path: Path,
) -> None:
    payload = np.frombuffer(np.random.default_rng(1).bytes(5000), np.uint8)
    packed = Frame(
        7, payload, (64, 64), time_ns=5_000_000_007, dtype=np.dtype("u2"), codec="bslz4",
        attributes={"energy": 8.5, "sample": "salt"},
    )  # fmt: skip
    other = pva.PvObject(
        {"uniqueId": pva.INT, "temperatures": [pva.DOUBLE], "alarm": {"message": pva.STRING}},
        {"uniqueId": 8, "temperatures": [1.5, 2.5], "alarm": {"message": "cold"}},
        "facility:thing:1.0",
    )
    sent = [ObjectBuilder().build(packed), image_object(image(3), id=9)]
    result = record(sent, tmp_path / "a.h5")
    assert result.ok, result.last_error
    assert list(result.ledger.processed) == [7, 9]
    found = recorded(tmp_path / "a.h5")
    assert [one.toDict().keys() for one in found] == [one.toDict().keys() for one in sent]
    assert [dumps(one) for one in found] == [dumps(one) for one in sent]
    frame = to_frame(found[0])
    assert (frame.codec, frame.payload.tobytes()) == ("bslz4", payload.tobytes())
    assert record([other], tmp_path / "b.h5").ok
    (thing,) = recorded(tmp_path / "b.h5")
    assert str(thing) == str(other)


def test_arrival_times_are_those_of_the_delivery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(10**12, 10**13, 2_000_000))
    recorder = StreamRecorder({"outputFile": str(tmp_path / "a.h5")})
    run = ProcessorRun(recorder)
    monkeypatch.setattr(
        "pvapy_stream.processors.stream_recorder.time.perf_counter_ns", lambda: next(times)
    )
    recorder._ending = True  # The writer asks for the time, too.
    recorder._thread.join()
    for number in range(1, 6):
        run.feed(image_object(id=number))
    monkeypatch.undo()
    recorder._run()
    assert run.finish().ok
    with RecordedStream(tmp_path / "a.h5") as stream:
        assert np.diff(stream.arrivals).tolist() == [2_000_000] * 4
        assert list(stream.ids) == [1, 2, 3, 4, 5]


def test_what_comes_after_a_limit_is_rejected(tmp_path: Path) -> None:
    objects = [image_object(id=number) for number in range(1, 8)]
    result = record(objects, tmp_path / "a.h5", nObjects=4)
    assert result.ok
    assert list(result.ledger.processed) == [1, 2, 3, 4]
    assert {k: list(v) for k, v in result.ledger.rejected.items()} == {
        "limit of the recording": [5, 6, 7]
    }
    with RecordedStream(tmp_path / "a.h5") as stream:
        assert (list(stream.ids), stream.limited, stream.problem) == ([1, 2, 3, 4], True, "")
    size = 3 * 4096 * 2
    images = [image_object(np.zeros((64, 64), np.uint16), id=number) for number in range(1, 8)]
    result = record(images, tmp_path / "b.h5", maxSize=(size + 8192) / 1e6)
    assert list(result.ledger.processed) == [1, 2, 3]


def test_wrong_values_and_a_file_that_exists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="StreamRecorder: outputFile"):
        StreamRecorder({})
    with pytest.raises(SettingsError, match=r"StreamRecorder: .*nObjects"):
        StreamRecorder({"outputFile": "a.h5", "nObjects": -1})
    (tmp_path / "a.h5").write_text("mine")
    with pytest.raises(FileError, match=r"a\.h5 exists; give another name"):
        record([], tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_text() == "mine"
    with pytest.raises(SettingsError, match="the processor is the recorder"):
        RecordSettings.of(input_channel="a", output="b", processor_class="x.Y")
    with pytest.raises(SettingsError, match="receiver_queue_size"):
        RecordSettings.of(input_channel="a", output="b", receiver_queue_size=5)


def test_on_a_full_disk_what_fits_is_recorded_and_the_rest_has_failed(small_disk: Path) -> None:
    images = [image_object(np.full((256, 256), n, np.uint16), id=n) for n in range(1, 101)]
    result = record(images, small_disk / "a.h5")
    assert not result.ok
    assert "no space left on device" in result.last_error
    found = recorded(small_disk / "a.h5")
    ids = [to_frame(one).id for one in found]
    assert ids == list(range(1, len(ids) + 1))
    assert 10 < len(ids) < 100
    assert list(result.ledger.processed) == ids
    failed = [n for some in result.ledger.failed.values() for n in some]
    assert sorted(failed) == list(range(len(ids) + 1, 101))
    assert not result.ledger.without_fate()
    for n, one in zip(ids, found, strict=True):
        assert (to_frame(one).image == n).all()
    with RecordedStream(small_disk / "a.h5") as stream:
        assert "its recording ended early: cannot write" in stream.problem


def test_the_command_records_until_it_is_stopped_or_a_limit_is_reached(
    source: Source, prefix: str, commands: Commands, tmp_path: Path
) -> None:
    file, ledger = tmp_path / "a.h5", tmp_path / "ledger.json"
    stopped = commands(
        *("record", "-ic", source.channel, "-o", file, "--ledger", ledger, "-sc", f"{prefix}a"),
        *("--status-period", "0.2", "-sqs", 100),
    )
    limited = commands(
        *("record", "-ic", source.channel, "-o", tmp_path / "b.h5", "--n-objects", 20),
        *("-sc", f"{prefix}b", "--status-period", "0.2", "-sqs", 100),
    )
    wait_for_monitors([f"{prefix}a", f"{prefix}b"])
    source.publish(range(1, 31), period=0.01)
    assert limited.wait() == 0, limited.text
    assert "b.h5: 20 objects within 0." in limited.text
    assert "20 of 20 ids are in 1 files" in limited.text
    wait_until(lambda: str(read_ledgers(ledger)[0].processed) == "1-30")
    stopped.signal(signal.SIGINT)
    assert stopped.wait() == 0, stopped.text
    assert "30 of 30 ids are in 1 files" in stopped.text
    assert [one["uniqueId"] for one in recorded(file)] == list(range(1, 31))
    for one in recorded(tmp_path / "b.h5"):
        frame = to_frame(one)
        assert (frame.image == image(frame.id)).all()
