"""Objects that are not PvObjects yet: one is built when it is first needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pvaccess as pva
from numpy.typing import NDArray

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import Frame
from pvapy_stream.pva import ntndarray
from pvapy_stream.pva.ntndarray import MARK, TAG, ObjectBuilder, to_frame

Build = Callable[[Frame], pva.PvObject]


class LazyObject:
    """An object of a stream as a frame, without a PvObject.

    Methods of PvObjects (`getInt`, `toDict`, `set` …) work too, and build one. Functions of the
    binding do not take this class: give them `pv_object(obj)`.

    Attributes:
        id: its id; None if only the PvObject has it.
    """

    __slots__ = ("_build", "_frame", "_marked", "_object", "id")

    def __init__(self, frame: Frame | None, build: Build | None = None) -> None:
        self.id = frame.id if frame is not None else None
        self._frame = frame
        self._build = build
        self._object: pva.PvObject | None = None
        self._marked = False

    @property
    def frame(self) -> Frame:
        """The frame; arrays are not copied.

        Raises:
            ObjectError: it is no image.
        """
        if self._frame is None:
            self._frame = self._make_frame()
        return self._frame

    def _make_frame(self) -> Frame:
        return to_frame(self.pv_object())

    def pv_object(self) -> pva.PvObject:
        """The `pvaccess.PvObject`.

        Raises:
            ObjectError: none can be made of it.
        """
        if self._object is None:
            self._object = self._make_object()
            if self.marked and self._object.hasField(TAG):
                self._object.setInt(TAG, MARK)
        return self._object

    def _make_object(self) -> pva.PvObject:
        return (self._build or ObjectBuilder().build)(self.frame)

    def id_of(self, field: str) -> int | None:
        """The id, if it is known without a PvObject."""
        return self.id if field == "uniqueId" else None

    @property
    def marked(self) -> bool:
        """Whether it is an opening object, and not a frame."""
        return self._marked

    def mark(self) -> None:
        """Mark it as an opening object."""
        self._marked = True

    @property
    def time_ns(self) -> int:
        """Time of the data, ns since 1970; 0 when unknown."""
        return self.frame.time_ns

    @property
    def stamp_ns(self) -> int:
        """Time of the record, ns since 1970, if it differs from that of the data; else 0."""
        return 0

    @property
    def only_frame(self) -> bool:
        """Whether its frame and `stamp_ns` contain all that its PvObject would."""
        return self.id is not None and self.frame.origin is None

    @property
    def form(self) -> tuple[object, ...]:
        """Equal for frames of one source with the same shape, pixel type, codec and colour mode."""
        return form_of(self.frame)

    @property
    def movable(self) -> int:
        """Bytes of its pixels, if they lie in memory that the source needs back; else 0."""
        return 0

    def move_to(self, rows: NDArray[np.uint8], row: int, address: int) -> None:
        """Copy the pixels elsewhere, and give back what the source needs.

        Args:
            rows: memory in rows of `movable` bytes.
            row: number of the row to copy to.
            address: of that row; to make an array for it takes longer than to copy small images.
        """
        raise ObjectError("its pixels lie in memory of this process already")

    def detach(self) -> None:
        """Give back memory that the source needs, if it lies there."""

    def copy(self) -> LazyObject:
        """Itself: it never changes, so it may be kept."""
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.pv_object(), name)

    def __getitem__(self, field: str) -> Any:
        return self.pv_object()[field]

    def __setitem__(self, field: str, value: object) -> None:
        raise ObjectError(
            f"field {field} cannot be set: the object is shared with other subscribers; set it in"
            " a copy made with pvapy_stream.pva.lazy.pv_object(obj).copy()"
        )


def form_of(frame: Frame) -> tuple[object, ...]:
    """Shape, pixel type, codec and colour mode of a frame."""
    return frame.stored_shape, frame.dtype, frame.codec, frame.color_mode


# What receivers deliver and publishers take.
StreamObject: TypeAlias = pva.PvObject | LazyObject


def pv_object(obj: StreamObject) -> pva.PvObject:
    """The `pvaccess.PvObject` of what a transport delivers.

    Raises:
        ObjectError: none can be made of it.
    """
    return obj.pv_object() if isinstance(obj, LazyObject) else obj


def time_of(obj: StreamObject) -> int:
    """Time of the data of a PvObject or of a `LazyObject`, ns since 1970; 0 when unknown."""
    return obj.time_ns if isinstance(obj, LazyObject) else ntndarray.time_of(obj)


def frame_of(obj: StreamObject) -> Frame:
    """A frame of a PvObject or of a `LazyObject`.

    Raises:
        ObjectError: it is no image.
    """
    return obj.frame if isinstance(obj, LazyObject) else to_frame(obj)
