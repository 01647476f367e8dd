"""Messages on disk that exceed the limits of memory.

The files have no name in the folder: their space is released when the program ends, also by a kill.
"""

from __future__ import annotations

import logging
import os
import struct
import tempfile
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from pvapy_stream.bsread.packing import Buffer
from pvapy_stream.bsread.stored import Stored
from pvapy_stream.errors import FileError, SettingsError

_RECORD = struct.Struct("<qqQIII")
_BLOB = struct.Struct("<Q")
_SEGMENTS = 16
_SMALLEST_SEGMENT = 2**20
_LARGEST_SEGMENT = 2**30
_MOST_BUFFERS = 512  # of one call

_log = logging.getLogger(__name__)


class _SpillFile:
    """One file."""

    def __init__(self, folder: Path, first: int) -> None:
        self.first = first
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)
        self.offsets = array("Q", [0])
        self.headers: list[bytes] = []

    @property
    def size(self) -> int:
        return self.offsets[-1]

    def write(self, message: Stored) -> None:
        if not self.headers or self.headers[-1] is not message.header:
            self.headers.append(message.header)
        blobs = message.blobs
        record = _RECORD.pack(
            message.pulse_id,
            message.timestamp_ns,
            message.cost,
            len(self.headers) - 1,
            len(message.main),
            len(message.lengths),
        )
        sizes = b"".join(_BLOB.pack(len(blob)) for blob in blobs)
        head = struct.pack("<I", len(blobs)) + record + sizes
        pieces: list[Buffer] = [head, message.main, message.lengths, *blobs]
        self.offsets.append(self.size + self._write(pieces))

    def _write(self, pieces: Sequence[Buffer]) -> int:
        total, descriptor, end = 0, self.file.fileno(), self.size
        for index in range(0, len(pieces), _MOST_BUFFERS):
            group = list(pieces[index : index + _MOST_BUFFERS])
            while group:
                written = os.pwritev(descriptor, group, end + total)
                total += written
                while group and written >= len(group[0]):
                    written -= len(group.pop(0))
                if group:
                    group[0] = memoryview(group[0])[written:]
        return total

    def read(self, sequence: int) -> Stored:
        begin, end = self.offsets[sequence - self.first], self.offsets[sequence - self.first + 1]
        raw = memoryview(os.pread(self.file.fileno(), end - begin, begin))
        if len(raw) != end - begin:
            raise OSError(f"{len(raw)} of {end - begin} bytes could be read")
        (n_blobs,) = struct.unpack_from("<I", raw)
        pulse_id, time, cost, header, main, lengths = _RECORD.unpack_from(raw, 4)
        sizes = struct.unpack_from(f"<{n_blobs}Q", raw, 4 + _RECORD.size)
        at = 4 + _RECORD.size + n_blobs * _BLOB.size
        pieces: list[memoryview] = []
        for size in (main, lengths, *sizes):
            pieces.append(raw[at : at + size])
            at += size
        header_bytes = self.headers[header]
        return Stored(pulse_id, time, pieces[0], header_bytes, bytes(pieces[1]), pieces[2:], cost)


class Spill:
    """The oldest messages, in files of one folder. For one thread.

    Args:
        folder: where the files are.
        limit: bytes that they may take.

    Attributes:
        error: why nothing more is written, or "".
        first: sequence number of the oldest message; where `write` says False, of none.

    Raises:
        SettingsError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._segment_size = min(max(limit // _SEGMENTS, _SMALLEST_SEGMENT), _LARGEST_SEGMENT)
        self._segments: deque[_SpillFile] = deque()
        self.first = 0
        self.error = ""
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise SettingsError(
                f"--spill-folder: cannot write to {folder}: {error.strerror}"
            ) from error

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self._segments)

    def write(self, sequence: int, message: Stored) -> bool:
        """Keep the next message; whether that was possible.

        If not, everything on disk is dropped, so that kept messages have no gaps.
        """
        try:
            if not self._segments or self._segments[-1].size >= self._segment_size:
                self._segments.append(_SpillFile(self._folder, sequence))
            self._segments[-1].write(message)
        except OSError as error:
            self._fail(error)
            return False
        self.error = ""
        while self.nbytes > self._limit and len(self._segments) > 1:
            self._segments.popleft().file.close()
        self.first = self._segments[0].first
        return True

    def _fail(self, error: OSError) -> None:
        if not self.error:
            _log.error(
                "cannot write to %s: %s; older messages are dropped", self._folder, error.strerror
            )
        self.error = f"cannot write to {self._folder}: {error.strerror}"
        self.close()

    def read(self, sequence: int) -> Stored:
        """A message that is there.

        Raises:
            FileError: it cannot be read.
        """
        index = bisect_right(self._segments, sequence, key=lambda segment: segment.first) - 1
        try:
            return self._segments[index].read(sequence)
        except (OSError, struct.error) as error:
            raise FileError(f"cannot read message {sequence} in {self._folder}: {error}") from error

    def close(self) -> None:
        """Release the space."""
        while self._segments:
            self._segments.popleft().file.close()
