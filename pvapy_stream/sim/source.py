"""What every source of frames looks like, and how its arrays become frames."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pvapy_stream.base_settings import PIXEL_TYPES
from pvapy_stream.errors import SourceError
from pvapy_stream.frame import ColorMode, Frame


class FrameSource(Protocol):
    """A number of frames that can be asked for by index."""

    def __len__(self) -> int: ...

    def frame(self, index: int) -> Frame:
        """Frame number `index`, 0 first; its id is `index`.

        Raises:
            SourceError: it cannot be read.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def frame_of(index: int, image: NDArray, where: str, color_mode: ColorMode | None = None) -> Frame:
    """A frame from an array as files hold it.

    Args:
        index: becomes the id.
        image: (ny, nx), or (ny, nx, 3) for colour; any byte order.
        where: the file, for messages.
        color_mode: how colour is to be stored; RGB1 when not given.

    Raises:
        SourceError: a shape or pixel type that cannot be published.
    """
    check_pixels(image.dtype, where)
    if image.dtype == np.bool_:
        image = image.view(np.uint8)
    if not image.dtype.isnative:
        image = image.astype(image.dtype.newbyteorder("="))
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or image.size == 0:
        raise SourceError(
            f"{where}: an array of shape {image.shape} is not an image; images are (ny, nx), or"
            " (ny, nx, 3) for colour"
        )
    if color_mode is None:
        color_mode = ColorMode.RGB1 if image.ndim == 3 else ColorMode.MONO
    return Frame.of(index, image, color_mode=color_mode, attributes={"ColorMode": int(color_mode)})


def check_pixels(dtype: np.dtype, where: str) -> None:
    """Raise SourceError for pixels that NTNDArray has no type for."""
    if dtype.name not in (*PIXEL_TYPES, "bool"):
        raise SourceError(
            f"{where}: pixels of type {dtype} cannot be published; convert them to one of"
            f" {', '.join(PIXEL_TYPES)}"
        )


def stack_length(shape: tuple[int, ...], where: str) -> int:
    """How many frames an array holds: (ny, nx), (n, ny, nx) or (n, ny, nx, 3).

    Raises:
        SourceError: another shape.
    """
    if len(shape) == 2:
        return 1
    if len(shape) == 3 or (len(shape) == 4 and shape[3] == 3):
        return shape[0]
    raise SourceError(
        f"{where}: an array of shape {shape} has no frames; write it as (n, ny, nx), or (n, ny,"
        " nx, 3) for colour"
    )


def unreadable(path: Path, error: BaseException, advice: str) -> SourceError:
    """The error for a file that is there and cannot be read."""
    return SourceError(f"cannot read {path}: {str(error) or type(error).__name__}; {advice}")
