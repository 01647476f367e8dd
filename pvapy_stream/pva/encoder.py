"""Objects of a stream as updates of a channel of our own server; pixels are not copied."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol, cast

import numpy as np
import pvaccess as pva
from numpy.typing import NDArray

from pvapy_stream.errors import ObjectError
from pvapy_stream.pva.convert import Value, type_of, wire_value
from pvapy_stream.pva.image_encoder import EncodedImage, ImageEncoder, image_kind, origin_of
from pvapy_stream.pva.lazy import LazyObject, StreamObject, pv_object
from pvapy_stream.pva.net.encoded_updates import Chunk, Update, changed, chunk_of
from pvapy_stream.pva.put_objects import ValueObject
from pvapy_stream.pva.updates import UpdateObject
from pvapy_stream.pva.wire.types import (
    DTYPES,
    AnyValue,
    Array,
    ArrayOf,
    Kind,
    Scalar,
    Selected,
    Structure,
    Type,
    Union,
    Variant,
)


class Passing(Protocol):
    """The layout of objects that are sent on unchanged: the bit set of their fields."""

    changed: int


class ObjectEncoder:
    """Makes updates of the objects of one stream. Not locked.

    Args:
        opening: an object of the structure that all others have.

    Attributes:
        kind: the structure.
    """

    def __init__(self, opening: pva.PvObject) -> None:
        self.kind = type_of(opening)
        self._objects = FieldEncoder(self.kind, wire_value)
        self._values = FieldEncoder(self.kind)
        self._images = (
            ImageEncoder(self.kind, self._fields_of) if self.kind == image_kind() else None
        )
        self._before: list[Chunk | None] | UpdateObject | EncodedImage | None = None
        self._layout: Passing | None = None  # of the last object, if it was sent on unchanged
        # Number of the template of the images so far; 0 if the last object was another.
        self._same_images = 0
        # Type of values that have this structure, too.
        self._known: Type | None = None

    def update(self, obj: StreamObject) -> Update:
        """An object as an update of the one before.

        Raises:
            ObjectError: it has another structure.
            WireError: a value does not fit its type.
        """
        if isinstance(obj, UpdateObject) and (layout := obj.layout) is not None:
            return self._pass_on(obj, layout)
        self._layout = None
        images = self._images
        if images is None or not isinstance(obj, LazyObject):
            return self._changed(self._fields_of(obj))
        if obj.only_frame and not obj.marked:
            return self._image(images, obj)
        return self._changed(self._derived(images, obj) or self._fields_of(obj))

    def forget(self) -> None:
        """Let the next update be a whole one, whatever was before."""
        self._before = self._layout = None
        self._same_images = 0

    def _pass_on(self, obj: UpdateObject, layout: Passing) -> Update:
        if layout is not self._layout:
            made = self._changed(self._fields_of(obj))
            self._layout = layout if self._has_form(obj.kind) else None
            return made
        # Fields that are not in the message are those of the object before.
        self._before = obj
        self._same_images = 0
        return Update(self.kind, layout.changed, None, None, obj)

    def _derived(self, images: ImageEncoder, obj: LazyObject) -> list[Chunk | None]:
        """Fields of a frame that was made from that of another object; [] if they are not known."""
        origin = origin_of(obj)
        if origin is None:
            return []
        try:
            fields = self._fields_of(origin)
        except ObjectError:
            # It was received with other fields than those that are published.
            return []
        return images.derived(obj.frame, fields)

    def _fields_of(self, obj: StreamObject) -> list[Chunk | None]:
        if isinstance(obj, UpdateObject) and self._has_form(obj.kind):
            fields = obj.fields
            if fields is not None:
                return fields
        if isinstance(obj, ValueObject) and (wire := obj.wire) is not None:
            if self._has_form(wire.type):
                return self._values.chunks(cast("Value", wire.value))
        try:
            return self._objects.chunks(pv_object(obj).toDict())
        except UnicodeDecodeError as error:
            raise ObjectError(
                "the binding cannot read a value of the object: it has a negative number in a"
                f" field of type byte, or text that is not UTF-8 ({error})"
            ) from error

    def _has_form(self, kind: Type | None) -> bool:
        if kind is not self._known and same_form(kind, self.kind):
            self._known = kind
        return kind is self._known

    def _image(self, images: ImageEncoder, obj: LazyObject) -> Update:
        image = images.image(obj)
        if self._same_images != images.templates:
            made = self._changed(image.fields)
            self._same_images = images.templates
            return made
        # What else is in the template has not changed.
        self._before = image
        return Update(self.kind, images.changing, None, None, image)

    def _changed(self, chunks: list[Chunk | None]) -> Update:
        before, self._before = self._before, chunks
        if isinstance(before, (UpdateObject, EncodedImage)):
            before = before.fields
        self._same_images = 0
        return Update(self.kind, changed(self.kind, before, chunks), chunks)


class FieldEncoder:
    """Encodes the fields of a structure; those that stay the same are encoded once.

    Args:
        kind: the structure.
        convert: makes the value of a field, of a type, as it is sent.
    """

    def __init__(
        self, kind: Structure, convert: Callable[[Type, object], object] = lambda kind, value: value
    ) -> None:
        self._kind = kind
        self._convert = convert
        self._before: dict[str, object] = {}
        self._chunks: dict[str, Chunk] = {}

    def chunks(self, values: Value) -> list[Chunk | None]:
        """The fields as they are sent.

        Raises:
            ObjectError: they are those of another structure.
        """
        if [*values] != [name for name, _ in self._kind.fields]:
            raise ObjectError(f"its structure differs: it has the fields {', '.join(values)}")
        made: dict[str, Chunk] = {}
        for name, kind in self._kind.fields:
            held = values[name]
            if name in self._chunks and _same(kind, held, self._before[name]):
                made[name] = self._chunks[name]
            else:
                made[name] = self._chunk(name, kind, held)
        self._before, self._chunks = values, made
        return [*made.values()]

    def _chunk(self, name: str, kind: Type, held: object) -> Chunk:
        if isinstance(kind, Array) and kind.kind in DTYPES and isinstance(held, np.ndarray):
            array = cast("NDArray[np.generic]", held)
            if array.size and array.dtype.newbyteorder("<") != DTYPES[kind.kind]:
                raise ObjectError(f"its structure differs: {name} has elements of {array.dtype}")
        try:
            return chunk_of(kind, self._convert(kind, held))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ObjectError(f"its structure differs in {name}: {error}") from error


def _same(kind: Type, one: object, other: object) -> bool:
    """Whether two values are known to be equal; unions and arrays of numbers never are."""
    if isinstance(kind, (Union, Variant)) or (isinstance(kind, Array) and kind.kind in DTYPES):
        return False
    return bool(one == other) if _without_arrays(kind) else _equal(one, other)


@lru_cache(maxsize=256)
def _without_arrays(kind: Type) -> bool:
    """Whether values of a type have no arrays of numbers in them."""
    match kind:
        case Scalar():
            return True
        case Array():
            return kind.kind is Kind.STRING
        case Structure():
            return all(_without_arrays(inner) for _, inner in kind.fields)
        case ArrayOf():
            return _without_arrays(kind.element)
        case _:
            return False


def same_form(one: Type | None, other: Type) -> bool:
    """Whether values of two types are sent in the same way: ids of types may differ."""
    match one, other:
        case Structure(), Structure():
            return [n for n, _ in one.fields] == [n for n, _ in other.fields] and all(
                same_form(a, b) for (_, a), (_, b) in zip(one.fields, other.fields, strict=True)
            )
        case Union(), Union():
            return [n for n, _ in one.choices] == [n for n, _ in other.choices] and all(
                same_form(a, b) for (_, a), (_, b) in zip(one.choices, other.choices, strict=True)
            )
        case ArrayOf(), ArrayOf():
            return same_form(one.element, other.element)
        case _:
            return one == other


def _equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        # In another order, a structure is another one.
        return [*one] == [*other] and all(map(_equal, one.values(), other.values()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, AnyValue):
        return one.type == other.type and _equal(one.value, other.value)
    if isinstance(one, Selected):
        return one.choice == other.choice and _equal(one.value, other.value)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return bool(one == other)
