"""Objects from values that were received, and back.

Images become `ValueObject`s, which use the values directly; others become PvObjects.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pvaccess as pva

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import AttributeValue, Frame
from pvapy_stream.pva.convert import Value, blank_object, fill, plain_array, type_of, value_of
from pvapy_stream.pva.lazy import LazyObject, StreamObject, pv_object
from pvapy_stream.pva.ntndarray import DTYPE_OF_SCALAR, MARK, color_mode
from pvapy_stream.pva.wire.buffers import legible
from pvapy_stream.pva.wire.types import (
    AnyValue,
    ArrayOf,
    Kind,
    Scalar,
    Selected,
    Structure,
    Union,
)

_NANO = 1_000_000_000
_NEEDED = ("value", "dimension", "uniqueId")
_STAMP = {"secondsPastEpoch": Kind.LONG, "nanoseconds": Kind.INT, "userTag": Kind.INT}
_LISTS = ("dimension", "attribute")
# Types of the fields that are read from an image without a check of their types.
_TYPES = {
    "uniqueId": Kind.INT,
    "dimension.size": Kind.INT,
    "codec.name": Kind.STRING,
    "attribute.name": Kind.STRING,
    **{f"{time}.{name}": kind for time in ("timeStamp", "dataTimeStamp")
       for name, kind in _STAMP.items()},
}  # fmt: skip


class PutReader:
    """Makes objects from the values of one channel.

    Args:
        kind: type of the channel.

    Attributes:
        is_image: whether they are images.

    Raises:
        ObjectError: the binding cannot hold such a structure.
    """

    def __init__(self, kind: Structure) -> None:
        self.kind = kind
        self._blank = blank_object(kind)
        self.is_image = _is_image(kind)

    def read(self, value: Value) -> StreamObject:
        """A `ValueObject` of an image, else a PvObject.

        Raises:
            ObjectError: the binding cannot hold one of the values.
        """
        return ValueObject(self, value) if self.is_image else self.build(value)

    def build(self, value: Value) -> pva.PvObject:
        """A PvObject.

        Raises:
            ObjectError: the binding cannot hold one of the values.
        """
        return fill(self._blank.copy(), self.kind, value)


def _is_image(kind: Structure) -> bool:
    """Whether a structure is an NTNDArray, or some fields of one."""
    if not isinstance(kind.get("value"), Union) or not all(map(kind.get, _NEEDED)):
        return False
    for path, wanted in _TYPES.items():
        name, _, inner = path.partition(".")
        field = kind.get(name)
        if field is None:
            # It was not requested.
            continue
        if name in _LISTS:
            field = field.element if isinstance(field, ArrayOf) else None
        if inner:
            field = field.get(inner) if isinstance(field, Structure) else None
        if not isinstance(field, Scalar) or field.kind is not wanted:
            return False
    return True


class ValueObject(LazyObject):
    """An NTNDArray as it was received."""

    __slots__ = ("_reader", "_value")

    def __init__(self, reader: PutReader, value: Value | None) -> None:
        # No id: a publisher needs fields that the frame does not have.
        super().__init__(None)
        self._reader = reader
        self._value = value

    def _make_frame(self) -> Frame:
        return frame_of_value(self.value, origin=Origin(self._without_frame()))

    def _without_frame(self) -> ValueObject:
        """The same object, for the frame.

        If frame and object referred to each other, their memory would be kept until garbage is
        collected.
        """
        made = ValueObject(self._reader, self._value)
        made._marked = self._marked
        return made

    def _make_object(self) -> pva.PvObject:
        return self._reader.build(self.value)

    @property
    def value(self) -> Value:
        """The received value."""
        return self._value or {}

    def id_of(self, field: str) -> int | None:
        found: object = self.value
        for name in field.split("."):
            found = cast("Value", found).get(name) if isinstance(found, dict) else None
        # An id that is no integer is read from the PvObject.
        return found if isinstance(found, int) else None

    @property
    def only_frame(self) -> bool:
        return False

    @property
    def wire(self) -> AnyValue | None:
        """Its type and value; None if it was marked here: the value does not have the mark."""
        return None if self._marked else AnyValue(self._reader.kind, self.value)

    @property
    def marked(self) -> bool:
        return self._marked or self.id_of("timeStamp.userTag") == MARK

    @property
    def time_ns(self) -> int:
        return time_of_value(self.value)


class Origin:
    """The PvObject of a `ValueObject`, built when it is first used."""

    __slots__ = ("_owner",)

    def __init__(self, owner: ValueObject) -> None:
        self._owner = owner

    @property
    def owner(self) -> ValueObject:
        """The object."""
        return self._owner

    def __getattr__(self, name: str) -> object:
        return getattr(self._owner.pv_object(), name)

    def __getitem__(self, field: str) -> Any:
        return self._owner.pv_object()[field]


class PutWriter:
    """Converts the objects of a stream to values. Arrays are not copied."""

    def __init__(self) -> None:
        self._structure: dict[str, object] | None = None
        self._kind = Structure()

    def write(self, obj: StreamObject) -> AnyValue:
        """The type and value of a PvObject or of a `LazyObject`.

        Raises:
            ObjectError: it has none.
        """
        if isinstance(obj, ValueObject) and (wire := obj.wire) is not None:
            return wire
        real = pv_object(obj)
        # `type_of` takes ten times as long.
        structure = real.getStructureDict()
        if structure != self._structure:
            self._kind, self._structure = type_of(real), structure
        return AnyValue(self._kind, value_of(real, self._kind, copy=False))


def frame_of_value(value: Value, origin: object = None) -> Frame:
    """A frame whose arrays are those of the value of an NTNDArray; nothing is copied.

    Raises:
        ObjectError: its dimensions, codec and colour mode do not make an image.
    """
    dimensions = cast("list[Value | None]", value["dimension"])
    shape = tuple(cast("int", d["size"]) for d in reversed(dimensions) if d is not None)
    held = cast("Selected", value["value"]).value
    payload = plain_array(held) if isinstance(held, np.ndarray) else np.zeros(0, np.uint8)
    codec, dtype = _codec(cast("Value", value.get("codec", {})))

    def attributes() -> dict[str, AttributeValue]:
        return attributes_of_value(value)

    return Frame(
        cast("int", value["uniqueId"]),
        payload,
        shape,
        time_ns=time_of_value(value),
        dtype=dtype or payload.dtype,
        codec=codec,
        color_mode=color_mode(shape, attributes),
        attributes=attributes,
        origin=origin,
    )


def _codec(codec: Value) -> tuple[str, np.dtype[np.generic] | None]:
    name = str(codec.get("name", ""))
    if not name:
        return "", None
    parameters = codec.get("parameters")
    number = parameters.value if isinstance(parameters, AnyValue) else None
    dtype = DTYPE_OF_SCALAR.get(number) if isinstance(number, int) else None
    if dtype is None:
        raise ObjectError(
            f"codec {name!r} does not say the type of its pixels in codec.parameters ({number})"
        )
    return name, dtype


def attributes_of_value(value: Value) -> dict[str, object]:
    """Values of the attributes of an NTNDArray, by name."""
    values: dict[str, object] = {}
    for attribute in cast("list[Value | None]", value.get("attribute", [])):
        if attribute is None:
            continue
        held = attribute.get("value")
        found = held.value if isinstance(held, AnyValue) else held
        if isinstance(found, dict) and "value" in found:
            found = cast("Value", found)["value"]
        if isinstance(found, str):
            # Shown to people: surrogates, from bytes that are no UTF-8, are replaced.
            found = legible(found.encode(errors="surrogateescape"))
        values[str(attribute.get("name", ""))] = found
    return values


def time_of_value(value: Value) -> int:
    """Time of the data of an NTNDArray, ns since 1970; 0 when unknown."""
    # The time of the data is preferred to the time at which the record was processed.
    for field in ("dataTimeStamp", "timeStamp"):
        stamp = value.get(field)
        if isinstance(stamp, dict):
            parts = cast("dict[str, int]", stamp)
            if seconds := parts.get("secondsPastEpoch", 0):
                return seconds * _NANO + parts.get("nanoseconds", 0)
    return 0
