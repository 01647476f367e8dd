"""PvObjects to bytes and back, by their structure.

A PvObject becomes a small head (MessagePack: structure, values, lengths) and the bytes of its large
arrays, unchanged. Reading executes no code: a structure consists of names and types, a value of
numbers, strings and arrays.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pvaccess as pva

from pvapy_stream.errors import ObjectError
from pvapy_stream.pva.structure import (
    Codec,
    Reading,
    Writing,
    codec_of,
    kind_of,
    plain_kind,
    type_ids,
)

Buffer = bytes | bytearray | memoryview

MAX_HEAD = 64 * 2**20  # bytes; all that is not in large arrays
_MAGIC = b"PVO\x01"
_START = struct.Struct("<4sI")
_ALIGN = 8  # large arrays start at a multiple of this, so that views of them are aligned
_PADDING = bytes(_ALIGN)

# What the binding, numpy and the codecs raise for values of another type than their field's.
_WRONG_VALUES = (pva.PvaException, TypeError, ValueError, OverflowError, KeyError, IndexError)

_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(tuple[bytes, Any, list[int]]).decode
_decode_schema = msgspec.msgpack.Decoder(tuple[str, dict[str, str], dict[str, Any]]).decode


class ObjectWriter:
    """Turns the objects of one stream into bytes; remembers their structure between calls.

    Type ids are those of the first object of a structure. Not locked: use one for each thread.
    """

    def __init__(self) -> None:
        self._structure: Mapping[str, object] = {}
        self._schema = b""
        self._codec = codec_of({})

    def parts(self, obj: pva.PvObject) -> list[Buffer]:
        """Parts whose concatenation is the object; large arrays are views of it, not copies.

        Raises:
            ObjectError: the binding cannot give one of its values.
        """
        self._learn(obj)
        writing = Writing()
        try:
            plain = self._codec.write(obj.toDict(), writing)
        except UnicodeDecodeError as error:
            raise ObjectError(
                "the binding cannot read a value of the object: it has a negative number in a"
                f" field of type byte, or text that is not UTF-8 ({error})"
            ) from error
        head = _encode((self._schema, plain, [array.nbytes for array in writing.arrays]))
        parts: list[Buffer] = [_START.pack(_MAGIC, len(head)), head]
        at = _START.size + len(head)
        for array in writing.arrays:
            if padding := -at % _ALIGN:
                parts.append(_PADDING[:padding])
            parts.append(array.view(np.uint8).data)
            at += padding + array.nbytes
        return parts

    def _learn(self, obj: pva.PvObject) -> None:
        structure = obj.getStructureDict()
        if self._schema and structure == self._structure and [*structure] == [*self._structure]:
            return
        self._schema = _encode((*type_ids(obj), plain_kind(structure)))
        self._structure, self._codec = structure, codec_of(structure)


def dumps(obj: pva.PvObject) -> bytes:
    """One object as bytes; `ObjectWriter` is faster for a stream.

    Raises:
        ObjectError: the binding cannot give one of its values.
    """
    return b"".join(ObjectWriter().parts(obj))


def loads(data: Buffer) -> pva.PvObject:
    """The `pvaccess.PvObject` that was written to these bytes; its arrays are copied once.

    Raises:
        ObjectError: the bytes are no such object, or go beyond the limits of this module.
    """
    view = memoryview(data)
    try:
        schema, plain, lengths, at = _head(view)
        codec, prototype = _known(schema)
        reading = Reading(_arrays(view, at, lengths))
        values = codec.read(plain, reading)
        if not reading.all_taken:
            raise ObjectError("there are more arrays than the values name")
        obj = prototype.copy()
        obj.set(values)
    except ObjectError as error:
        raise ObjectError(f"the bytes are no PvObject: {error}") from error
    except _WRONG_VALUES as error:
        raise ObjectError(
            f"the bytes are no PvObject: values do not fit their structure ({error})"
        ) from error
    return obj


def largest_array(data: Buffer) -> tuple[int, int]:
    """Where the largest array of an object that was written to these bytes begins and ends.

    Small arrays are not found: they are stored with the values.

    Returns:
        offsets of its first byte and of what follows it; (0, 0) if there is none.

    Raises:
        ObjectError: the bytes are no such object.
    """
    _, _, lengths, at = _head(memoryview(data))
    found = (0, 0)
    for length in lengths:
        at += -at % _ALIGN
        if length > found[1] - found[0]:
            found = (at, at + length)
        at += length
    return found if found[1] <= len(data) else (0, 0)


def blank(obj: pva.PvObject) -> pva.PvObject:
    """An object of the same structure and type ids, without its values."""
    type_id, ids = type_ids(obj)
    return pva.PvObject(obj.getStructureDict(), type_id, ids)


def _head(view: memoryview) -> tuple[bytes, object, list[int], int]:
    if len(view) < _START.size:
        raise ObjectError(f"there are only {len(view)} of them")
    magic, n_head = _START.unpack_from(view)
    if magic != _MAGIC:
        raise ObjectError(f"they begin with {magic!r}, not {_MAGIC!r}")
    at = _START.size + n_head
    if n_head > MAX_HEAD or at > len(view):
        raise ObjectError(f"a head of {n_head} bytes is beyond {min(len(view), MAX_HEAD)}")
    try:
        return *_decode_head(view[_START.size : at]), at
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ObjectError(f"their head is unreadable ({error})") from error


def _arrays(view: memoryview, at: int, lengths: Sequence[int]) -> list[memoryview]:
    found = []
    for length in lengths:
        at += -at % _ALIGN
        if length < 0 or at + length > len(view):
            raise ObjectError("the arrays do not fit into them")
        found.append(view[at : at + length])
        at += length
    if at != len(view):
        raise ObjectError(f"there are {len(view) - at} too many")
    return found


@lru_cache(maxsize=64)
def _known(schema: bytes) -> tuple[Codec, pva.PvObject]:
    """The codec of a structure, and an empty object of it, to be copied."""
    try:
        type_id, ids, plain = _decode_schema(schema)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ObjectError(f"their structure is unreadable ({error})") from error
    structure = kind_of(plain)
    if not structure:
        raise ObjectError("their structure has no fields")
    return codec_of(structure), pva.PvObject(structure, type_id, ids)
