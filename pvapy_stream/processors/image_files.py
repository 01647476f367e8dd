"""``ImageFileWriter``: one TIFF, PNG or npy file for each image."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import string
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pvaccess as pva
from pydantic import model_validator

from pvapy_stream.errors import FileError, ObjectError, ProcessorError, SettingsError
from pvapy_stream.files.disk import Identity, identity, take_name
from pvapy_stream.files.folder import check_below, check_requested
from pvapy_stream.files.run_name import run_id
from pvapy_stream.frame import Frame
from pvapy_stream.plugins import require
from pvapy_stream.processors.processor_options import (
    OptionProcessor,
    Options,
    make_options,
    own_keys,
)

__all__ = ["ImageFileWriter"]

_ID_FIELDS = ("uniqueId", "frameId", "objectId")
_FIELDS = (*_ID_FIELDS, "processorId", "time", "timeNs")


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


def _plain(value: object) -> object:
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
    """Check whether a format gives each image a different name.

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
        raise ValueError(f"{what} is outside of outputDirectory; give names within it")
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
    """Writes each image to a separate file, and passes it on.

    A file has the extension .part until it is complete. TIFF files have id, time (ns) and
    attributes as JSON in their description.

    Keys: outputDirectory ("."; created if necessary), outputFileNameFormat
    ("{uniqueId:06d}.{processorId}.tiff"; the extension selects the format: .tiff, .tif, .png, .npy;
    the fields are uniqueId, frameId, objectId, processorId, time, timeNs), overwrite (false).

    overwrite replaces plain files that existed before the run, never one of the run. A hidden file
    in outputDirectory records when the run began. A `configure` command may choose a directory
    below that of the start; it cannot replace files.
    """

    options_type = ImageFileWriterOptions

    def __init__(self, configDict: dict[str, object] | None = None) -> None:
        super().__init__(configDict)
        self._started = False
        self._root = self.options.output_directory
        # Where files may be, once somebody else than who gave the command has chosen their names.
        self._limit: Path | None = None
        self._run_began_ns = 0

    def configure(self, configDict: Any) -> None:
        """Set new values; keys that are not given keep theirs.

        Raises:
            SettingsError: a wrong value, or a directory that is not below that of the start.
            ProcessorError: the directory cannot be written to.
        """
        before = self.options, self._given, self._limit
        super().configure(configDict)
        try:
            self._check_request(own_keys(configDict))
            if self._started:
                self._prepare()
        except (ProcessorError, SettingsError):
            self.options, self._given, self._limit = before
            raise

    def _check_request(self, given: dict[str, Any]) -> None:
        """Refuse what a request may not ask for."""
        if self.options.overwrite and given.get("overwrite"):
            raise SettingsError(
                "overwrite cannot be set by configure, only where the writer is started; choose"
                " other names"
            )
        if "outputDirectory" in given or "outputFileNameFormat" in given:
            check_requested(str(self.options.output_directory / "file"), self._root)
            self._limit = self._root
            self._given = {**self._given, "overwrite": False}
            self.options = make_options(self.options_type, self._given)

    def start(self) -> None:
        """Create the directory.

        Raises:
            ProcessorError: it cannot be created or written to.
            MissingExtraError: the library of the format is not installed.
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
            if self.options.overwrite:
                self._run_began_ns = _run_began(directory)
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
        if self._limit is not None:
            check_below(path, self._limit)
        before = self._run_began_ns if options.overwrite else 0
        self.bytes_saved += write_image(path, frame, before)
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

    def getStatsPvaTypes(self) -> dict[str, object]:
        return {
            "nFilesSaved": pva.ULONG,
            "nBytesSaved": pva.ULONG,
            "fileProcessingTime": pva.DOUBLE,
            "fileProcessingRate": pva.DOUBLE,
            "dataStorageRateMBps": pva.DOUBLE,
        }


def write_image(path: Path, frame: Frame, replace_before_ns: int = 0) -> int:
    """Write one image to a file, which appears only when it is complete. Returns its size in bytes.

    Args:
        path: the file.
        frame: with the image.
        replace_before_ns: a plain file of that name may be replaced if it was last changed before
            this time, ns since 1970; 0 to replace none.

    Raises:
        ProcessorError: the file exists, or cannot be written.
        ObjectError: the format does not have such pixels.
    """
    replaces = _replaceable(path, replace_before_ns)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _WRITERS[path.suffix.lower()](part, frame)
            size = part.stat().st_size
            take_name(part, path, replaces)
        finally:
            part.unlink(missing_ok=True)
    except FileError as error:
        raise ProcessorError(_is_there(path)) from error
    except OSError as error:
        raise ProcessorError(f"cannot write {path}: {error.strerror or error}") from error
    return size


def _replaceable(path: Path, before_ns: int) -> Identity | None:
    """The file that may be replaced; None when there is none of that name.

    Raises:
        ProcessorError: there is one that may not.
    """
    if not os.path.lexists(path):
        return None
    found = identity(path)
    # The time of change cannot be set by those who copy files.
    if found is None or max(found.modified_ns, path.lstat().st_ctime_ns) >= before_ns:
        raise ProcessorError(_is_there(path))
    return found


def _run_began(directory: Path) -> int:
    """When the run began to write into a directory, ns by the clock of its file system.

    The first process of the run leaves a mark, so that those started again know it.

    Raises:
        OSError: the mark cannot be made.
    """
    mark = directory / f".pvapy_stream-{hashlib.sha256(run_id().encode()).hexdigest()[:16]}.run"
    with suppress(FileExistsError):
        mark.touch(exist_ok=False)
    return mark.stat().st_mtime_ns


def _is_there(path: Path) -> str:
    return (
        f"{path} exists; choose other names, or set overwrite for files that existed before the run"
    )
