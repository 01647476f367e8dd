"""Types and values of all kinds for hypothesis, and what compares values."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pvapy_stream.pva.wire.buffers import Reader, Writer
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
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
)
from pvapy_stream.pva.wire.values import read_any, write_any
from tests.support import rounds

# A machine that does much else is slow at times.
patient = settings(
    max_examples=rounds(40),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

names = st.text("abcdefgXYZ_0123", min_size=1, max_size=6)
type_ids = st.sampled_from(["", "epics:nt/NTScalar:1.0", "alarm_t", "Grüße"])
kinds = st.sampled_from(list(Kind))
scalars = st.one_of(st.builds(Scalar, kinds), st.builds(Scalar, st.just(Kind.STRING), st.just(20)))
arrays = st.one_of(
    st.builds(Array, kinds),
    st.builds(Array, kinds, st.just(Extent.BOUNDED), st.integers(1, 9)),
    st.builds(Array, kinds, st.just(Extent.FIXED), st.integers(0, 9)),
)


def _fields(inner: st.SearchStrategy[Type], least: int) -> st.SearchStrategy[Any]:
    return st.lists(
        st.tuples(names, inner), min_size=least, max_size=4, unique_by=lambda f: f[0]
    ).map(tuple)


def _deeper(inner: st.SearchStrategy[Type]) -> st.SearchStrategy[Type]:
    structures = st.builds(Structure, type_ids, _fields(inner, 0))
    unions = st.builds(Union, type_ids, _fields(inner, 1))
    return st.one_of(structures, unions, st.builds(ArrayOf, structures | unions))


leaves: st.SearchStrategy[Type] = st.one_of(
    scalars, arrays, st.just(Variant()), st.just(ArrayOf(Variant()))
)
types = st.recursive(leaves, _deeper, max_leaves=8)
structures = st.builds(Structure, type_ids, _fields(types, 1))
small_types = st.one_of(scalars, arrays)


def numbers(kind: Kind) -> st.SearchStrategy[Any]:
    if kind is Kind.STRING:
        return st.text(max_size=10)
    if kind is Kind.BOOLEAN:
        return st.booleans()
    if kind in REAL:
        return st.floats(width=32 if kind is Kind.FLOAT else 64)
    limits = np.iinfo(DTYPES[kind])
    return st.integers(int(limits.min), int(limits.max))


def values(kind: Type, level: int = 0) -> st.SearchStrategy[Any]:
    """Values of a type."""
    match kind:
        case Scalar():
            return numbers(kind.kind)
        case Array():
            least = kind.size if kind.extent is Extent.FIXED else 0
            most = kind.size if kind.extent is not Extent.VARIABLE else 6
            made = st.lists(numbers(kind.kind), min_size=least, max_size=most)
            if kind.kind is Kind.STRING:
                return made
            return made.map(lambda v: np.array(v, DTYPES[kind.kind]))
        case Structure():
            return st.fixed_dictionaries({n: values(k, level) for n, k in kind.fields})
        case Union():
            chosen = [st.builds(Selected, st.just(n), values(k, level)) for n, k in kind.choices]
            return st.one_of(st.just(Selected()), *chosen)
        case Variant():
            if level > 1:
                return st.just(AnyValue())
            return (types if not level else small_types).flatmap(
                lambda k: st.one_of(
                    st.just(AnyValue()), st.builds(AnyValue, st.just(k), values(k, level + 1))
                )
            )
        case ArrayOf():
            return st.lists(st.none() | values(kind.element, level), max_size=3)


typed = structures.flatmap(lambda kind: st.builds(AnyValue, st.just(kind), values(kind)))


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal; not-a-number equals itself."""
    match one:
        case np.ndarray():
            return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        case dict():
            return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
        case list():
            return len(one) == len(other) and all(map(same, one, other))
        case Selected():
            return one.choice == other.choice and same(one.value, other.value)
        case AnyValue():
            return one.type == other.type and same(one.value, other.value)
        case float():
            return one == other or (one != one and other != other)
        case _:
            return type(one) is type(other) and one == other


def encoded(value: AnyValue, big: bool = False) -> bytes:
    """A type and a value of it."""
    writer = Writer(big)
    write_any(value, writer, Outgoing())
    return writer.joined()


def decoded(data: Any, big: bool = False) -> AnyValue:
    """What `encoded` made."""
    reader = Reader(data, big)
    value = read_any(reader, Incoming())
    reader.end()
    return value
