"""Type descriptions, and the registries that let a type be sent once.

A description is one byte and what belongs to it:

- scalars: the code of the `Kind`; 0x83 and a size for a bounded string;
- arrays: the code of the `Kind` plus that of the `Extent`, and a size if it is bounded or fixed;
- 0x80 structure, 0x81 union: the type's id, the number of fields, and each one's name and
  description; 0x82 variant union;
- 0x88, 0x89: array of the structure or union whose description follows; 0x8A array of variants;
- 0xFD: a number (2 bytes) and the description that has this number from now on;
- 0xFE: the number of a description that was sent before;
- 0xFF: no type.

Each direction of a connection has its own numbers.
"""

from __future__ import annotations

from pvapy_stream.errors import WireError
from pvapy_stream.pva.wire.buffers import Reader, Writer
from pvapy_stream.pva.wire.types import (
    Array,
    ArrayOf,
    Extent,
    Kind,
    Scalar,
    Structure,
    Type,
    Union,
    Variant,
)

_STRUCTURE, _UNION, _VARIANT, _BOUNDED_STRING = 0x80, 0x81, 0x82, 0x83
_ARRAY = 0x08
_EXTENT = 0x18
_REGISTER, _KNOWN, _NO_TYPE = 0xFD, 0xFE, 0xFF
_MOST_NUMBERS = 0x7FFF
_KINDS = {int(kind): kind for kind in Kind}


class Incoming:
    """Types that the peer has numbered.

    Attributes:
        version: how often a number got another type.
        numbers: how often a number was given or used.
    """

    def __init__(self) -> None:
        self._types: dict[int, Type] = {}
        self._weight = 0
        self.version = self.numbers = 0

    def copy(self) -> Incoming:
        """The types as they are numbered now."""
        made = Incoming()
        made._types, made._weight = dict(self._types), self._weight
        made.version = self.version
        return made

    def read(self, reader: Reader) -> Type | None:
        """A description; None if it says that there is no type.

        Raises:
            WireError: it is malformed, of an unknown number, or exceeds the limits.
        """
        return self._read(reader, 0)

    def need(self, reader: Reader) -> Type:
        """A description that must be one of a type.

        Raises:
            WireError: as `read`, and when there is no type.
        """
        kind = self.read(reader)
        if kind is None:
            raise WireError("a type description says that there is no type, where one is needed")
        return kind

    def _read(self, reader: Reader, level: int) -> Type | None:
        if level > 2 * reader.limits.depth:
            raise WireError(f"a type has more than {reader.limits.depth} levels")
        code = reader.byte()
        if code == _NO_TYPE:
            return None
        if code in (_KNOWN, _REGISTER):
            self.numbers += 1
        if code == _KNOWN:
            number = reader.number("H")
            if number not in self._types:
                raise WireError(f"type {number} was not described on this connection")
            return self._types[number]
        if code == _REGISTER:
            number = reader.number("H")
            kind = self._inner(reader, level + 1)
            self._register(reader, number, kind)
            return kind
        return self._plain(reader, code, level)

    def _inner(self, reader: Reader, level: int) -> Type:
        kind = self._read(reader, level)
        if kind is None:
            raise WireError("a type has a part without a type")
        return kind

    def _register(self, reader: Reader, number: int, kind: Type) -> None:
        known = self._types.get(number)
        weight = self._weight + kind.weight - (known.weight if known else 0)
        if weight > reader.limits.registry:
            raise WireError(
                f"a peer has described types of more than {reader.limits.registry} fields"
            )
        if known != kind:
            self.version += 1
        self._types[number], self._weight = kind, weight

    def _plain(self, reader: Reader, code: int, level: int) -> Type:
        if code == _VARIANT:
            return Variant()
        if code == _BOUNDED_STRING:
            return Scalar(Kind.STRING, _bound(reader))
        if code in (_STRUCTURE, _UNION):
            return self._fields(reader, code, level)
        if code == _VARIANT | _ARRAY:
            return ArrayOf(Variant())
        if code in (_STRUCTURE | _ARRAY, _UNION | _ARRAY):
            element = self._inner(reader, level + 1)
            wanted = Structure if code == _STRUCTURE | _ARRAY else Union
            if not isinstance(element, wanted):
                raise WireError(f"an array of type 0x{code:02X} has elements of another type")
            return ArrayOf(element)
        kind, extent = _KINDS.get(code & ~_EXTENT), code & _EXTENT
        if kind is None:
            raise WireError(f"0x{code:02X} is the code of no type")
        if not extent:
            return Scalar(kind)
        if extent == Extent.VARIABLE:
            return Array(kind)
        size = _bound(reader)
        made = Array(kind, Extent(extent), size)
        if made.weight > reader.limits.fields:
            raise WireError(f"an array of fixed size has {size} elements")
        return made

    def _fields(self, reader: Reader, code: int, level: int) -> Structure | Union:
        type_id = reader.string()
        count = reader.count(2)
        if count > reader.limits.fields:
            raise WireError(f"a type has {count} fields, more than {reader.limits.fields}")
        fields = tuple((reader.string(), self._inner(reader, level + 1)) for _ in range(count))
        if len({name for name, _ in fields}) != count:
            raise WireError("a type has two fields of one name")
        kind = (Structure if code == _STRUCTURE else Union)(type_id, fields)
        if kind.depth > reader.limits.depth:
            raise WireError(f"a type has more than {reader.limits.depth} levels")
        if kind.weight > reader.limits.fields:
            raise WireError(f"a type has more than {reader.limits.fields} fields")
        return kind


