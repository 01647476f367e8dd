"""How objects go to worker processes and back: through memory that both sides share.

An image in a pipe is copied four times, in pieces of 64 KiB: 27 ms for 2048x2048 uint16 there and
back, measured, against 2 ms this way. The memory has no name, so nothing of it is left when a
process is killed.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle

from pvapy_stream.errors import ProcessorError
from pvapy_stream.frame import ColorMode, Frame

_ALIGN = 64
_MINIMUM = 64 * 1024

Layout = tuple[int, ...]  # lengths of the pickle and of each array beside it, in bytes


class FrameParts:
    """A frame without what cannot or need not cross: its object, its decoded image."""

    def __init__(self, frame: Frame) -> None:
        # Frames made from the one that was given keep its object, which stays at home.
        self.keeps_origin = frame.origin is not None
        self.values = {
            "id": frame.id,
            "payload": frame.payload,
            "stored_shape": frame.stored_shape,
            "time_ns": frame.time_ns,
            "dtype": frame.dtype,
            "codec": frame.codec,
            "color_mode": int(frame.color_mode),
            "attributes": dict(frame.attributes),
        }
        self.changed = (frame.attributes_changed, frame.layout_changed, frame.time_changed)

    def frame(self, origin: object) -> Frame:
        """The frame; with the object it was made from, as far as it was made from one."""
        values = {**self.values, "color_mode": ColorMode(self.values["color_mode"])}
        made = Frame(**values, origin=origin if self.keeps_origin else None)
        made.attributes_changed, made.layout_changed, made.time_changed = self.changed
        return made


class PackedObject:
    """An object as bytes: a pickle, and the arrays in it beside it, not copied."""

    def __init__(self, item: object) -> None:
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(_portable(item), protocol=5, buffer_callback=buffers.append)
        self.parts: list[bytes | memoryview] = [head, *(buffer.raw() for buffer in buffers)]
        self.layout: Layout = tuple(len(part) for part in self.parts)

    @property
    def size(self) -> int:
        """Bytes needed in shared memory."""
        return room(self.layout)

    def write(self, memory: mmap.mmap, start: int = 0) -> None:
        """Copy into shared memory, from a place on."""
        view = memoryview(memory)
        for part, length in zip(self.parts, self.layout, strict=True):
            view[start : start + length] = part
            start += _aligned(length)


def room(layout: Layout) -> int:
    """Bytes that an object takes in shared memory."""
    return sum(_aligned(length) for length in layout)


def unpack(parts: Sequence[bytes | memoryview], origin: object) -> object:
    """The object of a pickle and its arrays, which are not copied.

    Args:
        parts: pickle and arrays.
        origin: what frames are said to be made from.
    """
    return _rebuilt(pickle.loads(parts[0], buffers=parts[1:]), origin)  # noqa: S301 - our own


def parts_in(memory: mmap.mmap, layout: Layout, start: int = 0) -> list[memoryview]:
    """Views of an object's parts in shared memory, from a place on; read-only."""
    view = memoryview(memory).toreadonly()
    parts: list[memoryview] = []
    for length in layout:
        parts.append(view[start : start + length])
        start += _aligned(length)
    return parts


def _portable(item: object) -> object:
    if isinstance(item, Frame):
        return FrameParts(item)
    if isinstance(item, (list, tuple)) and any(isinstance(part, Frame) for part in item):
        return [_portable(part) for part in item]
    return item


def _rebuilt(item: object, origin: object) -> object:
    if isinstance(item, FrameParts):
        return item.frame(origin)
    if isinstance(item, list) and any(isinstance(part, FrameParts) for part in item):
        return [_rebuilt(part, origin) for part in item]
    return item


def _aligned(length: int) -> int:
    return -(-length // _ALIGN) * _ALIGN


class Slot:
    """Shared memory for one object and, behind it, its result, as the parent has it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.memory: mmap.mmap | None = None

    def make_room(self, size: int, connection: Connection, pid: int) -> mmap.mmap:
        """Memory of at least this size; a larger one is made and announced when needed.

        Raises:
            ProcessorError: there is no memory.
            OSError: the worker is gone.
        """
        if self.memory is not None and len(self.memory) >= size:
            return self.memory
        size = max(_MINIMUM, _aligned(size))
        descriptor = _anonymous_file(size)
        try:
            connection.send(("memory", self.number, size))
            send_handle(connection, descriptor, pid)
            self.memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        return self.memory


def _anonymous_file(size: int) -> int:
    """Descriptor of a file in memory, with all its pages there: else a full disk is a SIGBUS."""
    try:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("pvapy_stream worker")
        else:
            with tempfile.TemporaryFile(
                dir="/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108
            ) as file:
                descriptor = os.dup(file.fileno())
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        raise ProcessorError(
            f"cannot allocate {size} bytes of shared memory for a worker: {error.strerror}; use"
            " fewer workers or a smaller queueDepth"
        ) from error
    return descriptor


def attach(connection: Connection, size: int) -> mmap.mmap:
    """Memory that the parent announces, in the worker."""
    descriptor = recv_handle(connection)
    try:
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)
