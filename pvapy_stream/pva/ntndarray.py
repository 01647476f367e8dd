"""Frames from NTNDArray objects, and NTNDArray objects from frames."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pvaccess as pva

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import AttributeValue, ColorMode, Frame

# The value of this field in an opening object, which is no frame.
TAG = "timeStamp.userTag"
MARK = 0x7673
LATE = 0x7674

_NANO = 1_000_000_000

_FIELD_OF_DTYPE = {
    np.dtype(name): f"{key}Value"
    for name, key in {
        "uint8": "ubyte",
        "int8": "byte",
        "uint16": "ushort",
        "int16": "short",
        "uint32": "uint",
        "int32": "int",
        "uint64": "ulong",
        "int64": "long",
        "float32": "float",
        "float64": "double",
        "bool": "boolean",
    }.items()
}
_SCALAR_OF_DTYPE = {
    np.dtype(name): getattr(pva, name_pva)
    for name, name_pva in {
        "uint8": "UBYTE",
        "int8": "BYTE",
        "uint16": "USHORT",
        "int16": "SHORT",
        "uint32": "UINT",
        "int32": "INT",
        "uint64": "ULONG",
        "int64": "LONG",
        "float32": "FLOAT",
        "float64": "DOUBLE",
    }.items()
}
_PV_OF_SCALAR = {
    pva.BOOLEAN: pva.PvBoolean,
    pva.INT: pva.PvInt,
    pva.LONG: pva.PvLong,
    pva.DOUBLE: pva.PvDouble,
    pva.STRING: pva.PvString,
}
DTYPE_OF_SCALAR = {int(scalar): dtype for dtype, scalar in _SCALAR_OF_DTYPE.items()}

# Fields without which an object is no image; a field request may leave out all others.
_NEEDED = ("value", "dimension", "uniqueId")


def to_frame(obj: pva.PvObject) -> Frame:
    """A frame whose arrays are views of an NTNDArray object; nothing is copied or decoded.

    The frame's arrays stay valid when the binding reuses the object for the next update; its
    attributes do not, unless they were read before.

    Raises:
        ObjectError: the object is no NTNDArray, or its dimensions and colour mode do not fit.
    """
    try:
        shape = tuple(d["size"] for d in reversed(obj["dimension"]))
        field = obj.getSelectedUnionFieldName("value")
        payload = obj["value"][0].get(field) if field else None
        frame_id = obj.getInt("uniqueId")
    except (pva.PvaException, KeyError, AttributeError, TypeError) as error:
        missing = [name for name in _NEEDED if not obj.hasField(name)]
        hint = (
            f"it lacks {', '.join(missing)}; ask for them with --field-request"
            if missing
            else str(error)
        )
        raise ObjectError(f"the object is not an NTNDArray image: {hint}") from error
    if payload is None or isinstance(payload, list):
        payload = np.asarray(payload if payload is not None else [], np.uint8)
    codec, dtype = _codec(obj)
    return Frame(
        frame_id,
        payload,
        shape,
        time_ns=time_of(obj),
        dtype=dtype or payload.dtype,
        codec=codec,
        color_mode=color_mode(shape, lambda: read_attributes(obj)),
        attributes=lambda: read_attributes(obj),
        origin=obj,
    )


def blank_image(obj: pva.PvObject, frame: Frame) -> None:
    """Set all pixels of an NTNDArray object to 0, uncompressed.

    Args:
        obj: the object.
        frame: the frame it holds.
    """
    pixels = np.zeros(math.prod(frame.stored_shape) if frame.stored_shape else 0, frame.dtype)
    obj["value"] = {_FIELD_OF_DTYPE[pixels.dtype]: pixels}
    if obj.hasField("codec"):
        obj["codec.name"] = ""
    for name in ("compressedSize", "uncompressedSize"):
        if obj.hasField(name):
            obj[name] = pixels.nbytes


def read_attributes(obj: pva.PvObject) -> dict[str, AttributeValue]:
    """Values of the NTNDArray attributes by name."""
    if not obj.hasField("attribute"):
        return {}
    values = {}
    for attribute in obj["attribute"]:
        value = attribute.get("value")
        value = value[0] if isinstance(value, tuple) else value
        values[attribute["name"]] = (
            value.get("value") if isinstance(value, dict) and "value" in value else value
        )
    return values


def _codec(obj: pva.PvObject) -> tuple[str, np.dtype | None]:
    if not obj.hasField("codec"):
        return "", None
    name = obj.getString("codec.name")
    if not name:
        return "", None
    try:
        kind = obj["codec.parameters"][0]["value"]
        return name, DTYPE_OF_SCALAR[int(kind)]
    except (pva.PvaException, KeyError, IndexError, TypeError, ValueError) as error:
        raise ObjectError(
            f"codec {name!r} does not say the type of its pixels in codec.parameters ({error})"
        ) from error


def color_mode(
    shape: tuple[int, ...], attributes: Callable[[], Mapping[str, AttributeValue]]
) -> ColorMode:
    """How an NTNDArray orders its pixels.

    Args:
        shape: its dimensions, slowest first.
        attributes: gives its attributes.

    Raises:
        ObjectError: dimensions and attribute ColorMode do not make an image.
    """
    if len(shape) < 3:
        return ColorMode.MONO
    declared = attributes().get("ColorMode")
    if len(shape) == 3:
        # Slowest first: RGB1 ends in 3, RGB2 has it in the middle, RGB3 begins with it.
        by_shape = {ColorMode.RGB1: shape[2], ColorMode.RGB2: shape[1], ColorMode.RGB3: shape[0]}
        if declared in list(by_shape) and by_shape[ColorMode(declared)] == 3:
            return ColorMode(declared)
        if declared is None:
            fitting = [mode for mode, planes in by_shape.items() if planes == 3]
            if len(fitting) == 1:
                return fitting[0]
    raise ObjectError(
        f"dimensions {shape} (slowest first) and ColorMode attribute {declared} do not make an"
        " image"
    )


def time_of(obj: pva.PvObject) -> int:
    """Time at which an object's data were taken, ns since 1970; 0 if unknown."""
    # The time of the data is preferred to the time at which the record was processed.
    for field in ("dataTimeStamp", "timeStamp"):
        if obj.hasField(field):
            seconds = obj.getLong(f"{field}.secondsPastEpoch")
            if seconds:
                return seconds * _NANO + obj.getInt(f"{field}.nanoseconds")
    return 0


