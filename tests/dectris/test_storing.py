"""Buffer and writer at a detector: ranges by id, whose pixels tell which images they are."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - reads the chunks
import numpy as np
import pytest

from pvapy_stream.daq.states import Phase
from pvapy_stream.daq.writer import AcquisitionWriter
from pvapy_stream.files.completeness import verify
from pvapy_stream.settings import WriterSettings
from pvapy_stream.sim.dectris_detector import pixels_of
from tests.daq.test_buffer import BufferProgram
from tests.dectris.test_programs import LIKE, detector, metadata_of, sent
from tests.ports import free_port
from tests.support import Commands, wait_until

SERIES = 30  # images of each


def writer_of(stream: str, file: Path, layout: str) -> AcquisitionWriter:
    return AcquisitionWriter(
        WriterSettings.of(
            stream=stream, output_file=str(file), user_id=-1, rest_port=0, layout=layout
        )
    )


def check(file: Path, images: str, ids: str, expected: range) -> None:
    """Check that a file has these ids, each with the pixels of its image."""
    with h5py.File(file) as found:
        assert list(found[ids]) == list(expected)
        for image, number in zip(found[images], expected, strict=True):
            series, row = divmod(number - 1, SERIES)
            assert np.array_equal(image, pixels_of(series + 1, row, 1, LIKE))


@pytest.mark.parametrize("layout", ["nexus", "swissfel"])
def test_a_range_of_two_series(commands: Commands, tmp_path: Path, layout: str) -> None:
    address, file = f"tcp://127.0.0.1:{free_port()}", tmp_path / "run.h5"
    writer = writer_of(f"dectris://{address}", file, layout)
    one = writer.start(6, stop_pulse_id=50)
    detector(commands, address, "-n", SERIES, "--n-series", 2, "-fps", 100)
    assert one.over.wait(120), one.progress()
    assert (one.phase, one.progress().n_lost) == (Phase.DONE, 0)
    writer.close()
    if layout == "swissfel":
        with h5py.File(file) as found:
            (name,) = (f"data/{key}" for key, one in found["data"].items() if _has_images(one))
        check(file, f"{name}/data", f"{name}/pulse_id", range(6, 51))
        return
    check(file, "entry/data/data", "entry/data/id", range(6, 51))
    assert metadata_of(file)[0] == sent(100)
    assert verify(file).ok


def _has_images(channel: h5py.Group) -> bool:
    return channel["data"].ndim == 3


def test_an_acquisition_that_begins_with_the_first_image_and_is_stopped_by_id(
    commands: Commands, tmp_path: Path
) -> None:
    address, file = f"tcp://127.0.0.1:{free_port()}", tmp_path / "run.h5"
    writer = writer_of(f"dectris://{address}", file, "nexus")
    one = writer.start(None)
    assert detector(commands, address, "-n", SERIES, "-fps", 200).wait() == 0
    wait_until(lambda: one.progress().last_pulse_id == SERIES)
    one.stop(SERIES - 3)
    assert one.over.wait(60), one.progress()
    assert (one.phase, one.progress().n_lost) == (Phase.DONE, 0)
    writer.close()
    check(file, "entry/data/data", "entry/data/id", range(1, SERIES - 2))


def test_a_range_of_the_past_from_a_buffer(commands: Commands, tmp_path: Path) -> None:
    address, file = f"tcp://127.0.0.1:{free_port()}", tmp_path / "run.h5"
    buffer = BufferProgram(commands, f"dectris://{address}", "-b", 1000)
    sim = detector(commands, address, "-n", SERIES, "--n-series", 2, "-fps", 200)
    assert sim.wait() == 0
    wait_until(lambda: buffer.status()["newest"] == 2 * SERIES, what=str(buffer.status()))
    assert buffer.status()["oldest"] == 1
    writer = writer_of(buffer.ranges.replace("tcp://", "buffer://"), file, "nexus")
    one = writer.start(6, stop_pulse_id=50)
    assert one.over.wait(60), one.progress()
    assert (one.phase, one.progress().n_lost) == (Phase.DONE, 0)
    writer.close()
    check(file, "entry/data/data", "entry/data/id", range(6, 51))
    assert verify(file).ok
