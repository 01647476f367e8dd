"""Values of every type of PVData: each type has a channel, which shows them one after the other."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from pvapy_stream.pva.image_encoder import image_kind
from pvapy_stream.pva.wire.types import (
    DTYPES,
    REAL,
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

# Elements; more than fit into a segment of 64 KiB, and into the buffers of a connection.
LARGE = 100_000
TEXTS = ["", "plain", "Grüße, 光子 \U0001f52c", 'a "quoted"\ttext\n', "long " * 100 + "."]
INT, TEXT = Scalar(Kind.INT), Scalar(Kind.STRING)
POINT = Structure("point_t", (("x", INT), ("name", TEXT), ("more", Array(Kind.DOUBLE))))
CHOICE = Union("", (("i", INT), ("s", TEXT), ("a", Array(Kind.FLOAT)), ("p", POINT)))


@dataclass(frozen=True)
class Case:
    """A type and values of it.

    Attributes:
        type: of the field `value` of the channel.
        values: what the channel shows, one after the other; the first is its default.
    """

    type: Type
    values: list[Any]

    @property
    def kind(self) -> Structure:
        """The structure of the channel; what follows the value shows that all of it was read."""
        return Structure("case_t", (("value", self.type), ("after", INT)))

    def structure(self, number: int) -> dict[str, object]:
        """What the channel holds with one of the values."""
        return {"value": self.values[number], "after": 1000 + number}


def _point(x: int, *more: float) -> dict[str, object]:
    return {"x": x, "name": f"é{x}", "more": np.array(more, "<f8")}


def _numbers(kind: Kind) -> list[Any]:
    if kind is Kind.BOOLEAN:
        return [False, True]
    if kind is Kind.STRING:
        return list(TEXTS)
    if kind in REAL:
        most = np.finfo(DTYPES[kind])
        ends = [float(most.max), float(most.min), float(most.smallest_subnormal)]
        # pvDatabaseCPP leaves what is equal as it is: no zero follows the other.
        return [0.0, 1.5, -0.0, math.inf, -math.inf, math.nan, *ends]
    ends = np.iinfo(DTYPES[kind])
    return [0, 1, int(ends.min), int(ends.max)]


def _arrays(kind: Kind) -> list[Any]:
    numbers = _numbers(kind)
    if kind is Kind.STRING:
        return [[], ["one"], numbers, [str(n) for n in range(20_000)]]
    dtype = DTYPES[kind]
    some = np.array(numbers, dtype)
    return [some[:0], some[-1:], some, np.resize(some, LARGE)]


_one = AnyValue(INT, -7)
CASES: dict[str, Case] = {
    **{kind.name.lower(): Case(Scalar(kind), _numbers(kind)) for kind in Kind},
    **{f"{kind.name.lower()}[]": Case(Array(kind), _arrays(kind)) for kind in Kind},
    "structure": Case(
        Structure("outer_t", (("a", INT), ("point", POINT), ("b", Scalar(Kind.DOUBLE)))),
        [
            {"a": 0, "point": {"x": 0, "name": "", "more": np.zeros(0)}, "b": 0.0},
            {"a": 1, "point": _point(2, 0.5, -0.0), "b": 2.5},
        ],
    ),
    "structure[]": Case(ArrayOf(POINT), [[], [_point(1)], [_point(2, 1.0), _point(3)]]),
    "structure[] with null": Case(ArrayOf(POINT), [[], [None], [_point(1, 2.0), None, _point(3)]]),
    "union": Case(
        CHOICE,
        [
            Selected("i", -5),
            Selected("s", "ü"),
            Selected("p", _point(4, 1.0)),
            Selected("a", np.arange(3, dtype="<f4")),
            Selected("a", np.arange(LARGE, dtype="<f4")),
        ],
    ),
    "union none": Case(CHOICE, [Selected()]),
    "union to none": Case(CHOICE, [Selected("i", 1), Selected()]),
    "union[]": Case(
        ArrayOf(CHOICE), [[], [Selected("i", 1)], [Selected("s", "x"), Selected("p", _point(5))]]
    ),
    "union[] with null": Case(ArrayOf(CHOICE), [[], [None, Selected("i", 2), Selected()]]),
    **{
        f"any {kind.name.lower()}": Case(
            Variant(),
            [
                AnyValue(),
                AnyValue(Scalar(kind), _numbers(kind)[-1]),
                AnyValue(Array(kind), _arrays(kind)[2]),
            ],
        )
        for kind in Kind
    },
    "any structure": Case(Variant(), [AnyValue(), AnyValue(POINT, _point(6, 1.5)), _one]),
    "any to none": Case(Variant(), [_one, AnyValue()]),
    "any[]": Case(
        ArrayOf(Variant()), [[], [_one], [_one, AnyValue(TEXT, "t"), AnyValue(POINT, _point(7))]]
    ),
    "any[] with null": Case(ArrayOf(Variant()), [[], [_one, None, AnyValue()]]),
    "bounded string": Case(Scalar(Kind.STRING, 20), ["", "fits"]),
    "bounded array": Case(
        Array(Kind.INT, Extent.BOUNDED, 5), [np.zeros(0, "<i4"), np.arange(5, dtype="<i4")]
    ),
    "fixed array": Case(
        Array(Kind.INT, Extent.FIXED, 3), [np.zeros(3, "<i4"), np.arange(3, dtype="<i4")]
    ),
}

IMAGES = [
    (Kind.SHORT, ""), (Kind.USHORT, ""), (Kind.INT, ""), (Kind.UINT, ""), (Kind.LONG, ""),
    (Kind.ULONG, ""), (Kind.FLOAT, ""), (Kind.DOUBLE, ""), (Kind.BOOLEAN, ""), (Kind.UBYTE, ""),
    (Kind.BYTE, "jpeg"), (Kind.UBYTE, "lz4"), (Kind.UBYTE, "bslz4"), (Kind.UBYTE, "blosc"),
    (Kind.UBYTE, "lz4hdf5"),
]  # fmt: skip


def _image(kind: Kind, codec: str) -> dict[str, object]:
    """An NTNDArray with a value of a type; of a compressed one, the codec names that of pixels."""
    pixels = np.resize(_arrays(kind)[2], 80_000)
    attribute = {"name": "exposure", "value": AnyValue(Scalar(Kind.DOUBLE), 0.25), "descriptor": ""}
    parameters = AnyValue(INT, 6) if codec else AnyValue()
    given = {
        "value": Selected(f"{kind.name.lower()}Value", pixels),
        "codec": {"name": codec, "parameters": parameters},
        "compressedSize": pixels.nbytes,
        "dimension": [{"size": 80_000, "fullSize": 80_000, "binning": 1}],
        "uniqueId": 2**31 - 1,
        "attribute": [attribute],
    }
    return cast("dict[str, object]", _whole(image_kind(), given))


def _whole(kind: Any, value: Any) -> Any:
    """A value with the defaults of all fields that it lacks."""
    if isinstance(kind, Structure):
        return {
            name: _whole(inner, value[name]) if name in value else default(inner)
            for name, inner in kind.fields
        }
    if isinstance(kind, ArrayOf):
        return [_whole(kind.element, one) for one in value]
    return value


CASES["NTNDArray"] = Case(image_kind(), [_image(*one) for one in IMAGES])
LENGTHS = [case for case in CASES if case.startswith(("bounded", "fixed"))]


def plain(value: Any) -> Any:
    """A value as text can carry it, and as every partner sees it: without types and choices."""
    if isinstance(value, (Selected, AnyValue)):
        return plain(value.value)
    if isinstance(value, Mapping) or hasattr(value, "changedSet"):
        # A dict, or a structure of p4p, whose `items` are not as those of a dict.
        return {name: plain(value[name]) for name in value.keys()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return _plain_array(value)
    # Of floating-point numbers every bit but those of NaN.
    return repr(value) if isinstance(value, float) else value


def exact(value: Any) -> Any:
    """As `plain`, with the choice of unions, and the types of values of any type."""
    if isinstance(value, Selected):
        return None if value.choice is None else [value.choice, exact(value.value)]
    if isinstance(value, AnyValue):
        return None if value.type is None else [repr(value.type), exact(value.value)]
    if isinstance(value, Mapping):
        return {name: exact(inner) for name, inner in value.items()}
    if isinstance(value, list) and value and not isinstance(value[0], str):
        return [exact(one) for one in value]
    return plain(value)


def _plain_array(value: Any) -> list[Any]:
    if len(value) < 1000:
        return [plain(one) for one in (value.tolist() if hasattr(value, "tolist") else value)]
    if isinstance(value[0], str):
        raw = "\0".join(value).encode()
    elif isinstance(value[0], int):
        # numpy makes floating-point numbers of small and large ones together.
        raw = np.array([one % 2**64 for one in value], "<u8").tobytes()
    else:
        array = np.asarray(value)
        raw = array.astype("<f8" if array.dtype.kind == "f" else "<u8").tobytes()
    return [len(value), zlib.crc32(raw)]


def channel_name(prefix: str, case: str) -> str:
    """The name of the channel of a type."""
    return prefix + case.replace(" ", "-")


def shown_by(make: str) -> list[str]:
    """The types that a partner knows.

    PVXS knows no bounded strings, nor arrays that are bounded or of fixed size. pvapy crashes when
    it shows an element that is null, as pvAccessCPP may have. spvirit 0.4 reads scalars and arrays
    of them, alone, in structures and in variant unions: at an array of structures, a union without
    a value or a structure in a variant union it gives up.
    """
    nulls = [case for case in CASES if case.endswith("with null")]
    simple = [kind.name.lower() for kind in Kind]
    match make:
        case "p4p":
            return [case for case in CASES if case not in LENGTHS]
        case "pvapy":
            return [case for case in CASES if case not in nulls]
        case "spvirit":
            return [*simple, *(f"{name}[]" for name in simple)]
        case _:
            return [*CASES]