class ObjectBuilder:
    """Makes NTNDArray objects from frames: a copy of a template with a few values replaced.

    A frame that came from an NTNDArray keeps everything of it that was not changed, its
    attributes and extra fields too. Not locked: use one builder for each thread.

    Args:
        like: an object of the stream; all objects get its structure if it is a whole NTNDArray.
    """

    def __init__(self, like: pva.PvObject | None = None) -> None:
        self.keeps_structure = like is not None and all(
            like.hasField(name) for name in pva.NtNdArray().keys()
        )
        whole = like if like is not None and self.keeps_structure else pva.NtNdArray()
        self.prototype = whole.copy()
        if self.prototype.hasField(TAG) and self.prototype.getInt(TAG) in (MARK, LATE):
            # Frames are built from it.
            self.prototype.setInt(TAG, 0)
        self._template = self.prototype
        self._template_key: tuple[object, ...] | None = None

    def build(self, frame: Frame) -> pva.PvObject:
        """An NTNDArray `pvaccess.PvObject` with the frame's image, id, time, codec and attributes.

        Raises:
            ObjectError: a pixel type that NTNDArray does not have.
        """
        field = field_of(frame.payload.dtype)
        origin: Any = frame.origin
        if self.keeps_structure and origin is not None:
            obj = origin.copy()
            if frame.attributes_changed:
                obj["attribute"] = _merged_attributes(frame)
            if frame.layout_changed:
                _set_layout(obj, frame)
            timed = frame.time_ns and not frame.time_changed
        else:
            obj = self._from_template(frame)
            timed = False
        obj["value"] = {field: frame.payload}
        obj.setInt("uniqueId", frame.id)
        if not timed:
            set_times(obj, frame.time_ns or time.time_ns())
        return obj

    def _from_template(self, frame: Frame) -> pva.PvObject:
        key = (
            frame.stored_shape,
            frame.dtype,
            frame.codec,
            frame.color_mode,
            *attribute_key(frame),
        )
        if key != self._template_key:
            template = self.prototype.copy()
            _set_layout(template, frame)
            _set_codec(template, frame)
            apply_to = getattr(frame.attributes, "apply_to", None)
            if apply_to is not None:
                # They were read from an object, and contain more than names and values.
                apply_to(template)
            else:
                template["attribute"] = _attributes(frame)
            self._template, self._template_key = template, key
        obj = self._template.copy()
        if frame.codec:
            obj.setLong("compressedSize", frame.payload.nbytes)
        return obj


