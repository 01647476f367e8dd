"""Simple operations on images: cropping, binning, summing, averaging and counting of pixels.

Colour images, (ny, nx, 3), are cropped, binned and summed for each colour; `ThresholdCount` counts
each of the three values of a pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import Frame, Pixels
from pvapy_stream.processors.processor_options import OptionProcessor, Options

__all__ = ["AverageFrames", "Binning", "Region", "SumFrames", "ThresholdCount"]


def sum_dtype(dtype: np.dtype, count: int) -> np.dtype:
    """The smallest integer type of the same kind that holds a sum of `count` pixels of any value.

    float64 for floats, and if no integer type is large enough.
    """
    if dtype.kind == "b":
        low, high, names = 0, 1, ("uint8", "uint16", "uint32", "uint64")
    elif dtype.kind == "u":
        low, high = 0, int(np.iinfo(dtype).max)
        names = ("uint8", "uint16", "uint32", "uint64")
    elif dtype.kind == "i":
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        names = ("int8", "int16", "int32", "int64")
    else:
        return np.dtype(np.float64)
    for name in names:
        limits = np.iinfo(name)
        if low * count >= limits.min and high * count <= limits.max:
            return np.dtype(name)
    return np.dtype(np.float64)


def mean_dtype(dtype: np.dtype) -> np.dtype:
    """float32 for pixels of up to 16 bits and for float32, else float64."""
    small = dtype.itemsize <= 2 or dtype == np.float32
    return np.dtype(np.float32 if small else np.float64)


def mean_of(total: Pixels, count: int, into: Pixels) -> Pixels:
    """A sum of `count` images or pixels, divided as float64; returns `into`."""
    return np.true_divide(total, count, out=into, dtype=np.float64)


class RegionOptions(Options):
    """Options of `Region`."""

    x: int = Field(0, ge=0)
    y: int = Field(0, ge=0)
    width: int = Field(0, ge=0)
    height: int = Field(0, ge=0)


class Region(OptionProcessor[RegionOptions]):
    """Publishes a part of each image.

    Keys: x, y (0; first column and row), width, height (pixels; 0: up to the end). An image that
    does not have the whole region fails.
    """

    options_type = RegionOptions

    def process_frame(self, frame: Frame) -> Frame:
        image = frame.image
        ny, nx = image.shape[:2]
        o = self.options
        x_end, y_end = o.x + o.width if o.width else nx, o.y + o.height if o.height else ny
        if not (o.x < x_end <= nx and o.y < y_end <= ny):
            raise ObjectError(
                f"the image of {nx}x{ny} pixels does not have the region x={o.x}, y={o.y},"
                f" width={o.width}, height={o.height}; x + width may be at most {nx}, y + height"
                f" {ny}"
            )
        return frame.replace(image[o.y : y_end, o.x : x_end])


class BinningOptions(Options):
    """Options of `Binning`."""

    bx: int = Field(2, ge=1)
    by: int = Field(2, ge=1)
    mode: Literal["sum", "mean"] = "sum"


class Binning(OptionProcessor[BinningOptions]):
    """Publishes images whose pixels are sums or means of bx times by pixels.

    Sums have the smallest type of the same kind that cannot overflow; means are float32 up to 16
    bits, else float64. Columns and rows that do not fill a bin are omitted.

    Keys: bx, by (2), mode: "sum" or "mean".
    """

    options_type = BinningOptions

    def process_frame(self, frame: Frame) -> Frame:
        options = self.options
        return frame.replace(binned(frame.image, options.bx, options.by, self._mean, frame.like))

    @property
    def _mean(self) -> bool:
        return self.options.mode == "mean"


def binned(
    image: Pixels,
    bx: int,
    by: int,
    mean: bool = False,
    new: Callable[[tuple[int, ...], np.dtype], Pixels] = np.empty,
) -> Pixels:
    """Sums or means of bx times by pixels: (ny // by, nx // bx) or (ny // by, nx // bx, 3).

    Args:
        image: (ny, nx) or (ny, nx, 3).
        bx: columns of a bin.
        by: its rows.
        mean: whether means are made.
        new: makes the array for the result, of a shape and a pixel type.

    Raises:
        ObjectError: a bin is larger than the image.
    """
    ny, nx = image.shape[0] // by, image.shape[1] // bx
    if not ny or not nx:
        raise ObjectError(
            f"bins of {bx}x{by} (bx, by) are larger than the image of {image.shape[1]}x"
            f"{image.shape[0]} pixels"
        )
    shape, dtype = (ny, nx, *image.shape[2:]), sum_dtype(image.dtype, bx * by)
    total = np.empty(shape, dtype) if mean else new(shape, dtype)
    # By whole strided images: many times as fast as sums over short axes.
    for row in range(by):
        for column in range(bx):
            part = image[row : ny * by : by, column : nx * bx : bx]
            if row or column:
                total += part
            else:
                total[...] = part
    return mean_of(total, bx * by, new(shape, mean_dtype(image.dtype))) if mean else total


class StackOptions(Options):
    """Options of `SumFrames` and `AverageFrames`."""

    n_frames: int = Field(2, ge=1)
    id_of: Literal["first", "last"] = "last"


class _Stack(OptionProcessor[StackOptions]):
    """Adds nFrames frames to one."""

    options_type = StackOptions
    COUNTERS = ("nFrames", "nPublished", "nLeft")
    keeps_frames = True
    gathers = True

    @property
    def publishes_last_id(self) -> bool:
        return self.options.id_of == "last"

    def __init__(self, configDict: dict[str, object] | None = None) -> None:
        super().__init__(configDict)
        self._frames: list[Frame] = []
        self._total: Pixels | None = None
        self._count = 0

    def process_frame(self, frame: Frame) -> Frame | None:
        image = frame.image
        self.counts["nFrames"] += 1
        if self._frames and (
            image.shape != self._frames[0].image.shape or frame.dtype != self._frames[0].dtype
        ):
            self._leave("image changes", f"frame {frame.id} has another shape or type")
        if self._total is None:
            # The number in the works stays when `configure` changes it.
            self._count = self.options.n_frames
            self._total = np.zeros(image.shape, sum_dtype(image.dtype, self._count))
        self._frames.append(frame)
        if len(self._frames) < self._count:
            self._total += image
            return None
        frames, total = self._frames, self._total
        self._frames, self._total = [], None
        self.counts["nPublished"] += 1
        named = frames[0] if self.options.id_of == "first" else frames[-1]
        return named.replace(
            self._result(total, image, len(frames), named),
            attributes={
                **named.attributes,
                "NFrames": len(frames),
                "FirstId": frames[0].id,
                "LastId": frames[-1].id,
            },
        )

    def _result(self, total: Pixels, last: Pixels, count: int, named: Frame) -> Pixels:
        """The image to publish.

        Args:
            total: sum of the images before the last one.
            last: the last image.
            count: number of images.
            named: the frame whose id the result has.
        """
        return np.add(total, last, out=named.like(total.shape, total.dtype))

    def _leave(self, kind: str, why: str) -> None:
        self.counts["nLeft"] += len(self._frames)
        for frame in self._frames:
            self.late_failures.note(frame.id, kind, why)
        self._frames, self._total = [], None

    def stop(self) -> None:
        """Count what fills no whole sum."""
        if self._frames:
            # The end of a run rarely meets a multiple of nFrames: that is no error.
            self.counts["nLeft"] += len(self._frames)
            self.logger.warning(
                "frames %d to %d are %d of the %d frames of a sum, and are not published",
                self._frames[0].id,
                self._frames[-1].id,
                len(self._frames),
                self._count,
            )
            self._frames, self._total = [], None


class SumFrames(_Stack):
    """Publishes the sum of each nFrames frames, of a type that cannot overflow.

    The sum has id, time and attributes of the last frame, and the attributes NFrames, FirstId and
    LastId. If the image changes its shape or type, the incomplete sum is dropped. Frames of an
    incomplete sum at stop are not published, and counted as nLeft.

    Keys: nFrames (2), idOf: "last" or "first".
    """


class AverageFrames(_Stack):
    """Publishes the mean of each nFrames frames, as float32 up to 16 bits, else float64.

    Everything else, and the keys, are as for `SumFrames`.
    """

    def _result(self, total: Pixels, last: Pixels, count: int, named: Frame) -> Pixels:
        total += last
        return mean_of(total, count, named.like(total.shape, mean_dtype(last.dtype)))


class ThresholdCountOptions(Options):
    """Options of `ThresholdCount`."""

    threshold: float = 0
    above: str = "NAbove"
    below: str = "NBelow"

    @model_validator(mode="after")
    def _names_differ(self) -> ThresholdCountOptions:
        if not self.above or not self.below or self.above == self.below:
            raise ValueError("above and below must be two names of attributes")
        return self


class ThresholdCount(OptionProcessor[ThresholdCountOptions]):
    """Counts pixels at or above, and below, a threshold; passes the image with the two numbers.

    Keys: threshold (0), above ("NAbove"), below ("NBelow"): names of the attributes. A pixel that
    is not a number (NaN) counts as neither.
    """

    options_type = ThresholdCountOptions
    COUNTERS = ("nAbove", "nBelow", "lastAbove", "lastBelow")

    def process_frame(self, frame: Frame) -> Frame:
        image = frame.image
        above = int(np.count_nonzero(image >= self.options.threshold))
        below = image.size - above
        if image.dtype.kind == "f":
            below -= int(np.count_nonzero(np.isnan(image)))
        counts = self.counts
        counts["nAbove"] += above
        counts["nBelow"] += below
        counts["lastAbove"], counts["lastBelow"] = above, below
        names = {self.options.above: above, self.options.below: below}
        return frame.replace(attributes={**frame.attributes, **names})
