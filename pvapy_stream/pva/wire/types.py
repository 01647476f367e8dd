"""Types of PVData: what a value is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
from msgspec import Struct


class Kind(IntEnum):
    """Types of single values, by their code in type descriptions."""

    BOOLEAN = 0x00
    BYTE = 0x20
    SHORT = 0x21
    INT = 0x22
    LONG = 0x23
    UBYTE = 0x24
    USHORT = 0x25
    UINT = 0x26
    ULONG = 0x27
    FLOAT = 0x42
    DOUBLE = 0x43
    STRING = 0x60


class Extent(IntEnum):
    """How long arrays are, by the code in type descriptions."""

    VARIABLE = 0x08
    BOUNDED = 0x10
    FIXED = 0x18


_ELEMENTS_OF_A_FIELD = 1000

# Code in `struct`, and type in numpy, of numbers.
CODES = {
    Kind.BYTE: "b",
    Kind.SHORT: "h",
    Kind.INT: "i",
    Kind.LONG: "q",
    Kind.UBYTE: "B",
    Kind.USHORT: "H",
    Kind.UINT: "I",
    Kind.ULONG: "Q",
    Kind.FLOAT: "f",
    Kind.DOUBLE: "d",
}
REAL = (Kind.FLOAT, Kind.DOUBLE)
DTYPES: dict[Kind, np.dtype[Any]] = {
    Kind.BOOLEAN: np.dtype("?"),
    **{kind: np.dtype(f"<{code}") for kind, code in CODES.items()},
}
BIG_DTYPES: dict[Kind, np.dtype[Any]] = {
    Kind.BOOLEAN: np.dtype("?"),
    **{kind: np.dtype(f">{code}") for kind, code in CODES.items()},
}


class Scalar(Struct, frozen=True):
    """A single value.

    Attributes:
        kind: its type.
        bound: longest string in bytes, of bounded strings; else 0.
    """

    kind: Kind
    bound: int = 0
    depth: ClassVar[int] = 0
    count: ClassVar[int] = 1
    weight: ClassVar[int] = 1


class Array(Struct, frozen=True):
    """An array of numbers, booleans or strings.

    Attributes:
        kind: type of the elements.
        extent: how long it is.
        size: its length (`Extent.FIXED`) or greatest length (`Extent.BOUNDED`), else 0.
    """

    kind: Kind
    extent: Extent = Extent.VARIABLE
    size: int = 0
    depth: ClassVar[int] = 0
    count: ClassVar[int] = 1

    @property
    def weight(self) -> int:
        """Fields it counts as: arrays of fixed size exist before anything is sent."""
        return 1 + (self.size // _ELEMENTS_OF_A_FIELD if self.extent is Extent.FIXED else 0)


@dataclass(frozen=True, slots=True)
class Structure:
    """A structure.

    Bits of a bit set number a structure and all that is in it: the structure is 0, its first field
    1; the fields of a structure inside follow its own number.

    Attributes:
        id: name of the type, or "".
        fields: names and types.
        depth: levels below it.
        count: how many numbers it takes.
        weight: fields of all levels, those in unions and arrays too.
        starts: number of each field, from that of the structure.
    """

    id: str = ""
    fields: tuple[tuple[str, Type], ...] = ()
    depth: int = field(init=False, compare=False)
    count: int = field(init=False, compare=False)
    weight: int = field(init=False, compare=False)
    starts: tuple[int, ...] = field(init=False, compare=False)
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        starts: list[int] = []
        count = 1
        for _, kind in self.fields:
            starts.append(count)
            count += kind.count
        depth = 1 + max((kind.depth for _, kind in self.fields), default=0)
        for name, value in (
            ("depth", depth),
            ("count", count),
            ("weight", 1 + sum(kind.weight for _, kind in self.fields)),
            ("starts", tuple(starts)),
            ("_hash", hash((self.id, self.fields))),
        ):
            object.__setattr__(self, name, value)

    def __hash__(self) -> int:
        return self._hash

    def get(self, name: str) -> Type | None:
        """The type of a field, or None."""
        return next((kind for other, kind in self.fields if other == name), None)


@dataclass(frozen=True, slots=True)
class Union:
    """One of several values.

    Attributes:
        id: name of the type, or "".
        choices: names and types.
        depth: levels below it.
        weight: its choices, with all that is in them.
    """

    id: str = ""
    choices: tuple[tuple[str, Type], ...] = ()
    depth: int = field(init=False, compare=False)
    weight: int = field(init=False, compare=False)
    _hash: int = field(init=False, compare=False, repr=False)
    count: ClassVar[int] = 1

    def __post_init__(self) -> None:
        depth = 1 + max((kind.depth for _, kind in self.choices), default=0)
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "weight", 1 + sum(kind.weight for _, kind in self.choices))
        object.__setattr__(self, "_hash", hash((self.id, self.choices)))

    def __hash__(self) -> int:
        return self._hash


class Variant(Struct, frozen=True):
    """A value of any type (a variant union)."""

    depth: ClassVar[int] = 0
    count: ClassVar[int] = 1
    weight: ClassVar[int] = 1


class ArrayOf(Struct, frozen=True):
    """An array of structures, unions or values of any type; elements may be missing.

    Attributes:
        element: type of the elements.
    """

    element: Structure | Union | Variant
    count: ClassVar[int] = 1

    @property
    def weight(self) -> int:
        """Fields of all levels."""
        return 1 + self.element.weight

    @property
    def depth(self) -> int:
        """Levels below it."""
        return 1 + self.element.depth


Type = Scalar | Array | Structure | Union | Variant | ArrayOf


class Selected(Struct, frozen=True):
    """Value of a union: the choice and its value, or None and None."""

    choice: str | None = None
    value: object = None


class AnyValue(Struct, frozen=True):
    """Value of a variant union: a type and a value of it, or None and None."""

    type: Type | None = None
    value: object = None


def default(kind: Type) -> object:
    """The value that a field has before it is set."""
    match kind:
        case Scalar(Kind.STRING):
            return ""
        case Scalar(Kind.BOOLEAN):
            return False
        case Scalar():
            return 0.0 if kind.kind in REAL else 0
        case Array(Kind.STRING):
            return [""] * (kind.size if kind.extent is Extent.FIXED else 0)
        case Array():
            size = kind.size if kind.extent is Extent.FIXED else 0
            return np.zeros(size, DTYPES[kind.kind])
        case Structure():
            return {name: default(inner) for name, inner in kind.fields}
        case Union():
            return Selected()
        case Variant():
            return AnyValue()
        case ArrayOf():
            return []