def set_times(obj: pva.PvObject, time_ns: int) -> None:
    """Set both time stamps of an NTNDArray."""
    seconds, nanoseconds = divmod(time_ns, _NANO)
    for field in ("timeStamp", "dataTimeStamp"):
        if obj.hasField(field):
            obj.setLong(f"{field}.secondsPastEpoch", seconds)
            obj.setInt(f"{field}.nanoseconds", nanoseconds)


def _set_layout(obj: pva.PvObject, frame: Frame) -> None:
    """Set dimensions, sizes and codec, where they differ from what the object has."""
    sizes = list(reversed(frame.stored_shape))
    if [d["size"] for d in obj["dimension"]] != sizes:
        obj["dimension"] = [pva.PvDimension(size, 0, size, 1, False) for size in sizes]
    if obj.getLong("uncompressedSize") != frame.nbytes:
        obj.setLong("uncompressedSize", frame.nbytes)
    if obj.getLong("compressedSize") != frame.payload.nbytes:
        obj.setLong("compressedSize", frame.payload.nbytes)
    if obj.getString("codec.name") != frame.codec:
        _set_codec(obj, frame)


def _set_codec(obj: pva.PvObject, frame: Frame) -> None:
    kind = int(_SCALAR_OF_DTYPE[frame.dtype]) if frame.codec else 0
    obj["codec"] = pva.PvCodec(frame.codec, pva.PvInt(kind))


def _attributes(frame: Frame) -> list[pva.PvObject]:
    values = {**frame.attributes, "ColorMode": int(frame.color_mode)}
    return [pva.NtAttribute(name, pv_value(value)) for name, value in values.items()]


def _merged_attributes(frame: Frame) -> list[pva.PvObject]:
    """The frame's attributes; unchanged ones of its origin keep type, source and description."""
    origin: Any = frame.origin
    before = read_attributes(origin)
    kept = {attribute["name"]: attribute for attribute in origin["attribute"]}
    values = dict(frame.attributes)
    if "ColorMode" in values or frame.color_mode is not ColorMode.MONO:
        values["ColorMode"] = int(frame.color_mode)
    return [
        (
            kept[name]
            if name in kept and np.array_equal(before[name], value)
            else pva.NtAttribute(name, pv_value(value))
        )
        for name, value in values.items()
    ]


def field_of(dtype: np.dtype) -> str:
    """The choice of an NTNDArray's value that holds elements of a type.

    Raises:
        ObjectError: NTNDArray has none.
    """
    field = _FIELD_OF_DTYPE.get(dtype)
    if field is None:
        raise ObjectError(
            f"pixels of type {dtype} cannot be published; NTNDArray has"
            f" {', '.join(map(str, _SCALAR_OF_DTYPE))}"
        )
    return field


def scalar_of(dtype: np.dtype) -> int:
    """The number of the binding's scalar type for pixels of a type."""
    return int(_SCALAR_OF_DTYPE[dtype])


def attribute_key(frame: Frame) -> tuple[object, ...]:
    """A key of the attributes; it contains types, as 1 == 1.0 == True."""
    wire = getattr(frame.attributes, "wire", None)
    if wire is not None:
        return (wire,)
    return tuple(
        (
            name,
            type(value),
            (
                (value.dtype.str, value.shape, value.tobytes())
                if isinstance(value, np.ndarray)
                else value
            ),
        )
        for name, value in frame.attributes.items()
    )


def pv_value(value: object) -> pva.PvObject:
    """The PvObject of an attribute's value."""
    kind, plain = attribute_value(value)
    if isinstance(kind, list):
        return pva.PvObject({"value": kind}, {"value": plain.tolist()})
    return _PV_OF_SCALAR[kind](plain)


def attribute_value(value: object) -> tuple[Any, Any]:
    """The binding's type in which an attribute is sent, and the value converted to it."""
    if isinstance(value, (bool, np.bool_)):
        return pva.BOOLEAN, bool(value)
    if isinstance(value, (int, np.integer)):
        return pva.INT if -(2**31) <= value < 2**31 else pva.LONG, int(value)
    if isinstance(value, (float, np.floating)):
        return pva.DOUBLE, float(value)
    if isinstance(value, (np.ndarray, list, tuple)):
        array = np.asarray(value).reshape(-1)
        if array.dtype == np.int8:
            # The binding takes no list of signed bytes.
            array = array.astype(np.int16)
        kind = pva.BOOLEAN if array.dtype == np.bool_ else _SCALAR_OF_DTYPE.get(array.dtype)
        if kind is None:
            kind, array = pva.STRING, array.astype(str)
        return [kind], array
    return pva.STRING, str(value)
