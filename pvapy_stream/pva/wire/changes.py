"""Bit sets of fields, and structures of which only some fields are sent.

A bit set is an `int`: bit 0 is the whole structure, the others are fields as `types.Structure`
numbers them. The bit of an inner structure includes all of its fields.

In a message: the number of bytes, then 8 of them at a time as a number in the message's byte order,
and the rest, fewer than 8, from the lowest on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pvapy_stream.errors import WireError
from pvapy_stream.pva.wire import values
from pvapy_stream.pva.wire.buffers import Reader, Writer
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.types import Structure

Rests = dict[str, tuple[int, int]]

_WORD = 8
_LONGEST = 8192  # bytes of a bit set


def read_bits(reader: Reader) -> int:
    """A bit set.

    Raises:
        WireError: it is malformed.
    """
    size = reader.count(1)
    if size > _LONGEST:
        raise WireError(f"a bit set has {size} bytes")
    bits = 0
    for number in range(size // _WORD):
        bits |= reader.number("Q") << (64 * number)
    rest = size % _WORD
    return bits | int.from_bytes(reader.take(rest), "little") << (8 * (size - rest))


def write_bits(bits: int, writer: Writer) -> None:
    """Write a bit set."""
    size = (bits.bit_length() + 7) // 8
    writer.size(size)
    for number in range(size // _WORD):
        writer.number("Q", bits >> (64 * number) & (2**64 - 1))
    rest = size % _WORD
    writer.raw((bits >> (8 * (size - rest))).to_bytes(rest, "little"))


def read_changes(
    kind: Structure,
    reader: Reader,
    known: Incoming,
    held: Mapping[str, object],
    rests: Rests | None = None,
) -> tuple[int, dict[str, object]]:
    """A bit set, and the fields that it names.

    Args:
        kind: type of the structure.
        reader: the message.
        known: types that the peer has numbered.
        held: the structure before; it is not changed.
        rests: gets, by path, how many bytes were left before and after each field of the message.

    Returns:
        the bit set, and the structure after.
    """
    bits = read_bits(reader)
    if bits >> kind.count:
        raise WireError(f"a bit set names field {bits.bit_length() - 1} of {kind.count}")
    return bits, _read(kind, bits, reader, known, held, rests)


def _read(
    kind: Structure,
    bits: int,
    reader: Reader,
    known: Incoming,
    held: Mapping[str, object],
    rests: Rests | None,
    above: str = "",
) -> dict[str, object]:
    whole = bits & 1
    if whole and rests is None:
        return cast("dict[str, object]", values.read(kind, reader, known))
    made = dict(held)
    for (name, inner), start in zip(kind.fields, kind.starts, strict=True):
        part = 1 if whole else bits >> start & ((1 << inner.count) - 1)
        if not part:
            continue
        rest = reader.rest
        path = above + name
        if isinstance(inner, Structure):
            within = cast("Mapping[str, object]", held[name])
            made[name] = _read(inner, part, reader, known, within, rests, path + ".")
        else:
            made[name] = values.read(inner, reader, known)
        if rests is not None:
            rests[path] = rest, reader.rest
    return made


def write_changes(
    kind: Structure, bits: int, value: Mapping[str, object], writer: Writer, known: Outgoing
) -> None:
    """Write a bit set, and the fields that it names.

    Args:
        kind: type of the structure.
        bits: the bit set.
        value: the structure.
        writer: takes it.
        known: types that the peer knows.
    """
    write_bits(bits, writer)
    _write(kind, bits, value, writer, known)


def _write(
    kind: Structure, bits: int, value: Mapping[str, object], writer: Writer, known: Outgoing
) -> None:
    if bits & 1:
        values.write(kind, value, writer, known)
        return
    for (name, inner), start in zip(kind.fields, kind.starts, strict=True):
        part = bits >> start & ((1 << inner.count) - 1)
        if not part:
            continue
        if isinstance(inner, Structure):
            _write(inner, part, cast("Mapping[str, object]", value[name]), writer, known)
        else:
            values.write(inner, value[name], writer, known)
