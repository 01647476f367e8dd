"""Wake-up of a sleeping subscriber: a FIFO to which publishers write.

A named pipe is used and not an eventfd, because a publisher must be able to open it by its name.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from pathlib import Path

from pvapy_stream.transport.shm.user_folder import why_foreign

_READ_SIZE = 4096  # bytes; more than the wake-ups that can be pending


class WakeupFifo:
    """The subscriber's end. The file is locked as long as its owner lives."""

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file = file
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLIN)

    def wait(self, seconds: float) -> None:
        """Wait for a wake-up for a limited time; other threads run meanwhile."""
        if self._poll.poll(seconds * 1000):
            with contextlib.suppress(BlockingIOError):
                os.read(self._file, _READ_SIZE)

    def notify(self) -> None:
        """Wake the thread of this process that waits."""
        _write(self._file)

    def close(self) -> None:
        """Close the FIFO and remove it."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


class WakeupWriter:
    """A publisher's end of a subscriber's FIFO; without effect if there is no such FIFO."""

    def __init__(self, path: Path) -> None:
        self._file = _open_writer(path)

    def notify(self) -> None:
        """Wake the subscriber."""
        if self._file >= 0:
            _write(self._file)

    def close(self) -> None:
        """Close this end; the FIFO stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _open_writer(path: Path) -> int:
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # Checked before it is opened: opening a device can have effects.
        if why_foreign(path.lstat(), stat.S_IFIFO):
            return -1
        return os.open(path, flags)
    except OSError:
        return -1


def _write(file: int) -> None:
    # A full pipe wakes its reader as well, and a reader that has disconnected needs no wake-up.
    with contextlib.suppress(OSError):
        os.write(file, b"!")
