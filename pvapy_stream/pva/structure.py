"""Structures of PvObjects as plain data, and codecs of their values made from them.

A *kind* is the type of a field as `PvObject.getStructureDict` gives it: a scalar type, ``[kind]``
for arrays, a dict for structures, ``({name: kind},)`` for unions, ``()`` for variant unions. Its
*plain* form consists of numbers, strings, lists and dicts only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
import pvaccess as pva
from msgspec import Struct, field

from pvapy_stream.errors import ObjectError

MAX_DEPTH = 32  # levels of structures in structures
MAX_FIELDS = 10_000  # fields of one structure, all levels together

# Arrays of fewer bytes are stored with the values.
INLINE = 256

# Looked up once: it is compared with for each attribute of an image.
_ScalarType = pva.ScalarType
_BYTE_NUMBER = int(_ScalarType.BYTE)
_SCALARS = {int(kind): kind for kind in _ScalarType.names.values()}
_DTYPES = {
    int(getattr(pva, name)): np.dtype(dtype)
    for name, dtype in {
        "BOOLEAN": "i1",
        "BYTE": "i1",
        "UBYTE": "u1",
        "SHORT": "<i2",
        "USHORT": "<u2",
        "INT": "<i4",
        "UINT": "<u4",
        "LONG": "<i8",
        "ULONG": "<u8",
        "FLOAT": "<f4",
        "DOUBLE": "<f8",
    }.items()
}
_ARRAY, _UNION, _VARIANT = "array", "union", "any"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def plain_kind(kind: Any) -> object:
    """The plain form of a kind."""
    if isinstance(kind, _ScalarType):
        return int(kind)
    if isinstance(kind, dict):
        return {name: plain_kind(inner) for name, inner in kind.items()}
    if isinstance(kind, list):
        return [_ARRAY, plain_kind(kind[0])]
    return [_UNION, plain_kind(kind[0])] if kind else [_VARIANT]


def kind_of(plain: object) -> Any:
    """The kind whose plain form this is.

    Raises:
        ObjectError: it is none, or has more levels or fields than allowed.
    """
    return _kind_of(plain, 0, [0])


def _kind_of(plain: object, depth: int, fields: list[int]) -> object:
    if depth > MAX_DEPTH:
        raise ObjectError(f"its structure has more than {MAX_DEPTH} levels")
    match plain:
        case int() if plain in _SCALARS:
            return _SCALARS[plain]
        case dict():
            fields[0] += len(plain)
            if fields[0] > MAX_FIELDS:
                raise ObjectError(f"its structure has more than {MAX_FIELDS} fields")
            return {_name(n): _kind_of(inner, depth + 1, fields) for n, inner in plain.items()}
        case [tag, inner] if tag == _ARRAY and not (isinstance(inner, list) and inner[:1] == [tag]):
            return [_kind_of(inner, depth + 1, fields)]
        case [tag, dict() as inner] if tag == _UNION and inner:
            return (_kind_of(inner, depth + 1, fields),)
        case [tag] if tag == _VARIANT:
            return ()
    raise ObjectError(f"its structure has a field of no known type: {str(plain)[:50]}")


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise ObjectError("its structure has a field whose name is no text")
    return name


class Writing(Struct):
    """Collects large arrays while values are converted to their plain form."""

    arrays: list[np.ndarray] = field(default_factory=list)


class Reading:
    """Gives the large arrays, in their order, while plain forms are converted to values."""

    def __init__(self, arrays: list[memoryview]) -> None:
        self._arrays = arrays
        self._taken = 0
        self.depth = 0  # of variants in variants

    def take(self, index: int) -> memoryview:
        """The array with an index, which must be the next one.

        Raises:
            ObjectError: it is another one.
        """
        if index != self._taken or index >= len(self._arrays):
            raise ObjectError(f"array {index} is asked for where {self._taken} is next")
        self._taken += 1
        return self._arrays[index]

    @property
    def all_taken(self) -> bool:
        return self._taken == len(self._arrays)


class Codec(Struct, frozen=True):
    """Values of one kind to their plain form and back; None where both are the same."""

    to_plain: Callable[[Any, Writing], object] | None
    from_plain: Callable[[Any, Reading], object] | None

    def write(self, value: object, writing: Writing) -> object:
        """The plain form of a value."""
        return value if self.to_plain is None else self.to_plain(value, writing)

    def read(self, plain: object, reading: Reading) -> Any:
        """The value of a plain form."""
        return plain if self.from_plain is None else self.from_plain(plain, reading)


_SAME = Codec(None, None)


def codec_of(kind: Any) -> Codec:
    """The codec of a kind."""
    if isinstance(kind, _ScalarType):
        return _BYTE if kind == pva.BYTE else _SAME
    if isinstance(kind, dict):
        return _structure(kind)
    if isinstance(kind, tuple):
        return _union(kind[0]) if kind else _ANY
    inner = kind[0]
    if inner == pva.STRING:
        return _SAME
    return _array(inner) if isinstance(inner, _ScalarType) else _list(codec_of(inner))


# The binding gives signed bytes as characters.
_BYTE = Codec(lambda value, _: ord(value), lambda plain, _: chr(plain))


def _structure(kind: Mapping[str, object]) -> Codec:
    names = tuple(kind)
    codecs = [codec_of(inner) for inner in kind.values()]
    writers = [(name, codec.to_plain) for name, codec in zip(names, codecs, strict=True)]
    readers = [codec.from_plain for codec in codecs]
    if all(writer is None for _, writer in writers) and len(names) > 1:
        take = itemgetter(*names)

        def to_plain(value: Any, writing: Writing) -> object:
            return take(value)
    else:

        def to_plain(value: Any, writing: Writing) -> object:
            return [
                value[name] if write is None else write(value[name], writing)
                for name, write in writers
            ]

    if all(reader is None for reader in readers):

        def from_plain(plain: Any, reading: Reading) -> object:
            return dict(zip(names, plain, strict=True))
    else:

        def from_plain(plain: Any, reading: Reading) -> object:
            return {
                name: inner if read is None else read(inner, reading)
                for name, read, inner in zip(names, readers, plain, strict=True)
            }

    return Codec(to_plain, from_plain)


def _list(codec: Codec) -> Codec:
    write, read = codec.to_plain, codec.from_plain
    if write is None or read is None:
        return _SAME
    return Codec(
        lambda value, writing: [write(one, writing) for one in value],
        lambda plain, reading: [read(one, reading) for one in plain],
    )


def _array(kind: pva.ScalarType) -> Codec:
    dtype = _DTYPES[int(kind)]
    boolean = kind == pva.BOOLEAN

    def to_plain(value: Any, writing: Writing) -> object:
        array = np.ascontiguousarray(value, dtype)
        if array.nbytes < INLINE:
            return array.tobytes()
        writing.arrays.append(array)
        return len(writing.arrays) - 1

    def from_plain(plain: Any, reading: Reading) -> object:
        raw = reading.take(plain) if isinstance(plain, int) else plain
        array = np.frombuffer(raw, dtype)
        if boolean:
            return array != 0
        if not array.flags.aligned:
            array = array.copy()
        return array if dtype.isnative else array.astype(dtype.newbyteorder("="))

    return Codec(to_plain, from_plain)


def _union(choices: Mapping[str, object]) -> Codec:
    names = list(choices)
    index_of = {name: index for index, name in enumerate(names)}
    codecs = [codec_of(kind) for kind in choices.values()]

    def to_plain(value: Any, writing: Writing) -> object:
        if not value or not value[0]:
            return None
        ((name, inner),) = value[0].items()
        index = index_of[name]
        return [index, codecs[index].write(inner, writing)]

    def from_plain(plain: Any, reading: Reading) -> object:
        if plain is None:
            return {}, {}
        index, inner = plain
        if not 0 <= index < len(names):
            raise ObjectError(f"a union of {len(names)} choices has no choice {index}")
        return ({names[index]: codecs[index].read(inner, reading)},)

    return Codec(to_plain, from_plain)


def _any_to_plain(value: Any, writing: Writing) -> object:
    if not value or not value[0]:
        return None
    ((name, inner),) = value[0].items()
    kind = plain_kind(value[1][name])
    if isinstance(kind, int) and kind != _BYTE_NUMBER:
        return [kind, inner]
    schema = _encode(kind)
    return [schema, _codec_of_schema(schema)[1].write(inner, writing)]


def _any_from_plain(plain: Any, reading: Reading) -> object:
    if plain is None:
        return {}, {}
    schema, inner = plain
    if isinstance(schema, int):
        return {"value": inner}, {"value": kind_of(schema)}
    kind, codec = _codec_of_schema(schema)
    reading.depth += 1
    if reading.depth > MAX_DEPTH:
        raise ObjectError(f"it has more than {MAX_DEPTH} levels of values of any type")
    inner = codec.read(inner, reading)
    reading.depth -= 1
    return {"value": inner}, {"value": kind}


_ANY = Codec(_any_to_plain, _any_from_plain)


@lru_cache(maxsize=256)
def _codec_of_schema(schema: bytes) -> tuple[object, Codec]:
    try:
        kind = kind_of(_decode(schema))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ObjectError(f"a structure is unreadable ({error})") from error
    return kind, codec_of(kind)


def type_ids(obj: pva.PvObject) -> tuple[str, dict[str, str]]:
    """An object's type id, and those of its structures and arrays of structures by name.

    The binding shows them only in the result of `str`, so that is parsed, for a copy without texts
    and arrays. It cannot make objects with type ids on lower levels, so those are left out.
    """
    kind = obj.getStructureDict()
    first, *lines = str(_emptied(obj, kind)).splitlines() or [""]
    found: dict[str, str] = {}
    rest = iter(lines)
    for name, inner in kind.items():
        shown = next(rest, "").strip().removesuffix(f" {name}")
        for _ in range(_lines(inner) - 1):
            next(rest, "")
        if isinstance(inner, list) and isinstance(inner[0], dict):
            shown = shown.removesuffix("[]")
        elif not isinstance(inner, dict):
            continue
        if type_id := _given(shown):
            found[name] = type_id
    return _given(first), found


def _lines(kind: object) -> int:
    """Lines of an emptied field: a structure has those of its fields too, a union one more."""
    if isinstance(kind, dict):
        return 1 + sum(map(_lines, kind.values()))
    return 2 if isinstance(kind, tuple) else 1


def _given(shown: str) -> str:
    """A type id; what has none is shown as ``structure``."""
    shown = shown.strip()
    return "" if shown == "structure" else shown


def _emptied(
    obj: pva.PvObject,
    kind: Mapping[str, object],
    prefix: str = "",
    into: pva.PvObject | None = None,
) -> pva.PvObject:
    made = obj.copy() if into is None else into
    for name, inner in kind.items():
        path = prefix + name
        if isinstance(inner, dict):
            _emptied(obj, inner, f"{path}.", made)
        elif isinstance(inner, tuple):
            made[path] = ({}, {})
        elif isinstance(inner, list):
            scalar = isinstance(inner[0], _ScalarType) and inner[0] != pva.STRING
            made[path] = np.array([], _empty_dtype(inner[0])) if scalar else []
        elif inner == pva.STRING:
            made[path] = ""
    return made


def _empty_dtype(kind: pva.ScalarType) -> np.dtype[np.generic]:
    return np.dtype(bool) if kind == pva.BOOLEAN else _DTYPES[int(kind)]
