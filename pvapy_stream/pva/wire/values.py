"""Values of each type, as numpy and Python have them.

| type | value |
|---|---|
| scalars | bool, int, float, str |
| arrays of numbers and booleans | 1-d numpy array; what is read looks into the message |
| arrays of strings | list of str |
| structure | dict of name and value |
| union, variant union | `types.Selected`, `types.AnyValue` |
| arrays of those | list of values; None for elements that are missing |
"""

# numpy's own types leave parts of arrays unknown:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pvapy_stream.errors import WireError
from pvapy_stream.pva.wire.buffers import NULL, Reader, Writer
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.types import (
    BIG_DTYPES,
    CODES,
    DTYPES,
    AnyValue,
    Array,
    ArrayOf,
    Extent,
    Kind,
    Scalar,
    Selected,
    Structure,
    Type,
    Union,
    Variant,
    default,
)


def read(kind: Type, reader: Reader, known: Incoming) -> object:
    """A value.

    Args:
        kind: its type.
        reader: the message.
        known: types that the peer has numbered, for variant unions.

    Raises:
        WireError: it is malformed or exceeds the limits.
    """
    return _READ[type(kind)](kind, reader, known)


def read_any(reader: Reader, known: Incoming) -> AnyValue:
    """A type description and a value of it, or the description that says there is none."""
    kind = known.read(reader)
    if kind is None:
        return AnyValue()
    if reader.depth >= reader.limits.depth:
        raise WireError(f"values of any type are nested more than {reader.limits.depth} times")
    reader.depth += 1
    value = read(kind, reader, known)
    reader.depth -= 1
    return AnyValue(kind, value)


def write(kind: Type, value: object, writer: Writer, known: Outgoing) -> None:
    """Write a value.

    Args:
        kind: its type.
        value: as `read` gives it; arrays may also be sequences.
        writer: takes it; large arrays by reference.
        known: types that the peer knows, for variant unions.

    Raises:
        WireError: it is none of this type.
    """
    try:
        _WRITE[type(kind)](kind, value, writer, known)
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise WireError(f"{str(value)[:80]!r} is no value of its type: {error}") from error


def write_any(value: AnyValue, writer: Writer, known: Outgoing) -> None:
    """Write a type description and a value of it."""
    known.write(writer, value.type)
    if value.type is not None:
        write(value.type, value.value, writer, known)


def _read_scalar(kind: Scalar, reader: Reader, known: Incoming) -> object:
    reader.spend(1)
    if kind.kind is Kind.STRING:
        return reader.text()
    if kind.kind is Kind.BOOLEAN:
        return reader.byte() != 0
    return reader.datum(CODES[kind.kind])


def _read_array(kind: Array, reader: Reader, known: Incoming) -> object:
    reader.spend(1)
    least = DTYPES[kind.kind].itemsize if kind.kind is not Kind.STRING else 1
    count = kind.size if kind.extent is Extent.FIXED else reader.count(least)
    if kind.extent is Extent.BOUNDED and count > kind.size:
        raise WireError(f"an array of at most {kind.size} elements has {count}")
    if kind.kind is Kind.STRING:
        reader.spend(count)
        return [reader.text() for _ in range(count)]
    dtypes = BIG_DTYPES if reader.big else DTYPES
    if not count:
        return np.empty(0, dtypes[kind.kind])
    raw: NDArray[Any] = np.frombuffer(reader.elements(count * least), np.uint8)
    # Booleans may be any number but 0.
    return raw != 0 if kind.kind is Kind.BOOLEAN else raw.view(dtypes[kind.kind])


def _read_structure(kind: Structure, reader: Reader, known: Incoming) -> object:
    reader.spend(1)
    return {name: _READ[type(inner)](inner, reader, known) for name, inner in kind.fields}


