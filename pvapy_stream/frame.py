"""`Frame`: one image with its id, time, attributes and codec. Numpy only, no EPICS."""

# numpy's own types leave parts of arrays unknown:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pvapy_stream.codecs import decompress
from pvapy_stream.errors import ObjectError
from pvapy_stream.series import SeriesMetadata

Pixels = NDArray[Any]
AttributeValue = Any  # int, float, str, bool or an array of those


class ColorMode(IntEnum):
    """Area detector colour modes and the order of their dimensions, fastest first."""

    MONO = 0  # [nx, ny]
    RGB1 = 2  # [3, nx, ny]
    RGB2 = 3  # [nx, 3, ny]
    RGB3 = 4  # [nx, ny, 3]


# Axes that bring the stored order (slowest first) to (ny, nx, 3), and back.
_TO_IMAGE = {ColorMode.RGB1: (0, 1, 2), ColorMode.RGB2: (0, 2, 1), ColorMode.RGB3: (1, 2, 0)}
_TO_STORED = {ColorMode.RGB1: (0, 1, 2), ColorMode.RGB2: (0, 2, 1), ColorMode.RGB3: (2, 0, 1)}


class Frame:
    """One image of a stream.

    The image is decoded when it is first accessed, so a stage that only reads ids, or passes frames
    on, does not decode it. A frame is immutable: make a changed copy with `replace`.

    Attributes:
        id: number of the frame in its stream.
        time_ns: time of the image, nanoseconds since 1970-01-01 UTC; 0 if unknown.
        codec: ``""`` for raw pixels, else ``blosc``, ``lz4``, ``bslz4``.
        color_mode: how `payload` orders the pixels.
        dtype: type of one pixel.
        payload: 1-d array as stored: pixels, or compressed bytes if there is a codec.
        stored_shape: dimensions of the uncompressed payload, slowest first; () for no image.
        origin: the transport's object from which the frame was made, if any.
        attributes_changed: whether the attributes, including ColorMode, differ from those of
            `origin`.
        layout_changed: whether shape, pixel type, codec or size differ from those of `origin`.
        time_changed: whether the time differs from that of `origin`.
        series: what is the same for all images of its series, where the transport gives that;
            frames that are sent on do not carry it.
        output: what a new image is published with, see `like`; None if that is not known.
    """

    __slots__ = (
        "_attributes",
        "_image",
        "attributes_changed",
        "codec",
        "color_mode",
        "dtype",
        "id",
        "layout_changed",
        "origin",
        "output",
        "payload",
        "series",
        "stored_shape",
        "time_changed",
        "time_ns",
    )

    def __init__(
        self,
        id: int,
        payload: Pixels,
        stored_shape: tuple[int, ...],
        *,
        time_ns: int = 0,
        dtype: np.dtype | None = None,
        codec: str = "",
        color_mode: ColorMode = ColorMode.MONO,
        attributes: (
            Mapping[str, AttributeValue] | Callable[[], Mapping[str, AttributeValue]] | None
        ) = None,
        origin: object = None,
        series: SeriesMetadata | None = None,
    ) -> None:
        self.id = id
        self.payload = payload
        self.stored_shape = stored_shape
        self.time_ns = time_ns
        self.dtype = payload.dtype if dtype is None else dtype
        self.codec = codec
        self.color_mode = color_mode
        self.origin = origin
        self.series = series
        self.output: object = None
        self.attributes_changed = self.layout_changed = self.time_changed = False
        self._attributes: (
            Mapping[str, AttributeValue] | Callable[[], Mapping[str, AttributeValue]]
        ) = attributes if attributes is not None else {}
        self._image: Pixels | None = None

    @classmethod
    def of(
        cls,
        id: int,
        image: Pixels,
        *,
        time_ns: int = 0,
        color_mode: ColorMode | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> Frame:
        """A frame from an image: (ny, nx), or (ny, nx, 3) in any RGB mode (default RGB1).

        Raises:
            ObjectError: an image of another shape.
        """
        if color_mode is None:
            color_mode = ColorMode.RGB1 if image.ndim == 3 else ColorMode.MONO
        stored = to_stored(image, color_mode)
        return cls(
            id,
            stored.reshape(-1),
            stored.shape,
            time_ns=time_ns,
            color_mode=color_mode,
            attributes=attributes,
        )

    @property
    def image(self) -> Pixels:
        """The pixels as a read-only array: (ny, nx), or (ny, nx, 3) for colour.

        Raises:
            ObjectError: the frame has no image, or its payload does not fit its dimensions.
            CodecError: the payload cannot be decompressed.
        """
        if self._image is None:
            self._image = self._decode()
        return self._image

    @property
    def attributes(self) -> Mapping[str, AttributeValue]:
        """Values by attribute name."""
        if callable(self._attributes):
            self._attributes = self._attributes()
        return self._attributes

    @property
    def nbytes(self) -> int:
        """Uncompressed size in bytes."""
        return math.prod(self.stored_shape) * self.dtype.itemsize if self.stored_shape else 0

    @property
    def has_image(self) -> bool:
        """Whether there are any pixels."""
        return bool(self.stored_shape) and self.payload.size > 0

    def replace(
        self,
        image: Pixels | None = None,
        *,
        id: int | None = None,
        time_ns: int | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> Frame:
        """A copy with some parts changed; other parts are kept. A new image has no codec.

        Raises:
            ObjectError: an image that is neither (ny, nx) nor (ny, nx, 3).
        """
        payload, shape, dtype, codec, mode = (
            self.payload,
            self.stored_shape,
            self.dtype,
            self.codec,
            self.color_mode,
        )
        if image is not None:
            if (image.ndim == 3) != (mode is not ColorMode.MONO):
                mode = ColorMode.RGB1 if image.ndim == 3 else ColorMode.MONO
            stored = to_stored(image, mode, self.output)
            payload, shape, dtype, codec = stored.reshape(-1), stored.shape, image.dtype, ""
        made = Frame(
            self.id if id is None else id,
            payload,
            shape,
            time_ns=self.time_ns if time_ns is None else time_ns,
            dtype=dtype,
            codec=codec,
            color_mode=mode,
            attributes=self._attributes if attributes is None else attributes,
            origin=self.origin,
            series=self.series,
        )
        made.attributes_changed = (
            self.attributes_changed or attributes is not None or mode is not self.color_mode
        )
        made.layout_changed = self.layout_changed or (
            (shape, dtype, codec, payload.nbytes)
            != (self.stored_shape, self.dtype, self.codec, self.payload.nbytes)
        )
        made.time_changed = self.time_changed or time_ns is not None
        made.output = self.output
        return made

    def like(self, shape: tuple[int, ...] | None = None, dtype: DTypeLike | None = None) -> Pixels:
        """A writable array for a new image, where the next stage reads it if that is possible.

        A processor fills it, and returns it, or a frame that has it as its image: then its pixels
        are not copied to be published in shared memory. ::

            return np.multiply(frame.image, 2, out=frame.like())

        Write all of it: its content is undefined, as with `numpy.empty`. Take a new one for each
        image: it is read-only when it was published. Without a subscriber in shared memory, for a
        small image (below 64 kB), and if many such arrays are kept, it is an ordinary array, which
        is copied to be published.

        Args:
            shape: (ny, nx), or (ny, nx, 3) for colour; default: that of the image.
            dtype: pixel type; default: that of the image.

        Raises:
            ObjectError: another shape, or none is given and the frame has no image.
        """
        if shape is None:
            shape = self.stored_shape
            if self.color_mode is not ColorMode.MONO and len(shape) == 3:
                shape = tuple(shape[axis] for axis in _TO_IMAGE[self.color_mode])
        return new_image(
            shape, self.dtype if dtype is None else dtype, self.color_mode, self.output
        )

    def _decode(self) -> Pixels:
        if not self.has_image:
            raise ObjectError(
                f"frame {self.id} has no image: its array is empty; check that the detector plugin"
                " publishes arrays"
            )
        pixels = self.payload
        if self.codec:
            pixels = decompress(self.codec, pixels.view(np.uint8), self.dtype, self.nbytes)
        if pixels.nbytes != self.nbytes:
            raise ObjectError(
                f"frame {self.id} has {pixels.nbytes} bytes where its dimensions"
                f" {self.stored_shape} need {self.nbytes}"
            )
        pixels = pixels.reshape(self.stored_shape)
        if self.color_mode is not ColorMode.MONO:
            pixels = pixels.transpose(image_axes(self.color_mode))
        view = pixels.view()
        view.flags.writeable = False
        return view

    def __repr__(self) -> str:
        codec = f", {self.codec}" if self.codec else ""
        return (
            f"Frame({self.id}, {'x'.join(map(str, self.stored_shape)) or 'empty'}"
            f" {self.dtype}{codec})"
        )


def image_axes(color_mode: ColorMode) -> tuple[int, ...]:
    """Axes that bring stored pixels to an image, for `transpose`; () if they are in its order."""
    return _TO_IMAGE.get(color_mode, ())


def new_image(
    shape: tuple[int, ...],
    dtype: DTypeLike,
    color_mode: ColorMode = ColorMode.RGB1,
    output: object = None,
) -> Pixels:
    """A writable array for an image; in memory of an output, if that has some.

    Args:
        shape: (ny, nx), or (ny, nx, 3) for colour.
        dtype: pixel type.
        color_mode: how the pixels of colour lie in memory; MONO: as with RGB1.
        output: has a method `reserve`, as publishers have; others give no memory.

    Raises:
        ObjectError: another shape.
    """
    if len(shape) != 2 and (len(shape) != 3 or shape[2] != 3):
        raise ObjectError(f"an image is (ny, nx) or (ny, nx, 3), not {shape}")
    axes = _TO_STORED.get(color_mode, ()) if len(shape) == 3 else ()
    if color_mode is ColorMode.RGB1 or not axes:
        return _empty(shape, np.dtype(dtype), output)
    stored = _empty(tuple(shape[axis] for axis in axes), np.dtype(dtype), output)
    image = stored.transpose(_TO_IMAGE[color_mode])
    memory: object = stored.base
    if memory is None:
        return image
    # Not as a view of another array: to make this one read-only is then enough.
    return np.ndarray(shape, dtype, memory, 0, image.strides)


def _empty(shape: tuple[int, ...], dtype: np.dtype, output: object) -> Pixels:
    reserve = getattr(output, "reserve", None)
    if reserve is None or dtype.hasobject:
        return np.empty(shape, dtype)
    memory = reserve(math.prod(shape) * dtype.itemsize)
    return np.empty(shape, dtype) if memory is None else np.ndarray(shape, dtype, memory)


def to_stored(image: Pixels, color_mode: ColorMode, output: object = None) -> Pixels:
    """Order an image's pixels as the colour mode stores them; contiguous.

    If they have to be copied, it is into memory of `output`, if that has some.

    Raises:
        ObjectError: a shape that does not fit the colour mode.
    """
    if color_mode is ColorMode.MONO:
        if image.ndim != 2:
            raise ObjectError(f"a mono image is (ny, nx), not {image.shape}")
        return _contiguous(image, output)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ObjectError(f"a colour image is (ny, nx, 3), not {image.shape}")
    return _contiguous(image.transpose(_TO_STORED[color_mode]), output)


# Columns copied at a time from an array whose columns are contiguous: their cache lines are then
# still there when the next element of each is read. Measured on 512x512 to 2048x2048 pixels of 1
# to 8 bytes: 1.8 to 5 times as fast as copying row by row.
_STRIP = 16
_STRIP_OF_BYTES = 32
_STRIPS_PAY = 256 * 256


def _contiguous(image: Pixels, output: object) -> Pixels:
    """The image in C order; a transposed or turned one is copied strip by strip."""
    if image.flags.c_contiguous:
        return np.ascontiguousarray(image)
    copy = _empty(image.shape, image.dtype, output)
    if (
        image.ndim != 2
        or image.size < _STRIPS_PAY
        or abs(image.strides[0]) >= abs(image.strides[1])
    ):
        copy[...] = image
        return copy
    step = _STRIP_OF_BYTES if image.itemsize == 1 else _STRIP
    for x in range(0, image.shape[1], step):
        copy[:, x : x + step] = image[:, x : x + step]
    return copy