class Outgoing:
    """Types that the peer knows by the numbers we gave them.

    Args:
        most: how many the peer keeps.
    """

    def __init__(self, most: int = _MOST_NUMBERS) -> None:
        self._numbers: dict[Type, int] = {}
        self._most = min(most, _MOST_NUMBERS)

    @property
    def count(self) -> int:
        """How many types have a number."""
        return len(self._numbers)

    def forget(self, count: int) -> None:
        """Keep the first `count` numbers: the message with the others is not sent."""
        while len(self._numbers) > count:
            self._numbers.popitem()

    def write(self, writer: Writer, kind: Type | None) -> None:
        """A description: whole the first time, and then by its number."""
        if kind is None:
            writer.byte(_NO_TYPE)
            return
        if isinstance(kind, (Structure, Union)):
            number = self._numbers.get(kind)
            if number is not None:
                writer.byte(_KNOWN)
                writer.number("H", number)
                return
            if len(self._numbers) < self._most:
                number = self._numbers[kind] = len(self._numbers) + 1
                writer.byte(_REGISTER)
                writer.number("H", number)
        self._plain(writer, kind)

    def _plain(self, writer: Writer, kind: Type) -> None:
        match kind:
            case Scalar():
                if kind.bound:
                    writer.byte(_BOUNDED_STRING)
                    writer.size(kind.bound)
                else:
                    writer.byte(kind.kind)
            case Array():
                writer.byte(kind.kind | kind.extent)
                if kind.extent is not Extent.VARIABLE:
                    writer.size(kind.size)
            case Structure():
                self._fields(writer, _STRUCTURE, kind.id, kind.fields)
            case Union():
                self._fields(writer, _UNION, kind.id, kind.choices)
            case Variant():
                writer.byte(_VARIANT)
            case ArrayOf(Variant()):
                writer.byte(_VARIANT | _ARRAY)
            case ArrayOf():
                of_union = isinstance(kind.element, Union)
                writer.byte((_UNION if of_union else _STRUCTURE) | _ARRAY)
                self.write(writer, kind.element)

    def _fields(
        self, writer: Writer, code: int, type_id: str, fields: tuple[tuple[str, Type], ...]
    ) -> None:
        writer.byte(code)
        writer.string(type_id)
        writer.size(len(fields))
        for name, kind in fields:
            writer.string(name)
            self.write(writer, kind)


def _bound(reader: Reader) -> int:
    size = reader.size()
    if size < 0:
        raise WireError("an array or string of limited size has no size")
    return size
