"""Objects of a stream as updates of a channel of our own server; pixels are not copied."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import numpy as np

from pvapy_stream.errors import ObjectError
from pvapy_stream.pva.convert import type_of, wire_value
from pvapy_stream.pva.image_encoder import ImageEncoder, image_kind, is_plain_image
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.pva.net.updates import Chunk, Update, changed, chunk_of
from pvapy_stream.pva.wire.types import (
    DTYPES,
    Array,
    ArrayOf,
    Kind,
    Scalar,
    Structure,
    Type,
    Union,
    Variant,
)


class ObjectEncoder:
    """Makes updates of the objects of one stream. Not locked.

    Args:
        opening: an object of the structure that all others have.

    Attributes:
        kind: the structure.
    """

    def __init__(self, opening: Any) -> None:
        self.kind = type_of(opening)
        self._fields = FieldEncoder(self.kind)
        self._images = (
            ImageEncoder(self.kind, self._fields.chunks) if self.kind == image_kind() else None
        )
        self._before: list[Chunk | None] | None = None
        # Number of the template of the images so far; 0 if the last object was another.
        self._same_images = 0

    def update(self, obj: Any) -> Update:
        """An object as an update of the one before.

        Raises:
            ObjectError: it has another structure.
            WireError: a value does not fit its type.
        """
        if isinstance(obj, LazyObject):
            if self._images is not None and is_plain_image(obj):
                return self._image(self._images, obj)
            obj = obj.pv_object()
        chunks = self._fields.chunks(obj)
        self._same_images = 0
        return self._made(chunks, changed(self.kind, self._before, chunks))

    def _image(self, images: ImageEncoder, obj: LazyObject) -> Update:
        chunks = images.chunks(obj)
        if self._same_images == images.templates:
            # What else is in the template has not changed.
            return self._made(chunks, images.changing)
        self._same_images = images.templates
        return self._made(chunks, changed(self.kind, self._before, chunks))

    def _made(self, chunks: list[Chunk | None], bits: int) -> Update:
        self._before = chunks
        return Update(self.kind, bits, chunks)


class FieldEncoder:
    """Encodes the fields of PvObjects; those that stay the same are encoded once."""

    def __init__(self, kind: Structure) -> None:
        self._kind = kind
        self._before: dict[str, Any] = {}
        self._chunks: dict[str, Chunk] = {}

    def chunks(self, obj: Any) -> list[Chunk | None]:
        """The fields of an object.

        Raises:
            ObjectError: it has another structure.
        """
        try:
            plain: dict[str, Any] = obj.toDict()
        except UnicodeDecodeError as error:
            raise ObjectError(
                "the binding cannot read a value of the object: it has a negative number in a"
                f" field of type byte, or text that is not UTF-8 ({error})"
            ) from error
        if [*plain] != [name for name, _ in self._kind.fields]:
            raise ObjectError(f"its structure differs: it has the fields {', '.join(plain)}")
        made: dict[str, Chunk] = {}
        for name, kind in self._kind.fields:
            held = plain[name]
            if name in self._chunks and _same(kind, held, self._before[name]):
                made[name] = self._chunks[name]
            else:
                made[name] = _chunk(name, kind, held)
        self._before, self._chunks = plain, made
        return [*made.values()]


def _same(kind: Type, one: Any, other: Any) -> bool:
    """Whether two values of a field are surely the same; large arrays are not looked into."""
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


def _equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        # In another order, a structure is another one.
        return [*one] == [*other] and all(map(_equal, one.values(), other.values()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return bool(one == other)


def _chunk(name: str, kind: Type, held: Any) -> Chunk:
    if isinstance(kind, Array) and kind.kind in DTYPES and isinstance(held, np.ndarray):
        array = cast("np.ndarray[Any, Any]", held)
        if array.size and array.dtype != DTYPES[kind.kind]:
            raise ObjectError(f"its structure differs: {name} has elements of type {array.dtype}")
    try:
        return chunk_of(kind, wire_value(kind, held))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ObjectError(f"its structure differs in {name}: {error}") from error
