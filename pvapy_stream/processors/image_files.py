"""``ImageFileWriter``: one TIFF, PNG or npy file an image."""

from __future__ import annotations

import datetime
import errno
import json
import os
import string
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pvaccess as pva
from pydantic import model_validator

from pvapy_stream.errors import ObjectError, ProcessorError
from pvapy_stream.frame import Frame
from pvapy_stream.plugins import require
from pvapy_stream.processors.options import OptionProcessor, Options

_ID_FIELDS = ("uniqueId", "frameId", "objectId")
_FIELDS = (*_ID_FIELDS, "processorId", "time", "timeNs")

_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def _write_tiff(path: Path, frame: Frame) -> None:
    # `shape` is what tifffile itself writes there.
    about = {
        "shape": list(frame.image.shape),
        "uniqueId": frame.id,
        "timeNs": frame.time_ns,
        "attributes": {name: _plain(value) for name, value in frame.attributes.items()},
    }
    require("tifffile", "images").imwrite(
        path,
        frame.image,
        photometric="rgb" if frame.image.ndim == 3 else "minisblack",
        description=json.dumps(about),
        metadata=None,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _write_png(path: Path, frame: Frame) -> None:
    image = frame.image
    if image.dtype != np.uint8 and (image.dtype != np.uint16 or image.ndim == 3):
        raise ObjectError(
            f"PNG has uint8 pixels, grey ones also uint16, not {image.dtype}"
            f" {'colour' if image.ndim == 3 else 'grey'}; name the files .tiff or .npy"
        )
    picture = require("PIL.Image", "images").fromarray(np.ascontiguousarray(image))
    with path.open("wb") as file:
        picture.save(file, "PNG")


def _write_npy(path: Path, frame: Frame) -> None:
    with path.open("wb") as file:
        np.save(file, frame.image, allow_pickle=False)


_WRITERS: dict[str, Callable[[Path, Frame], None]] = {
    ".tiff": _write_tiff,
    ".tif": _write_tiff,
    ".png": _write_png,
    ".npy": _write_npy,
}


class ImageFileWriterOptions(Options):
    """Options of `ImageFileWriter`."""

    output_directory: Path = Path(".")
    output_file_name_format: str = "{uniqueId:06d}.{processorId}.tiff"
    overwrite: bool = False

    @model_validator(mode="after")
    def _check_names(self) -> ImageFileWriterOptions:
        check_name_format(self.output_file_name_format)
        return self


def check_name_format(text: str) -> None:
    """See whether a format gives each image a name of its own.

    Raises:
        ValueError: it does not, or it cannot be used.
    """
    what = f"outputFileNameFormat {text!r}"
    try:
        used = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
        if unknown := used.difference(_FIELDS):
            raise ValueError(f"unknown {', '.join(sorted(map(repr, unknown)))}")
        one, other = file_name(text, 1, 1, 0), file_name(text, 2, 1, 0)
    except (ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{what} cannot be used: {error}; fields are {', '.join(_FIELDS)}, as in"
            " {uniqueId:06d}.{processorId}.tiff"
        ) from error
    if one == other:
        raise ValueError(
            f"{what} names no id, so files would overwrite each other; use"
            f" {{{'}, {'.join(_ID_FIELDS)}}}"
        )
    path = PurePosixPath(one)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{what} leads out of outputDirectory; name files within it")
    if path.suffix.lower() not in _WRITERS:
        raise ValueError(f"{what} ends in none of {', '.join(_WRITERS)}")


def file_name(text: str, frame_id: int, processor_id: int, time_ns: int) -> str:
    """Name of a file; time is a UTC datetime, such as ``{time:%Y%m%dT%H%M%S}``."""
    when = datetime.datetime.fromtimestamp(time_ns / 1e9, datetime.timezone.utc)
    return text.format(
        uniqueId=frame_id,
        frameId=frame_id,
        objectId=frame_id,
        processorId=processor_id,
        time=when,
        timeNs=time_ns,
    )


class ImageFileWriter(OptionProcessor[ImageFileWriterOptions]):
    """Writes each image to a file of its own, and passes it on.

    A file has the ending .part until it is whole. TIFF files have id, time (ns) and attributes as
    JSON in their description.

    Keys: outputDirectory ("."; made when it is not there), outputFileNameFormat
    ("{uniqueId:06d}.{processorId}.tiff"; the ending tells the format: .tiff, .tif, .png, .npy; the
    fields are uniqueId, frameId, objectId, processorId, time, timeNs), overwrite (false).
    """

    options_type = ImageFileWriterOptions

    def __init__(self, configDict: dict[str, Any] | None = None) -> None:
        super().__init__(configDict)
        self._started = False

    def configure(self, configDict: Any) -> None:
        before = self.options, self._given
        super().configure(configDict)
        try:
            if self._started:
                self._prepare()
        except ProcessorError:
            self.options, self._given = before
            raise

    def start(self) -> None:
        """Make the directory.

        Raises:
            ProcessorError: it cannot be made or written to.
            MissingExtraError: what writes the format is not installed.
        """
        self._prepare()
        self._started = True

    def _prepare(self) -> None:
        directory = self.options.output_directory
        probe = directory / f".pvapy_stream.{os.getpid()}.{self.processorId}.part"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ProcessorError(
                f"cannot write into outputDirectory {directory}: {error.strerror}"
            ) from error
        suffix = PurePosixPath(self.options.output_file_name_format).suffix.lower()
        if suffix == ".png":
            require("PIL.Image", "images")
        elif suffix != ".npy":
            require("tifffile", "images")

    def process_frame(self, frame: Frame) -> Frame:
        start = time.perf_counter()
        options = self.options
        name = file_name(
            options.output_file_name_format, frame.id, self.processorId or 0, frame.time_ns
        )
        path = options.output_directory / name
        self.bytes_saved += write_image(path, frame, options.overwrite)
        self.files_saved += 1
        self.seconds += time.perf_counter() - start
        return frame

    def resetStats(self) -> None:
        self.files_saved = self.bytes_saved = 0
        self.seconds = 0.0

    def getStats(self) -> dict[str, Any]:
        per_second = 1 / self.seconds if self.seconds else 0.0
        return {
            "nFilesSaved": self.files_saved,
            "nBytesSaved": self.bytes_saved,
            "fileProcessingTime": self.seconds,
            "fileProcessingRate": self.files_saved * per_second,
            "dataStorageRateMBps": self.bytes_saved * per_second / 1e6,
        }

    def getStatsPvaTypes(self) -> dict[str, Any]:
        return {
            "nFilesSaved": pva.ULONG,
            "nBytesSaved": pva.ULONG,
            "fileProcessingTime": pva.DOUBLE,
            "fileProcessingRate": pva.DOUBLE,
            "dataStorageRateMBps": pva.DOUBLE,
        }


def write_image(path: Path, frame: Frame, overwrite: bool = False) -> int:
    """Write one image; nobody sees a half-written file. Returns its size in bytes.

    Raises:
        ProcessorError: the file is there already, or cannot be written.
        ObjectError: the format does not have such pixels.
    """
    if not overwrite and path.exists():
        raise ProcessorError(_is_there(path))
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _WRITERS[path.suffix.lower()](part, frame)
            size = part.stat().st_size
            _take_name(part, path, overwrite)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ProcessorError(f"cannot write {path}: {error.strerror or error}") from error
    return size


def _take_name(part: Path, path: Path, overwrite: bool) -> None:
    if overwrite:
        part.replace(path)
        return
    try:
        # Unlike a rename, a link refuses to take the place of a file.
        os.link(part, path)
    except FileExistsError as error:
        raise ProcessorError(_is_there(path)) from error
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        part.replace(path)


def _is_there(path: Path) -> str:
    return f"{path} is there already; choose other names, or set overwrite"
