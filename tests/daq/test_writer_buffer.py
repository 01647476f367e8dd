from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pvapy_stream.daq.states import Phase
from pvapy_stream.daq.writer import AcquisitionWriter
from pvapy_stream.settings import WriterSettings
from tests.daq.sending import lost
from tests.daq.support import RunningBuffer, running, time_of, values_of
from tests.support import wait_until


@pytest.fixture
def buffer() -> Iterator[RunningBuffer]:
    with running(buffer_length=100) as made:
        yield made


def writer_of(buffer: RunningBuffer, folder: Path, **options: Any) -> AcquisitionWriter:
    address = buffer.buffer.server.address.replace("tcp://", "buffer://")
    return AcquisitionWriter(
        WriterSettings.of(
            stream=address,
            output_file=str(folder),
            user_id=-1,
            rest_port=0,
            **{"service": True, "parallel": 4, **options},
        )
    )


def rows(path: Path) -> list[int]:
    """Pulse ids of a file with all values as they were sent."""
    with h5py.File(path) as file:
        pulses = file["acquisition/pulse_id"][()].tolist()
        data = file["data"]
        assert data["number/data"][:, 0].tolist() == pulses
        assert data["number/timestamp"][()].tolist() == [time_of(p) + 1 for p in pulses]
        texts = data["text/data"].asstr()[()].tolist()
        assert texts == [values_of(p)["text"] for p in pulses]
        assert all(
            np.array_equal(wave, values_of(p)["wave"])
            for wave, p in zip(data["wave/data"], pulses, strict=True)
        )
    return pulses


def test_a_range_that_began_50_pulses_ago(buffer: RunningBuffer, tmp_path: Path) -> None:
    buffer.fill(range(1, 101))
    writer = writer_of(buffer, tmp_path)
    one = writer.start(51, "run.h5")
    assert one.progress().lost == []
    wait_until(lambda: one.progress().rows == 50)
    one.stop(120)
    buffer.send(range(101, 121))
    assert one.over.wait(5)
    assert (one.phase, one.progress().n_lost) == (Phase.DONE, 0)
    assert rows(tmp_path / "run.h5") == list(range(51, 121))
    writer.close()


def test_a_range_all_in_the_past(buffer: RunningBuffer, tmp_path: Path) -> None:
    buffer.fill(range(1, 101))
    writer = writer_of(buffer, tmp_path)
    one = writer.start(10, "run.h5", 20)
    assert one.over.wait(5)
    assert rows(tmp_path / "run.h5") == list(range(10, 21))
    writer.close()


def test_two_writers_of_one_range_get_all_of_it(buffer: RunningBuffer, tmp_path: Path) -> None:
    buffer.fill(range(1, 101))
    first, second = writer_of(buffer, tmp_path), writer_of(buffer, tmp_path)
    ones = [
        first.start(20, "1.h5", 150),
        second.start(20, "2.h5", 150),
        second.start(120, "3.h5", 140),
    ]
    buffer.send(range(101, 151))
    assert all(one.over.wait(5) for one in ones)
    assert rows(tmp_path / "1.h5") == rows(tmp_path / "2.h5") == list(range(20, 151))
    assert rows(tmp_path / "3.h5") == list(range(120, 141))
    first.close()
    second.close()


def test_a_start_that_the_buffer_has_dropped(buffer: RunningBuffer, tmp_path: Path) -> None:
    buffer.fill(range(1, 201))
    writer = writer_of(buffer, tmp_path)
    one = writer.start(51, "run.h5", 150)
    assert one.progress().lost == [(51, 100)]
    assert one.over.wait(5)
    assert rows(tmp_path / "run.h5") == list(range(101, 151))
    assert lost(tmp_path / "run.h5") == [[51, 100]]
    assert one.progress().n_lost == 50
    writer.close()


def test_a_range_that_is_entirely_gone(buffer: RunningBuffer, tmp_path: Path) -> None:
    buffer.fill(range(1, 201))
    writer = writer_of(buffer, tmp_path)
    one = writer.start(10, "run.h5", 20)
    assert one.over.wait(5)
    assert one.phase is Phase.ERROR
    assert "pulses 10 to 20 are no longer available" in one.progress().problem
    assert lost(tmp_path / "run.h5") == [[10, 20]]
    writer.close()


def test_a_buffer_whose_source_is_silent(buffer: RunningBuffer, tmp_path: Path) -> None:
    buffer.fill(range(1, 11))
    writer = writer_of(buffer, tmp_path)
    one = writer.start(5, "run.h5", 100)
    wait_until(lambda: one.progress().rows == 6)
    found = wait_until(lambda: (p := one.progress()).status == "error" and p)
    assert (found.source, found.phase) == ("silent", "writing")
    writer.end([one])
    assert lost(tmp_path / "run.h5") == [[11, 100]]
    writer.close()


def test_a_buffer_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvapy_stream.daq.feeds._BUFFER_TIMEOUT", 0.5)
    writer = AcquisitionWriter(
        WriterSettings.of(
            stream="buffer://127.0.0.1:9",
            output_file=str(tmp_path / "run.h5"),
            user_id=-1,
            rest_port=0,
        )
    )
    one = writer.start(5)
    assert one.over.wait(5)
    assert one.phase is Phase.ERROR
    assert "sent nothing for 0.5 s" in one.progress().problem
    writer.close()
