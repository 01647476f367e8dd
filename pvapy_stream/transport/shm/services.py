"""iceoryx2 services that carry samples, and the memory pool of their publisher.

There is one service for each set of a distributor group, and one for all subscribers outside of
groups. Each has one publisher.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import iceoryx2 as iox

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.shm.frames import SampleBytes
from pvapy_stream.transport.shm.user_folder import SHM

MAX_SUBSCRIBERS = 32  # of one service
MAX_BORROWED = 16  # samples a subscriber may keep while it receives others
_MAX_LOANED = 2

Bytes = iox.Slice[ctypes.c_uint8]


def service_name(publisher: str, group: str, client_set: str) -> str:
    """Name of the service of a set, the same for publisher and subscribers.

    Args:
        publisher: key of the publisher.
        group: name of the distributor group; "" for subscribers outside of groups.
        client_set: name of the set.
    """
    digest = hashlib.sha256(f"{group}\0{client_set}".encode()).hexdigest()[:24]
    return f"pvapy_stream/1/{publisher}/{digest}"


def create_service(
    node: iox.Node, name: str, queue: int, overflow: bool
) -> iox.PortFactoryPublishSubscribe:
    """Create the service of a set.

    It may still exist: if an object of it is kept, or if iceoryx2 could not clean up after a killed
    subscriber. As only one publisher uses its name, it is then used again, with its queue length.

    Args:
        node: the node of this process.
        name: see `service_name`.
        queue: length of the queue of each subscriber, in samples.
        overflow: whether a new sample replaces the oldest one in a full queue.

    Raises:
        TransportError: it cannot be created.
    """
    try:
        return (
            node.service_builder(iox.ServiceName.new(name))
            .publish_subscribe(Bytes)
            .enable_safe_overflow(overflow)
            .history_size(0)
            .max_publishers(2)
            .max_subscribers(MAX_SUBSCRIBERS)
            .max_nodes(2 * MAX_SUBSCRIBERS)
            .subscriber_max_buffer_size(queue)
            .subscriber_max_borrowed_samples(MAX_BORROWED)
            .create()
        )
    except Exception as error:
        left = open_service(node, name)
        if left is not None:
            return left
        raise TransportError(f"a service in shared memory cannot be created: {error}") from error


def open_service(node: iox.Node, name: str) -> iox.PortFactoryPublishSubscribe | None:
    """Open the service of a set; None if its publisher has not created it yet."""
    try:
        return node.service_builder(iox.ServiceName.new(name)).publish_subscribe(Bytes).open()
    except iox.PublishSubscribeOpenError:
        return None


# A sample to be written and sent, its memory, and the address at which that begins.
Loan = tuple[iox.SampleMutUninit, SampleBytes, int]


class _Segment(NamedTuple):
    """A memory-mapped segment: addresses, and offset of the first one in the file."""

    start: int
    end: int
    offset: int


class SamplePool:
    """The memory of a service's samples, in chunks of one size.

    Args:
        service: the service.
        size: size of a chunk, bytes.
        n_chunks: number of chunks for which there must be memory.

    Raises:
        TransportError: there is too little shared memory.
    """

    def __init__(self, service: iox.PortFactoryPublishSubscribe, size: int, n_chunks: int) -> None:
        self.size = size
        self._type = ctypes.c_uint8 * size
        # Bytes whose pages are allocated, by the address of the chunk.
        self._allocated: dict[int, int] = {}
        self._segment: _Segment | None = None
        self._file = -1
        _check_memory(size, n_chunks)
        try:
            self._port = (
                service.publisher_builder()
                .initial_max_slice_len(size)
                .max_loaned_samples(_MAX_LOANED)
                .backpressure_strategy(iox.BackpressureStrategy.DiscardData)
                .create()
            )
        except Exception as error:
            raise TransportError(
                f"shared memory for objects of {size / 1e6:.1f} MB cannot be allocated: {error}"
            ) from error

    def loan(self, used: int) -> Loan | None:
        """A free sample; None if all are in use.

        Args:
            used: bytes that will be written.

        Raises:
            TransportError: shared memory is full.
        """
        try:
            sample = self._port.loan_slice_uninit(self.size)
        except iox.LoanError:
            return None
        address = sample.payload_ptr
        if self._allocated.get(address, 0) < used:
            self._allocate(address, used)
        return sample, self._type.from_address(address), address

    def _allocate(self, address: int, used: int) -> None:
        """Allocate the pages of the beginning of a chunk.

        If shared memory were full when a page is first written, SIGBUS would end the process.
        """
        start, end, offset = self._segment or self._find(address)
        if not start <= address < end:
            start, end, offset = self._find(address)
        try:
            os.posix_fallocate(self._file, address - start + offset, used)
        except OSError as error:
            raise TransportError(f"{full_memory(used)} ({error.strerror})") from error
        self._allocated[address] = used

    def _find(self, address: int) -> _Segment:
        """Find the segment with an address, and open its file."""
        for line in Path("/proc/self/maps").read_text().splitlines():
            where, _, offset, _, _, *path = line.split(maxsplit=5)
            start, end = (int(number, 16) for number in where.split("-"))
            if start <= address < end:
                self._close_file()
                self._file = os.open(path[0], os.O_RDWR | os.O_CLOEXEC)
                self._segment = _Segment(start, end, int(offset, 16))
                return self._segment
        raise TransportError("the memory of a sample is not in /proc/self/maps")

    def update(self) -> None:
        """Connect new subscribers, and disconnect those that left."""
        self._port.update_connections()

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def close(self) -> None:
        """Free the pool; samples in the queues of subscribers stay readable."""
        self._close_file()
        self._port.delete()


_ADVICE = (
    "make shared memory larger (mount -o remount,size=… /dev/shm; docker run --shm-size=…), or"
    " the queues smaller with --shm-queue-size and --server-queue-size"
)


def free_memory() -> int:
    """Free shared memory, in bytes."""
    found = os.statvfs(SHM)
    return found.f_bavail * found.f_frsize


def memory_size() -> int:
    """Size of shared memory, in bytes."""
    found = os.statvfs(SHM)
    return found.f_blocks * found.f_frsize


def full_memory(size: int) -> str:
    """What is said of an object for which there is no memory; `size`: its bytes."""
    return f"shared memory is full: {_usage(size)}; {_ADVICE}"


def _usage(size: int) -> str:
    return f"an object needs {size / 1e6:.1f} MB, {SHM} has {free_memory() / 1e6:.1f} MB left"


def _check_memory(size: int, n_chunks: int) -> None:
    need = size * n_chunks
    if need > free_memory():
        raise TransportError(
            f"there is not enough shared memory for {n_chunks} objects ({need / 1e6:.0f} MB):"
            f" {_usage(size)}; {_ADVICE}"
        )
