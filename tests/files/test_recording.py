"""Recordings: files of objects as bytes, with their arrival times."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pvapy_stream.errors import FileError
from pvapy_stream.files.completeness import verify
from pvapy_stream.files.recorded import RecordedStream
from pvapy_stream.files.recording import RecordingFile
from pvapy_stream.files.repair import repair

_START = 1_700_000_000_000_000_000  # ns

_RECORD_UNTIL_KILLED = """
import os, signal, sys
from pathlib import Path
from pvapy_stream.files.recording import RecordingFile
from pvapy_stream.files.repair import repair
from pvapy_stream.files.completeness import verify
file = RecordingFile(Path(sys.argv[1]))
for number in range(1, 6):
    file.add(number, number, [bytes([number]) * 100])
file.flush()
file.add(6, 6, [b"not flushed"])
os.kill(os.getpid(), signal.SIGKILL)
"""


def content(number: int, size: int) -> bytes:
    """Bytes that tell their object, and differ all over."""
    return np.random.default_rng(number).bytes(size)


def record(path: Path, n: int, size: int = 1000) -> None:
    """Record objects 1 to n, which came 1 ms after another."""
    file = RecordingFile(
        path, {"input_channel": "a", "mode": "pva", "stage": "consumer 1", "run": "r"}
    )
    for number in range(1, n + 1):
        data = content(number, size)
        file.add(_START + number * 1_000_000, number, [data[:7], memoryview(data)[7:]])
        if number % 500 == 0:
            # As often as time has it done.
            file.flush()
    file.close()


def test_objects_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.h5"
    record(path, 2500)
    assert not path.with_name("a.h5.part").exists()
    with RecordedStream(path) as stream:
        rows = [(row.arrival_ns, row.id, bytes(row.data)) for row in stream.rows()]
        again = [row.id for row in stream.rows()]
        assert (stream.problem, stream.channel, stream.mode) == ("", "a", "pva")
        assert not stream.unreadable
    numbers = range(1, 2501)
    assert rows == [(_START + k * 1_000_000, k, content(k, 1000)) for k in numbers]
    assert again == list(numbers)


def test_objects_may_be_larger_than_what_is_read_at_a_time_and_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    large = content(1, 3_000_000)
    file = RecordingFile(path)
    for number, data in enumerate((large, b"x", large), 1):
        file.add(number, number, [data])
    file.close()
    with RecordedStream(path) as stream:
        assert [bytes(row.data) for row in stream.rows()] == [large, b"x", large]
    RecordingFile(tmp_path / "empty.h5").close()
    with RecordedStream(tmp_path / "empty.h5") as stream:
        assert (stream.n_rows, list(stream.rows()), stream.problem) == (0, [], "")


def test_a_killed_recorder_leaves_a_readable_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    done = subprocess.run([sys.executable, "-c", _RECORD_UNTIL_KILLED, path], timeout=60)
    assert done.returncode == -signal.SIGKILL
    with RecordedStream(tmp_path / "a.h5.part") as stream:
        assert [(row.id, bytes(row.data)) for row in stream.rows()] == [
            (number, bytes([number]) * 100) for number in range(1, 6)
        ]
        assert stream.problem == "its recorder was killed, or has not ended"
    # It is not replaced.
    with pytest.raises(FileError, match=r"a\.h5\.part exists: it is being recorded, or"):
        RecordingFile(path, overwrite=True)


def test_the_recording_of_a_killed_recorder_is_verified_and_completed(tmp_path: Path) -> None:
    part = tmp_path / "a.h5.part"
    subprocess.run([sys.executable, "-c", _RECORD_UNTIL_KILLED, tmp_path / "a.h5"], timeout=60)
    report = verify(part)
    assert (report.ok, report.n_checked, str(report.ids)) == (False, 5, "1-5")
    assert repair(part) == (tmp_path / "a.h5", 5)
    assert not part.exists()
    report = verify(tmp_path / "a.h5")
    assert report.problems == ["its recording ended early: its recorder was killed"]
    with RecordedStream(tmp_path / "a.h5") as stream:
        assert [row.id for row in stream.rows()] == [1, 2, 3, 4, 5]
    with pytest.raises(FileError, match="it is whole; pvapy-stream replay reads it"):
        repair(tmp_path / "a.h5")


def test_recordings_are_verified(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    record(path, 600)
    report = verify(path)
    assert (report.ok, report.state, report.n_images, report.n_checked) == (
        True,
        "closed",
        600,
        600,
    )
    with h5py.File(path, "r+") as file:
        file["objects/bytes"][4500] ^= 1
    report = verify(path)
    assert report.problems == ["objects are damaged: ids 5"]
    assert str(report.ids) == "1-4,6-600"
    os.truncate(path, path.stat().st_size - 1000)
    with pytest.raises(FileError, match="its end is missing; pvapy-stream replay reads it"):
        repair(path)


def test_a_recording_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    file = RecordingFile(tmp_path / "a.h5")
    file.add(1, 1, [b"one"])
    file.flush()
    with RecordedStream(file.part) as stream:
        assert [bytes(row.data) for row in stream.rows()] == [b"one"]
    file.add(2, 2, [b"two"])
    file.close()
    with RecordedStream(file.path) as stream:
        assert [bytes(row.data) for row in stream.rows()] == [b"one", b"two"]


@pytest.mark.parametrize("part", [0.3, 0.7, 0.95])
def test_what_is_left_of_a_file_that_is_cut_is_read(tmp_path: Path, part: float) -> None:
    path = tmp_path / "a.h5"
    record(path, 4000)
    size = path.stat().st_size
    os.truncate(path, int(size * part))
    before = path.read_bytes()
    with RecordedStream(path) as stream:
        ids = []
        for row in stream.rows():
            assert bytes(row.data) == content(row.id, 1000)
            ids.append(row.id)
        assert stream.problem == "its end is missing"
        assert ids == list(range(1, len(ids) + 1))
        # Little else than what is missing is lost.
        assert len(ids) > 4000 * part - 1200
        assert list(stream.unreadable) == list(range(len(ids) + 1, stream.n_rows + 1))
    assert path.read_bytes() == before


def test_an_object_with_a_wrong_bit_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    record(path, 20)
    with h5py.File(path, "r+") as file:
        file["objects/bytes"][4500] ^= 1
    with RecordedStream(path) as stream:
        assert [row.id for row in stream.rows()] == [k for k in range(1, 21) if k != 5]
        assert list(stream.unreadable) == [5]


def test_files_that_are_no_recordings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot read .*none\.h5: No such file"):
        RecordedStream(tmp_path / "none.h5")
    with pytest.raises(FileError, match="cannot read"):
        RecordedStream(tmp_path)
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(FileError, match=r"cannot read .*file signature not found"):
        RecordedStream(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = [1, 2]
    with pytest.raises(FileError, match=r"other\.h5 is no recording of pvapy-stream record; only"):
        RecordedStream(tmp_path / "other.h5")
    record(tmp_path / "new.h5", 1)
    with h5py.File(tmp_path / "new.h5", "r+") as file:
        file.attrs["format"] = "pvapy_stream recording 2"
    with pytest.raises(FileError, match="is pvapy_stream recording 2; only"):
        RecordedStream(tmp_path / "new.h5")
    with pytest.raises(FileError, match=r"new\.h5 exists; give another name"):
        RecordingFile(tmp_path / "new.h5")


def test_a_disk_that_is_full_for_a_while_loses_nothing_that_was_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = RecordingFile(tmp_path / "a.h5")
    file.add(1, 1, [b"one"])
    file.flush()
    file.add(2, 2, [b"two"])
    with monkeypatch.context() as patch:
        patch.setattr(h5py.File, "flush", full)
        with pytest.raises(FileError, match="no space left on device"):
            file.flush()
        assert list(file.unwritten) == [2]
        with pytest.raises(FileError, match="no space left on device"):
            file.close()
    with RecordedStream(file.path) as stream:
        assert [bytes(row.data) for row in stream.rows()] == [b"one"]
        assert "its recording ended early: cannot write" in stream.problem