def _read_union(kind: Union, reader: Reader, known: Incoming) -> object:
    reader.spend(1)
    number = reader.size()
    if number == NULL:
        return Selected()
    if number >= len(kind.choices):
        raise WireError(f"a union of {len(kind.choices)} choices has no choice {number}")
    name, inner = kind.choices[number]
    return Selected(name, read(inner, reader, known))


def _read_variant(kind: Variant, reader: Reader, known: Incoming) -> object:
    reader.spend(1)
    return read_any(reader, known)


def _read_elements(kind: ArrayOf, reader: Reader, known: Incoming) -> object:
    count = reader.count(1)
    reader.spend(count)
    return [read(kind.element, reader, known) if reader.byte() else None for _ in range(count)]


def _write_scalar(kind: Scalar, value: Any, writer: Writer, known: Outgoing) -> None:
    if kind.kind is Kind.STRING:
        if not isinstance(value, str):
            raise TypeError("it is no text")
        writer.string(value)
    elif kind.kind is Kind.BOOLEAN:
        writer.byte(1 if value else 0)
    else:
        writer.number(CODES[kind.kind], value)


def _write_array(kind: Array, value: Any, writer: Writer, known: Outgoing) -> None:
    if kind.kind is Kind.STRING:
        texts = cast("Sequence[str]", value)
        _write_length(kind, len(texts), writer)
        for text in texts:
            writer.string(text)
        return
    wanted = (BIG_DTYPES if writer.big else DTYPES)[kind.kind]
    given: NDArray[Any] = np.asarray(value)
    if given.size and given.dtype.kind in "fcOU" and wanted.kind in "iu":
        raise TypeError(f"elements of type {given.dtype} are no integers")
    array: NDArray[Any] = np.ascontiguousarray(given, wanted)
    if array.ndim != 1:
        raise ValueError(f"it has {array.ndim} dimensions")
    _write_length(kind, array.size, writer)
    octets: NDArray[Any] = array.view(np.uint8)
    writer.raw(octets.data)


def _write_length(kind: Array, length: int, writer: Writer) -> None:
    if kind.extent is Extent.FIXED:
        if length != kind.size:
            raise ValueError(f"it has {length} elements, not {kind.size}")
        return
    if kind.extent is Extent.BOUNDED and length > kind.size:
        raise ValueError(f"it has {length} elements, more than {kind.size}")
    writer.size(length)


def _write_structure(
    kind: Structure, value: Mapping[str, object], writer: Writer, known: Outgoing
) -> None:
    for name, inner in kind.fields:
        # What is not given has its default.
        held = value[name] if name in value else default(inner)
        _WRITE[type(inner)](inner, held, writer, known)


def _write_union(kind: Union, value: Selected, writer: Writer, known: Outgoing) -> None:
    if value.choice is None:
        writer.size(NULL)
        return
    for number, (name, inner) in enumerate(kind.choices):
        if name == value.choice:
            writer.size(number)
            write(inner, value.value, writer, known)
            return
    raise ValueError(f"it has no choice {value.choice}")


def _write_variant(kind: Variant, value: AnyValue, writer: Writer, known: Outgoing) -> None:
    write_any(value, writer, known)


def _write_elements(
    kind: ArrayOf, value: Sequence[object], writer: Writer, known: Outgoing
) -> None:
    writer.size(len(value))
    for element in value:
        writer.byte(0 if element is None else 1)
        if element is not None:
            write(kind.element, element, writer, known)


_READ: dict[type, Callable[[Any, Reader, Incoming], object]] = {
    Scalar: _read_scalar,
    Array: _read_array,
    Structure: _read_structure,
    Union: _read_union,
    Variant: _read_variant,
    ArrayOf: _read_elements,
}
_WRITE: dict[type, Callable[[Any, Any, Writer, Outgoing], None]] = {
    Scalar: _write_scalar,
    Array: _write_array,
    Structure: _write_structure,
    Union: _write_union,
    Variant: _write_variant,
    ArrayOf: _write_elements,
}
