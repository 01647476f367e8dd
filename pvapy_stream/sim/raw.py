"""Frames of raw binary files, laid out as a YAML file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from pvapy_stream.base_settings import PIXEL_TYPES
from pvapy_stream.errors import SettingsError, SourceError
from pvapy_stream.frame import Frame
from pvapy_stream.plugins import require
from pvapy_stream.settings import Settings
from pvapy_stream.sim.source import frame_of, unreadable

_BYTE_ORDERS = {"<": "<", ">": ">", "=": "=", "little": "<", "big": ">", "native": "="}


class RawLayout(Settings):
    """The ``file_info`` part of the YAML file.

    Attributes:
        header_offset: bytes before the first frame.
        between_frames: bytes between two frames.
        width, height: pixels.
        n_images: frames in each file; 0: as many as there are.
        datatype: pixel type by its numpy name.
        endian: byte order: < or little, > or big, = or native.
        ordered_files: files to stream, in this order, instead of those of the command line.
    """

    width: int = Field(ge=1)
    height: int = Field(ge=1)
    datatype: str
    header_offset: int = Field(0, ge=0)
    between_frames: int = Field(0, ge=0)
    n_images: int = Field(0, ge=0)
    endian: str = "="
    ordered_files: tuple[str, ...] = ()

    @field_validator(
        "header_offset", "between_frames", "n_images", "endian", "ordered_files", mode="before"
    )
    @classmethod
    def _empty_is_default(cls, value: Any, info: Any) -> object:
        # A YAML key without a value reads as None.
        return cls.model_fields[info.field_name].default if value is None else value

    @field_validator("datatype")
    @classmethod
    def _known_type(cls, value: str) -> str:
        if value not in PIXEL_TYPES:
            raise ValueError(f"is not a pixel type; give one of {', '.join(PIXEL_TYPES)}")
        return value

    @field_validator("endian")
    @classmethod
    def _known_order(cls, value: str) -> str:
        if value.lower() not in _BYTE_ORDERS:
            raise ValueError("is not a byte order; give < (little), > (big) or = (native)")
        return _BYTE_ORDERS[value.lower()]

    @property
    def dtype(self) -> np.dtype:
        """Pixel type with its byte order."""
        return np.dtype(self.datatype).newbyteorder(self.endian)  # type: ignore[arg-type]

    @property
    def frame_bytes(self) -> int:
        """Size of one frame, without what is between frames."""
        return self.width * self.height * self.dtype.itemsize


def read_layout(path: Path) -> RawLayout:
    """Read the description of raw files.

    Raises:
        SourceError: missing, no YAML, or a wrong, unknown or missing key.
    """
    yaml = require("yaml", "images")
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise unreadable(path, error, "give a YAML file with --config-file") from error
    info = content.get("file_info") if isinstance(content, dict) else None
    if not isinstance(info, dict):
        raise SourceError(
            f"{path} has no file_info; write width, height, datatype and so on below that key"
        )
    try:
        return RawLayout.of(**{str(key): value for key, value in info.items()})
    except SettingsError as error:
        raise SourceError(f"{path}: file_info: {error}") from error


class RawSource:
    """Frames of one raw file, mapped into memory.

    Raises:
        SourceError: the file is shorter than its description.
    """

    def __init__(self, path: Path, layout: RawLayout) -> None:
        self._path = path
        self._layout = layout
        self._step = layout.frame_bytes + layout.between_frames
        size = path.stat().st_size
        # Nothing need follow the last frame.
        fitting = max(0, size - layout.header_offset + layout.between_frames) // self._step
        if fitting < max(1, layout.n_images):
            wanted = layout.n_images or "one"
            raise SourceError(
                f"{path} has {size} bytes, which hold {fitting} frames of"
                f" {layout.width}x{layout.height} {layout.datatype} behind a header of"
                f" {layout.header_offset}, not {wanted}; correct file_info in the YAML file"
            )
        self._length = layout.n_images or fitting
        try:
            self._bytes: np.ndarray = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise unreadable(path, error, "check the file") from error

    def __len__(self) -> int:
        return self._length

    def frame(self, index: int) -> Frame:
        """The frame at its place in the file."""
        layout = self._layout
        start = layout.header_offset + index * self._step
        pixels = np.frombuffer(self._bytes[start : start + layout.frame_bytes], layout.dtype)
        return frame_of(index, pixels.reshape(layout.height, layout.width), str(self._path))

    def close(self) -> None:
        """Let go of the map; frames that are still in use keep it."""
        self._bytes = np.empty(0, np.uint8)
