"""Attributes of an image as bytes, with all other fields of an NTNDArray except the pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
import pvaccess as pva

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import Frame

_ARRAY = 1  # MessagePack extension: an array, as (type, shape, bytes)

# Other fields of an NTNDArray and of its attributes; they are stored if not at their default.
_REST = ("descriptor", "alarm", "display")
_REST_OF_ATTRIBUTE = ("tags", "alarm", "timeStamp")
_EMPTY: dict[str, object] = {
    "descriptor": "",
    "alarm": {"severity": 0, "status": 0, "message": ""},
    "display": {"limitLow": 0.0, "limitHigh": 0.0, "description": "", "format": "", "units": ""},
    "tags": [],
    "timeStamp": {"secondsPastEpoch": 0, "nanoseconds": 0, "userTag": 0},
}


def _hook(value: object) -> object:
    if isinstance(value, np.ndarray):
        array = cast("npt.NDArray[np.generic]", value)
        # Of numpy's types, `str` and `item` have none.
        kind = cast("str", array.dtype.str)  # pyright: ignore[reportUnknownMemberType]
        plain = (kind, array.shape, array.tobytes())
        return msgspec.msgpack.Ext(_ARRAY, msgspec.msgpack.encode(plain))
    if isinstance(value, np.generic):
        return value.item()  # pyright: ignore[reportUnknownVariableType]
    return str(value)


def _ext_hook(code: int, data: memoryview) -> npt.NDArray[np.generic]:
    if code != _ARRAY:
        raise ObjectError(f"an attribute is of unknown kind {code}")
    kind, shape, content = _decode_array(data)
    return cast("npt.NDArray[np.generic]", np.ndarray(shape, np.dtype(kind), content))


_decode_array = msgspec.msgpack.Decoder(tuple[str, tuple[int, ...], bytes]).decode
_encode = msgspec.msgpack.Encoder(enc_hook=_hook).encode
# Attributes, each the arguments of `_attribute`, and other fields.
_Decoded = tuple[list[list[Any]], dict[str, Any]]
_decode = msgspec.msgpack.Decoder(_Decoded, ext_hook=_ext_hook).decode
_TYPES = (
    pva.BOOLEAN, pva.BYTE, pva.UBYTE, pva.SHORT, pva.USHORT, pva.INT, pva.UINT, pva.LONG, pva.ULONG,
    pva.FLOAT, pva.DOUBLE, pva.STRING,
)  # fmt: skip
_CODES = {kind: code for code, kind in enumerate(_TYPES)}
# Code of the type of an attribute's value; in a list for an array.
_Code = int | list[int]


class WireAttributes(Mapping[str, Any]):
    """Attribute values by name, decoded at the first access.

    Attributes:
        wire: the bytes.
    """

    __slots__ = ("_parts", "_values", "wire")

    def __init__(self, wire: bytes) -> None:
        self.wire = wire
        self._values: dict[str, object] | None = None
        self._parts: _Decoded | None = None

    def _decoded(self) -> _Decoded:
        if self._parts is None:
            self._parts = _decode(self.wire) if self.wire else ([], {})
        return self._parts

    @property
    def values_by_name(self) -> dict[str, object]:
        """All values."""
        if self._values is None:
            self._values = {entry[0]: entry[1] for entry in self._decoded()[0]}
        return self._values

    def __getitem__(self, name: str) -> Any:
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)

    def apply_to(self, obj: pva.PvObject) -> None:
        """Set the attributes of an NTNDArray, and the other fields stored with them."""
        entries, rest = self._decoded()
        obj["attribute"] = [_attribute(*entry) for entry in entries]
        for name in _REST:
            if name in rest:
                obj[name] = rest[name]
        for name in ("timeStamp", "dataTimeStamp"):
            if name in rest:
                obj.setInt(f"{name}.userTag", rest[name])
        dimensions = rest.get("dimension", [])
        if dimensions and [d[0] for d in dimensions] == [d["size"] for d in obj["dimension"]]:
            obj["dimension"] = [pva.PvDimension(*d) for d in dimensions]


def _attribute(
    name: str,
    value: object,
    kind: _Code | None = None,
    descriptor: str = "",
    source: str = "",
    source_type: int = 0,
    rest: dict[str, object] | None = None,
) -> pva.PvObject | dict[str, object]:
    if kind is None:
        from pvapy_stream.pva.ntndarray import pv_value

        return pva.NtAttribute(name, pv_value(value))
    pv_kind = [_TYPES[kind[0]]] if isinstance(kind, list) else _TYPES[kind]
    if isinstance(value, np.ndarray):
        value = cast("npt.NDArray[np.generic]", value).tolist()
    return {
        "name": name,
        "value": ({"value": value}, {"value": pv_kind}),
        **{key: _EMPTY[key] for key in _REST_OF_ATTRIBUTE},
        "descriptor": descriptor,
        "sourceType": source_type,
        "source": source,
        **(rest or {}),
    }


def wire_of_frame(frame: Frame) -> bytes:
    """The attributes of a frame from any source, as bytes."""
    attributes = frame.attributes
    if isinstance(attributes, WireAttributes):
        return attributes.wire
    if frame.origin is not None and not frame.attributes_changed:
        wire = wire_of_object(frame.origin)
        if wire is not None:
            return wire
    if not attributes:
        return b""
    return _encode(([[name, value] for name, value in attributes.items()], {}))


def wire_of_object(obj: Any) -> bytes | None:
    """Attributes and other fields of an NTNDArray, as bytes; None if they have an unusual form."""
    entries: list[list[object]] = []
    for attribute in obj["attribute"]:
        entry = _entry(attribute)
        if entry is None:
            return None
        entries.append(entry)
    rest = {name: value for name in _REST if (value := obj[name]) != _EMPTY[name]}
    for name in ("timeStamp", "dataTimeStamp"):
        if tag := obj.getInt(f"{name}.userTag"):
            rest[name] = tag
    dimensions = obj["dimension"]
    if any(d["offset"] or d["binning"] != 1 or d["reverse"] or d["fullSize"] != d["size"]
           for d in dimensions):  # fmt: skip
        rest["dimension"] = [
            [d["size"], d["offset"], d["fullSize"], d["binning"], d["reverse"]] for d in dimensions
        ]
    return _encode((entries, rest))


def _entry(attribute: dict[str, Any]) -> list[object] | None:
    """Arguments of `_attribute`; None for a value that is not a scalar or an array of scalars."""
    value = attribute["value"]
    if not isinstance(value, tuple):
        return None
    union = cast("tuple[dict[str, object], ...]", value)
    if len(union) != 2 or [*union[1]] != ["value"]:
        return None
    code = _code_of(union[1]["value"])
    if code is None:
        return None
    entry = [
        attribute["name"],
        union[0]["value"],
        code,
        attribute["descriptor"],
        attribute["source"],
        attribute["sourceType"],
    ]
    rest = {
        key: attribute[key]
        for key in _REST_OF_ATTRIBUTE
        if key in attribute and attribute[key] != _EMPTY[key]
    }
    return [*entry, rest] if rest else entry


def _code_of(kind: object) -> _Code | None:
    if isinstance(kind, pva.ScalarType):
        return _CODES.get(kind)
    if isinstance(kind, list):
        kinds = cast("list[object]", kind)
        if len(kinds) == 1 and isinstance(kinds[0], pva.ScalarType):
            code = _CODES.get(kinds[0])
            return None if code is None else [code]
    return None
