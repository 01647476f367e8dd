"""A structure with fields of every type."""

from __future__ import annotations

from typing import Any

import numpy as np

from pvapy_stream.pva.wire.types import (
    DTYPES,
    AnyValue,
    Array,
    ArrayOf,
    Kind,
    Scalar,
    Selected,
    Structure,
    Union,
    Variant,
)

TEXT = Scalar(Kind.STRING)
INNER = Structure("inner_t", (("name", TEXT), ("any", Variant())))
CHOICE = Union("", (("i", Scalar(Kind.INT)), ("a", Array(Kind.DOUBLE)), ("s", INNER)))
NUMBERS = {
    Kind.BYTE: -5, Kind.SHORT: -300, Kind.INT: -70_000, Kind.LONG: -(2**40), Kind.UBYTE: 250,
    Kind.USHORT: 65_000, Kind.UINT: 2**32 - 1, Kind.ULONG: 2**63 + 5, Kind.FLOAT: 1.5,
    Kind.DOUBLE: -1e300,
}  # fmt: skip
KIND = Structure(
    "all_t",
    (
        ("flag", Scalar(Kind.BOOLEAN)),
        *((kind.name.lower(), Scalar(kind)) for kind in NUMBERS),
        ("text", TEXT),
        *((f"{kind.name.lower()}s", Array(kind)) for kind in NUMBERS),
        ("flags", Array(Kind.BOOLEAN)),
        ("texts", Array(Kind.STRING)),
        ("inner", INNER),
        ("inners", ArrayOf(INNER)),
        ("choice", CHOICE),
        ("choices", ArrayOf(CHOICE)),
        ("any", Variant()),
        ("empty", Variant()),
        ("anys", ArrayOf(Variant())),
        ("large", Array(Kind.USHORT)),
    ),
)
VALUE: dict[str, Any] = {
    "flag": True,
    **{kind.name.lower(): value for kind, value in NUMBERS.items()},
    "text": "Grüße " * 60,
    **{
        f"{kind.name.lower()}s": np.array([value, 1], DTYPES[kind])
        for kind, value in NUMBERS.items()
    },
    "flags": np.array([True, False]),
    "texts": ["a", "", "b" * 300],
    "inner": {"name": "n", "any": AnyValue(Array(Kind.INT), np.arange(3))},
    "inners": [{"name": "x", "any": AnyValue(TEXT, "y")}, {"name": "z", "any": AnyValue()}],
    "choice": Selected("a", np.arange(4.0)),
    "choices": [Selected("i", 5), Selected("s", {"name": "q", "any": AnyValue()})],
    "any": AnyValue(INNER, {"name": "deep", "any": AnyValue(Scalar(Kind.LONG), 2**50)}),
    "empty": AnyValue(),
    "anys": [AnyValue(Scalar(Kind.INT), 1), AnyValue(TEXT, "t")],
    "large": np.arange(100_000) % 65_521,
}
N = Structure("", (("value", Scalar(Kind.INT)), ("more", TEXT)))
