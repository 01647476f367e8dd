"""Rows that are in a file though their flush failed, as a disk that is full makes it."""

from __future__ import annotations

import errno
from pathlib import Path

import h5py
import pytest

from pvapy_stream.bsread import file as file_module
from pvapy_stream.bsread.file import SwissfelFile
from pvapy_stream.errors import FileError
from pvapy_stream.files.completeness import verify
from pvapy_stream.files.ending import Ending
from tests.bsread.messages import Stream, scalars


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _written_and_not_flushed(path: Path, monkeypatch: pytest.MonkeyPatch) -> SwissfelFile:
    """A file of the pulses 1 to 3, whose flush fails once the ids of 2 and 3 are appended."""
    stream = Stream(*scalars("A"))
    file = SwissfelFile(path)
    file.add(stream.message(1, {"A": 0.5}))
    file.flush()
    for pulse in (2, 3):
        file.add(stream.message(pulse, {"A": pulse / 2}))
    flush = h5py.File.flush

    def after_append(h5: h5py.File) -> None:
        flush(h5)
        if len(h5["acquisition/pulse_id"]) > 1:
            _full()

    monkeypatch.setattr(h5py.File, "flush", after_append)
    with pytest.raises(FileError, match="no space"):
        file.flush()
    assert list(file.unwritten) == [2, 3]
    return file


def test_rows_that_a_closed_file_has_do_not_wait_and_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.h5"
    file = _written_and_not_flushed(path, monkeypatch)
    with pytest.raises(FileError, match="no space"):
        file.close(Ending(lost=[(4, 6)]))
    assert list(verify(path).ids) == [1, 2, 3]
    assert file.saved is not None
    assert list(file.saved) == [1, 2, 3]
    assert list(file.unwritten) == []
    assert file.lost == [(4, 6)]
    with h5py.File(path) as h5:
        assert h5["acquisition/lost"][()].tolist() == [[4, 6]]


def test_rows_of_a_file_that_cannot_be_completed_do_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.h5"
    file = _written_and_not_flushed(path, monkeypatch)
    monkeypatch.setattr(file_module, "complete", _full)
    with pytest.raises(FileError, match="no space"):
        file.close(Ending(lost=[(4, 6)]))
    assert list(verify(file.part).ids) == [1, 2, 3]
    assert file.saved is not None
    assert list(file.saved) == [1, 2, 3]
    assert list(file.unwritten) == []
    assert file.lost == [(4, 6)]


def test_an_id_that_came_before_is_still_waiting_when_its_second_row_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.h5"
    stream = Stream(*scalars("A"))
    file = SwissfelFile(path)
    file.add(stream.message(1, {"A": 0.5}))
    file.flush()
    file.add(stream.message(1, {"A": 1.5}))
    monkeypatch.setattr(h5py.File, "flush", _full)
    with pytest.raises(FileError, match="no space"):
        file.close()
    assert list(verify(path).ids) == [1]
    # In a second epoch this is another pulse.
    assert list(file.unwritten) == [1]
