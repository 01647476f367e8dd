"""Frames of image files: TIFF through tifffile, everything else through fabio."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pvapy_stream.errors import SourceError
from pvapy_stream.frame import Frame
from pvapy_stream.plugins import require
from pvapy_stream.sim.source import FrameSource, frame_of, unreadable

_ADVICE = (
    "give npy, npz, HDF5, TIFF or another file that fabio reads, or describe raw data with"
    " --config-file"
)

logger = logging.getLogger(__name__)


def open_image(path: Path) -> FrameSource:
    """Open an image file of any kind.

    Raises:
        SourceError: it cannot be read.
        MissingExtraError: the library for it is not installed.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        try:
            return TiffSource(path)
        except SourceError as error:
            # tifffile leaves some compressions to a further package; fabio may know them.
            logger.debug("%s; trying fabio", error)
    return FabioSource(path)


class TiffSource:
    """Pages of a TIFF file, mono or RGB.

    Raises:
        SourceError: the file, or its first page, cannot be read.
    """

    def __init__(self, path: Path) -> None:
        tifffile = require("tifffile", "images")
        self._path = path
        try:
            self._file: Any = tifffile.TiffFile(path)
        except Exception as error:
            raise unreadable(path, error, _ADVICE) from error
        try:
            self.frame(0)
        except SourceError:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._file.pages)

    def frame(self, index: int) -> Frame:
        """One page."""
        try:
            page = self._file.pages[index]
            image = page.asarray()
        except Exception as error:
            raise unreadable(
                self._path,
                error,
                f"page {index + 1} is damaged, or its compression needs the package imagecodecs",
            ) from error
        # Colour stored plane by plane.
        image = image.transpose(1, 2, 0) if page.axes == "SYX" else image
        return frame_of(index, image, str(self._path))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class FabioSource:
    """Frames of a file that fabio reads.

    Raises:
        SourceError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        fabio = require("fabio", "images")
        self._path = path
        try:
            self._file: Any = fabio.open(str(path))
        except Exception as error:
            raise unreadable(path, error, _ADVICE) from error

    def __len__(self) -> int:
        return max(1, self._file.nframes)

    def frame(self, index: int) -> Frame:
        """One image."""
        try:
            image = (self._file if len(self) == 1 else self._file.getframe(index)).data
        except Exception as error:
            raise unreadable(self._path, error, f"frame {index + 1} is damaged") from error
        if image is None:
            raise SourceError(f"{self._path} has no image; {_ADVICE}")
        return frame_of(index, image, str(self._path))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
