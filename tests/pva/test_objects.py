from __future__ import annotations

from typing import Any

import pvaccess as pva
import pytest

from pvapy_stream.errors import ObjectError
from pvapy_stream.pva.objects import id_reader, structure_at


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (pva.BYTE, "\x07", 7),
        (pva.UBYTE, 200, 200),
        (pva.SHORT, -3, -3),
        (pva.USHORT, 65535, 65535),
        (pva.INT, -(2**31), -(2**31)),
        (pva.UINT, 2**32 - 1, 2**32 - 1),
        (pva.LONG, 2**53 + 1, 2**53 + 1),
        (pva.ULONG, 2**64 - 1, 2**64 - 1),
        (pva.FLOAT, 3.75, 3),
        (pva.DOUBLE, 1e9 + 0.5, 10**9),
        (pva.STRING, "12.7", 12),
        (pva.STRING, "9007199254740993", 9007199254740993),
    ],
)
def test_ids_of_every_type(kind: Any, value: Any, expected: int) -> None:
    obj = pva.PvObject({"id": kind}, {"id": value})
    assert id_reader("id", obj)(obj) == expected


def test_the_reader_serves_all_objects_of_the_structure() -> None:
    kind = {"meta": {"id": pva.ULONG}, "x": pva.DOUBLE}
    read = id_reader("meta.id", pva.PvObject(kind))
    assert [read(pva.PvObject(kind, {"meta": {"id": n}})) for n in (5, 6)] == [5, 6]


def test_ntndarray_objects_have_their_own_class() -> None:
    obj = pva.NtNdArray()
    obj["uniqueId"] = 4
    read = id_reader("uniqueId", obj)
    assert (read(obj), read(obj.copy())) == (4, 4)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            "uniqueId",
            "no id field 'uniqueId'; its fields are a, s, f; choose",
        ),
        ("a", "it is not a number"),
        ("s", "it is not a number"),
        ("f", "it is not a number"),
    ],
)
def test_fields_that_are_no_id(field: str, message: str) -> None:
    obj = pva.PvObject({"a": [pva.INT], "s": {"x": pva.INT}, "f": pva.BOOLEAN})
    with pytest.raises(ObjectError, match=message):
        id_reader(field, obj)


def test_text_that_is_no_number_fails_when_it_is_read() -> None:
    obj = pva.PvObject({"id": pva.STRING}, {"id": "seven"})
    with pytest.raises(ValueError, match="seven"):
        id_reader("id", obj)(obj)


def test_structure_of_a_path() -> None:
    obj = pva.PvObject({"a": {"b": {"c": pva.FLOAT}}})
    assert structure_at(obj, "a.b.c") == pva.FLOAT
