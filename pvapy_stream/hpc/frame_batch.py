"""Batches of frames, as processors get them, and the memory in which their pixels lie."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import Frame, Pixels, image_axes
from pvapy_stream.pva.lazy import LazyObject, form_of
from pvapy_stream.pva.ntndarray import to_frame

# Pixels of one batch: larger ones end a batch before it has all its frames.
MOST_BYTES = 256 * 2**20
# Blocks of memory that are kept for further batches; a block is used again when no array is left.
_MOST_BLOCKS = 3

_Bytes = NDArray[np.uint8]


class FrameBatch(Sequence[Frame]):
    """Frames of one shape and pixel type, in their order.

    It may be kept, and so may its frames and images.

    Args:
        frames: the frames; for tests of processors.

    Attributes:
        output: that of its frames, see `Frame`.
    """

    def __init__(self, frames: Iterable[Frame | LazyObject]) -> None:
        self.output: object = None
        self._frames: list[Frame | LazyObject] = [*frames]
        # Pixels of all frames, if they lie in one block: (n, bytes).
        self._rows: _Bytes | None = None
        self._images: Pixels | None = None

    def __len__(self) -> int:
        return len(self._frames)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        found = self._frames[index]
        if isinstance(found, list):
            return [self._frame(one) for one in found]
        return self._frame(found)

    def alone(self, number: int) -> FrameBatch:
        """A batch of one of the frames."""
        # It is not looked at: a damaged one may raise.
        return FrameBatch([self._frames[number]])

    def __iter__(self) -> Iterator[Frame]:
        return map(self._frame, self._frames)

    def _frame(self, one: Frame | LazyObject) -> Frame:
        frame = one.frame if isinstance(one, LazyObject) else one
        if self.output is not None:
            frame.output = self.output
        return frame

    @property
    def images(self) -> Pixels:
        """All images as one read-only array: (n, ny, nx), or (n, ny, nx, 3) for colour.

        Frames from shared memory already lie so; others are copied when this is first asked for.

        Raises:
            ObjectError: a frame has no image, or they differ in shape or pixel type.
            CodecError: a payload cannot be decompressed.
        """
        if self._images is None:
            self._images = self._of_rows(self._rows) if self._rows is not None else self._stacked()
        return self._images

    def _of_rows(self, rows: _Bytes) -> Pixels:
        first = self[0]
        images = rows.view(first.payload.dtype).reshape(len(self), *first.stored_shape)
        axes = image_axes(first.color_mode)
        return _read_only(images.transpose(0, *(a + 1 for a in axes)) if axes else images)

    def _stacked(self) -> Pixels:
        return _read_only(stacked([frame.image for frame in self]))

    def __repr__(self) -> str:
        return f"FrameBatch({[*self]})"


def stacked(images: Sequence[Pixels]) -> Pixels:
    """Images as one array.

    Raises:
        ObjectError: they differ in shape or pixel type, or there are none.
    """
    kinds = {(image.shape, image.dtype) for image in images}
    if len(kinds) != 1:
        raise ObjectError(
            "a batch has frames of different shapes or pixel types, or none: "
            + ", ".join(sorted(f"{shape} {dtype}" for shape, dtype in kinds))
        )
    return np.stack(images)


def _read_only(images: Pixels) -> Pixels:
    view = images.view()
    view.flags.writeable = False
    return view


class BatchBuilder:
    """Gathers objects into batches. Not locked.

    Objects in memory that their source needs back, as in shared memory, are copied into a block at
    once: a source never waits for a batch that is not complete.

    Args:
        size: frames of a batch.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        # How many frames the present batch may have.
        self.room = size
        self._form: tuple[object, ...] | None = None
        self._memory = _Blocks()
        self._frames: list[Frame | LazyObject] = []
        # Pixels of the frames that were moved, one each row, and the address of the first row.
        self._rows: _Bytes | None = None
        self._address = self._n_rows = 0

    def add(self, obj: Any) -> Any:
        """Add an object to the batch.

        Returns:
            the object, or a copy that may be kept; None if it cannot be in one batch with those
            before: it is not added.

        Raises:
            ObjectError: it is no image.
        """
        if isinstance(obj, LazyObject):
            form, frame = obj.form, obj
        else:
            # The binding may reuse the object. Its pixels are shared with the copy.
            obj = obj.copy()
            frame = to_frame(obj)
            form = form_of(frame)
        frames = self._frames
        if not frames:
            self._form = form
            self._begin(frame)
        elif form != self._form:
            return None
        if isinstance(frame, LazyObject):
            self._keep(frame)
        frames.append(frame)
        return obj

    def _begin(self, first: Frame | LazyObject) -> None:
        movable = first.movable if isinstance(first, LazyObject) else 0
        size = movable or (first.frame if isinstance(first, LazyObject) else first).nbytes
        self.room = max(1, min(self.size, MOST_BYTES // max(1, size)))
        self._n_rows = 0
        if movable:
            self._rows = rows = self._memory.block(self.room, movable)
            # numpy's types do not know this.
            self._address = rows.__array_interface__["data"][0]  # pyright: ignore[reportAttributeAccessIssue]

    def _keep(self, frame: LazyObject) -> None:
        """Copy what lies in memory that its source needs back."""
        movable, rows, row = frame.movable, self._rows, self._n_rows
        # A payload of another size is not what its dimensions need; the frame says so later.
        if rows is not None and movable == rows.shape[1] and row == len(self._frames):
            frame.move_to(rows, row, self._address + row * movable)
            self._n_rows += 1
        else:
            frame.detach()

    def take(self) -> FrameBatch:
        """What was gathered; the next batch begins."""
        batch = FrameBatch(self._frames)
        if self._rows is not None and self._n_rows == len(batch):
            batch._rows = self._rows[: len(batch)]  # noqa: SLF001 - of this module
        self._frames, self._rows = [], None
        return batch


class _Blocks:
    """Memory for batches: new memory costs as much as the copy into it."""

    def __init__(self) -> None:
        self._kept: list[tuple[_Bytes, weakref.ref[_Bytes]]] = []

    def block(self, n: int, n_bytes: int) -> _Bytes:
        """A block of n rows that nothing refers to any more, or a new one."""
        for number, (memory, user) in enumerate(self._kept):
            if user() is None and memory.size == n * n_bytes:
                block, self._kept[number] = self._lend(memory, n_bytes)
                return block
        memory = np.empty(n * n_bytes, np.uint8)
        block, lent = self._lend(memory, n_bytes)
        self._kept = [one for one in self._kept if one[0].size == memory.size][1 - _MOST_BLOCKS :]
        self._kept.append(lent)
        return block

    @staticmethod
    def _lend(memory: _Bytes, n_bytes: int) -> tuple[_Bytes, tuple[_Bytes, weakref.ref[_Bytes]]]:
        # Its base is no array: so all views of it refer to it, not to the memory behind it.
        user = np.frombuffer(memory.data, np.uint8)
        return user.reshape(-1, n_bytes), (memory, weakref.ref(user))
