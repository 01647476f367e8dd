"""Attributes of an image as bytes, and all else of an NTNDArray that is no pixel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import pvaccess as pva

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import Frame

_ARRAY = 1  # MessagePack extension: an array, as (type, shape, bytes)

# What else of an NTNDArray and of its attributes is carried, if it is not what it is by default.
_REST = ("descriptor", "alarm", "display")
_REST_OF_ATTRIBUTE = ("tags", "alarm", "timeStamp")
_EMPTY: dict[str, Any] = {
    "descriptor": "",
    "alarm": {"severity": 0, "status": 0, "message": ""},
    "display": {"limitLow": 0.0, "limitHigh": 0.0, "description": "", "format": "", "units": ""},
    "tags": [],
    "timeStamp": {"secondsPastEpoch": 0, "nanoseconds": 0, "userTag": 0},
}


def _hook(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        plain = (value.dtype.str, value.shape, value.tobytes())
        return msgspec.msgpack.Ext(_ARRAY, msgspec.msgpack.encode(plain))
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


def _ext_hook(code: int, data: memoryview) -> Any:
    if code != _ARRAY:
        raise ObjectError(f"an attribute is of unknown kind {code}")
    kind, shape, content = msgspec.msgpack.decode(data)
    return np.frombuffer(content, np.dtype(kind)).reshape(shape)


_encode = msgspec.msgpack.Encoder(enc_hook=_hook).encode
_decode = msgspec.msgpack.Decoder(tuple[list[Any], dict[str, Any]], ext_hook=_ext_hook).decode
_TYPES = tuple(
    getattr(pva, name)
    for name in (
        "BOOLEAN", "BYTE", "UBYTE", "SHORT", "USHORT", "INT", "UINT", "LONG", "ULONG", "FLOAT",
        "DOUBLE", "STRING",
    )
)  # fmt: skip
_CODES = {kind: code for code, kind in enumerate(_TYPES)}


class WireAttributes(Mapping[str, Any]):
    """Attribute values by name, decoded when they are first looked at.

    Attributes:
        wire: the bytes.
    """

    __slots__ = ("_parts", "_values", "wire")

    def __init__(self, wire: bytes) -> None:
        self.wire = wire
        self._values: dict[str, Any] | None = None
        self._parts: tuple[list[Any], dict[str, Any]] | None = None

    def _decoded(self) -> tuple[list[Any], dict[str, Any]]:
        if self._parts is None:
            self._parts = _decode(self.wire) if self.wire else ([], {})
        return self._parts

    @property
    def values_by_name(self) -> dict[str, Any]:
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

    def dress(self, obj: Any) -> None:
        """Give an NTNDArray the attributes, and what else came with them."""
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
    value: Any,
    kind: Any = None,
    descriptor: str = "",
    source: str = "",
    source_type: int = 0,
    rest: dict[str, Any] | None = None,
) -> Any:
    if kind is None:
        from pvapy_stream.pva.ntndarray import pv_value

        return pva.NtAttribute(name, pv_value(value))
    pv_kind: Any = [_TYPES[kind[0]]] if isinstance(kind, list) else _TYPES[kind]
    if isinstance(value, np.ndarray):
        value = value.tolist()
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
    """The attributes of a frame that came from anywhere."""
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
    """Attributes and the like of an NTNDArray object; None when they are not of the usual form."""
    entries = []
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


def _entry(attribute: dict[str, Any]) -> list[Any] | None:
    value = attribute["value"]
    if not isinstance(value, tuple) or len(value) != 2 or [*value[1]] != ["value"]:
        return None
    kind: Any = value[1]["value"]
    code: Any
    if isinstance(kind, list):
        code = [_CODES.get(kind[0])] if len(kind) == 1 else [None]
    else:
        code = _CODES.get(kind) if isinstance(kind, pva.ScalarType) else None
    if code in (None, [None]):
        return None
    entry = [
        attribute["name"],
        value[0]["value"],
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
