"""How images are, in the words of areaDetector."""

from __future__ import annotations

import math
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np

from pvapy_stream.areadetector.plugin_records import DATA_TYPES, MONO, RGB, Value
from pvapy_stream.files.names import quoted
from pvapy_stream.frame import ColorMode, Frame


class ImageForm(NamedTuple):
    """Shape, type and attributes of images.

    Attributes:
        shape: (ny, nx), or (ny, nx, 3).
        data_type: index of the type of pixels.
        size: bytes of an image.
        codec: in which images arrive.
        attributes: their names and types, as XML.
    """

    shape: tuple[int, ...]
    data_type: int
    size: int
    codec: str
    attributes: str

    @classmethod
    def of(cls, frame: Frame) -> ImageForm:
        """That of a frame."""
        shape = _shape(frame)
        name = frame.dtype.name.replace("u", "U").replace("int", "Int").replace("float", "Float")
        return cls(
            shape,
            DATA_TYPES.index(name) if name in DATA_TYPES else 0,
            math.prod(shape) * frame.dtype.itemsize if shape else 0,
            frame.codec,
            _attributes(frame),
        )

    def values(self) -> dict[str, Value]:
        """Values of records; sizes are those of the file, fastest first."""
        sizes = list(reversed(self.shape))
        rgb = len(sizes) == 3
        x, y = (sizes[1:] if rgb else sizes) or (0, 0)
        return {
            "NDimensions_RBV": len(sizes),
            "Dimensions_RBV": sizes,
            **{f"ArraySize{n}": sizes[n] if n < len(sizes) else 0 for n in range(3)},
            "ArraySizeX_RBV": x,
            "ArraySizeY_RBV": y,
            "ArraySizeZ_RBV": 3 if rgb else 0,
            "ArraySize_RBV": self.size,
            "DataType_RBV": self.data_type,
            "ColorMode_RBV": RGB if rgb else MONO,
            "Codec_RBV": self.codec,
            "NumRowChunks_RBV": y,
            "NumColChunks_RBV": x,
        }


def _shape(frame: Frame) -> tuple[int, ...]:
    if not frame.has_image:
        return ()
    stored = frame.stored_shape
    axes = {ColorMode.RGB2: (0, 2, 1), ColorMode.RGB3: (1, 2, 0)}.get(frame.color_mode)
    return stored if axes is None else tuple(stored[axis] for axis in axes)


def _attributes(frame: Frame) -> str:
    """Names and types of numbers and texts, which become columns of the file."""
    lines: list[str] = []
    for name, value in frame.attributes.items():
        kind = _kind(value)
        if kind:
            lines.append(
                f'<Attribute name={quoteattr(quoted(name))} type="PARAM" datatype="{kind}"/>'
            )
    return f"<Attributes>{''.join(lines)}</Attributes>" if lines else ""


def _kind(value: object) -> str:
    if isinstance(value, (bool, np.bool_)) or np.ndim(value):  # type: ignore[arg-type]
        return ""
    if isinstance(value, (float, np.floating)):
        return "DOUBLE"
    if isinstance(value, (int, np.integer)):
        return "INT64"
    return "STRING" if isinstance(value, str) else ""
