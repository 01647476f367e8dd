"""Lanes: iceoryx2 services with one publisher each, and the memory that their samples are in."""

from __future__ import annotations

import ctypes
import hashlib
import os
from pathlib import Path
from typing import Any

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.shm.folder import SHM
from pvapy_stream.transport.shm.nodes import iox

MAX_SUBSCRIBERS = 32  # of one lane: one set of a distributor group, or all outside of groups
BORROWED = 16  # samples a subscriber may keep while it receives others
_LOANED = 2

Bytes = iox.Slice[ctypes.c_uint8]
ReceiveError: Any = iox.ReceiveError


def lane_name(publisher: str, group: str, client_set: str) -> str:
    """Name of the lane of a set; publisher and subscriber make it alike."""
    which = hashlib.sha256(f"{group}\0{client_set}".encode()).hexdigest()[:24]
    return f"pvapy_stream/1/{publisher}/{which}"


def make_lane(of: Any, name: str, queue: int, overflow: bool) -> Any:
    """Make the service of a lane.

    Args:
        of: the node.
        name: see `lane_name`.
        queue: most samples that wait for a subscriber.
        overflow: whether a full queue lets go of its oldest sample.

    Raises:
        TransportError: it cannot be made.
    """
    try:
        return (
            of.service_builder(iox.ServiceName.new(name))
            .publish_subscribe(Bytes)
            .enable_safe_overflow(overflow)
            .history_size(0)
            .max_publishers(2)
            .max_subscribers(MAX_SUBSCRIBERS)
            .max_nodes(2 * MAX_SUBSCRIBERS)
            .subscriber_max_buffer_size(queue)
            .subscriber_max_borrowed_samples(BORROWED)
            .create()
        )
    except Exception as error:
        raise TransportError(f"a lane in shared memory cannot be made: {error}") from error


def open_lane(of: Any, name: str) -> Any | None:
    """The service of a lane; None as long as its publisher has not made it."""
    try:
        return of.service_builder(iox.ServiceName.new(name)).publish_subscribe(Bytes).open()
    except iox.PublishSubscribeOpenError:
        return None


class Samples:
    """Where a lane's publisher gets its samples: chunks of one size.

    Raises:
        TransportError: there is too little shared memory for a few of them.
    """

    def __init__(self, service: Any, size: int, waiting: int) -> None:
        self.size = size
        self._type = ctypes.c_uint8 * size
        self._known: set[int] = set()
        self._segment: tuple[int, int, int] | None = None
        self._file = -1
        _check_room(size, waiting)
        try:
            self._port = (
                service.publisher_builder()
                .initial_max_slice_len(size)
                .max_loaned_samples(_LOANED)
                .backpressure_strategy(iox.BackpressureStrategy.DiscardData)
                .create()
            )
        except Exception as error:
            raise TransportError(
                f"shared memory for objects of {size / 1e6:.1f} MB cannot be had: {error}"
            ) from error

    def loan(self) -> tuple[Any, Any, int] | None:
        """A sample, its memory and where that begins; None when all are in use.

        Raises:
            TransportError: shared memory is full.
        """
        try:
            sample = self._port.loan_slice_uninit(self.size)
        except iox.LoanError:
            return None
        address = sample.payload_ptr
        if address not in self._known:
            self._reserve(address)
        return sample, self._type.from_address(address), address

    def _reserve(self, address: int) -> None:
        """Have the pages of a chunk before they are written: a lack of them ends the process."""
        start, end, offset = self._segment or self._find(address)
        if not start <= address < end:
            start, end, offset = self._find(address)
        try:
            os.posix_fallocate(self._file, address - start + offset, self.size)
        except OSError as error:
            raise TransportError(
                f"shared memory is full ({error.strerror}): {_told(self.size)}; {_ADVICE}"
            ) from error
        self._known.add(address)

    def _find(self, address: int) -> tuple[int, int, int]:
        for line in Path("/proc/self/maps").read_text().splitlines():
            where, _, offset, _, _, *path = line.split(maxsplit=5)
            start, end = (int(number, 16) for number in where.split("-"))
            if start <= address < end:
                self._let_go()
                self._file = os.open(path[0], os.O_RDWR | os.O_CLOEXEC)
                self._segment = start, end, int(offset, 16)
                return self._segment
        raise TransportError("the memory of a sample is not in /proc/self/maps")

    def update(self) -> None:
        """Take note of subscribers that came or went."""
        self._port.update_connections()

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def close(self) -> None:
        """Give the samples back; what subscribers have not taken stays for them."""
        self._let_go()
        self._port.delete()


_ADVICE = (
    "give shared memory more room (mount -o remount,size=… /dev/shm; docker run --shm-size=…), or"
    " smaller queues with --shm-queue-size and --server-queue-size"
)


def free_memory() -> int:
    """Bytes of shared memory that are free."""
    found = os.statvfs(SHM)
    return found.f_bavail * found.f_frsize


def _told(size: int) -> str:
    return f"an object takes {size / 1e6:.1f} MB, {SHM} has {free_memory() / 1e6:.1f} MB left"


def _check_room(size: int, waiting: int) -> None:
    need = size * waiting
    if need > free_memory():
        raise TransportError(
            f"there is too little shared memory for {waiting} objects ({need / 1e6:.0f} MB):"
            f" {_told(size)}; {_ADVICE}"
        )
