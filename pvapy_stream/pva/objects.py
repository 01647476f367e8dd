"""Ids and structures of PvObjects, and opening objects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pvaccess as pva

from pvapy_stream.errors import ObjectError
from pvapy_stream.pva.lazy import LazyObject, StreamObject, pv_object
from pvapy_stream.pva.ntndarray import LATE, MARK, TAG, blank_image, to_frame
from pvapy_stream.pva.serial import blank

IdReader = Callable[[StreamObject], int]

# The typed getters take a third of the time of obj[field].
_GETTERS = {
    pva.BYTE: "getByte",
    pva.UBYTE: "getUByte",
    pva.SHORT: "getShort",
    pva.USHORT: "getUShort",
    pva.INT: "getInt",
    pva.UINT: "getUInt",
    pva.LONG: "getLong",
    pva.ULONG: "getULong",
    pva.DOUBLE: "getDouble",
    pva.FLOAT: "getFloat",
    pva.STRING: "getString",
}


def id_reader(field: str, example: StreamObject) -> IdReader:
    """A function that reads the id from objects of the example's structure.

    Raises:
        ObjectError: the structure has no such field, or the field is no number.
    """
    if isinstance(example, LazyObject):
        return LazyIds(field)
    if not example.hasField(field):
        raise ObjectError(
            f"the object has no id field {field!r}; its fields are {', '.join(example.keys())};"
            " choose with --oid-field"
        )
    kind = structure_at(example, field)
    getter = _GETTERS.get(kind) if isinstance(kind, pva.ScalarType) else None
    if getter is None:
        raise ObjectError(
            f"field {field!r} cannot be an object id: it is not a number; choose another with"
            " --oid-field"
        )
    get = getattr(type(example), getter, None) or getattr(pva.PvObject, getter)
    if getter in ("getInt", "getLong", "getUInt", "getULong", "getShort", "getUShort", "getUByte"):
        return lambda obj: get(obj, field)
    if getter == "getByte":
        # The binding gives signed bytes as characters.
        return lambda obj: (ord(get(obj, field)) + 128) % 256 - 128
    # Times and numbers in strings serve as ids too, rounded down.
    return lambda obj: _whole(get(obj, field))


class LazyIds:
    """Reads ids of PvObjects and of `LazyObject`s, which are built for other fields than uniqueId.

    Raises:
        ObjectError: as `id_reader`, when an object is read.
    """

    def __init__(self, field: str) -> None:
        self._field = field
        self._is_id = field == "uniqueId"
        self._read: IdReader | None = None

    def __call__(self, obj: StreamObject) -> int:
        if isinstance(obj, LazyObject):
            value = obj.id if self._is_id else None
            if value is None:
                value = obj.id_of(self._field)
            if value is not None:
                return value
        real = pv_object(obj)
        if self._read is None:
            self._read = id_reader(self._field, real)
        return self._read(real)


def _whole(value: float | str) -> int:
    try:
        return int(value)
    except ValueError:
        return int(float(value))


def structure_at(obj: StreamObject, field: str) -> Any:
    """Type of a field given by a dotted path."""
    kind: Any = obj.getStructureDict()
    for part in field.split("."):
        kind = kind[part]
    return kind


def is_marked(obj: StreamObject) -> bool:
    """Whether an object is an opening object, and not a frame."""
    if isinstance(obj, LazyObject):
        return obj.marked
    try:
        return obj.hasField(TAG) and obj.getInt(TAG) == MARK
    except pva.PvaException:
        return False


def is_late(obj: StreamObject) -> bool:
    """Whether an object is marked as one that follows larger ids of the same epoch."""
    if isinstance(obj, LazyObject):
        return obj.id_of(TAG) == LATE
    try:
        return obj.hasField(TAG) and obj.getInt(TAG) == LATE
    except pva.PvaException:
        return False


def as_late(obj: StreamObject) -> pva.PvObject:
    """A copy that is marked as late; one without timeStamp cannot be marked."""
    made = pv_object(obj).copy()
    if made.hasField(TAG):
        made.setInt(TAG, LATE)
    return made


def mark(obj: StreamObject) -> StreamObject:
    """Mark an object as an opening object, and return it.

    An object without timeStamp cannot be marked: clients then take the first object for it.
    """
    if isinstance(obj, LazyObject):
        obj.mark()
    elif obj.hasField(TAG):
        obj.setInt(TAG, MARK)
    return obj


def without_mark(obj: StreamObject) -> pva.PvObject:
    """The PvObject, with the mark of an opening object removed."""
    real = pv_object(obj)
    if real.hasField(TAG):
        real.setInt(TAG, 0)
    return real


def opening_object(prototype: StreamObject, first: StreamObject, id_field: str) -> StreamObject:
    """An opening object with the structure of a prototype, without data.

    An image keeps its shape and type; its pixels and its id are 0. An object that is no image and
    that the processor made itself is not changed: the next stage may need its values.

    Args:
        prototype: result of the processor's `getOutputPvObjectType`.
        first: the object that the processor got for it.
        id_field: field with the object id.
    """
    opening = pv_object(prototype).copy()
    try:
        blank_image(opening, to_frame(opening))
    except (ObjectError, ValueError):
        if prototype is not first:
            return mark(opening)
        opening = blank(opening)
    if opening.hasField(id_field):
        with contextlib.suppress(pva.PvaException, ValueError, TypeError):
            opening[id_field] = 0
    return mark(opening)
