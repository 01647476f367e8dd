from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pvaccess as pva
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvapy_stream.errors import ObjectError
from pvapy_stream.pva import serial
from pvapy_stream.pva.serial import ObjectWriter, blank, dumps, loads
from pvapy_stream.pva.structure import MAX_DEPTH, MAX_FIELDS, kind_of, plain_kind, type_ids
from pvapy_stream.testing import image_object
from tests.support import rounds

NUMBERS = {
    pva.UBYTE: np.uint8, pva.SHORT: np.int16, pva.USHORT: np.uint16, pva.INT: np.int32,
    pva.UINT: np.uint32, pva.LONG: np.int64, pva.ULONG: np.uint64, pva.BYTE: np.int8,
}  # fmt: skip
FLOATS = {pva.FLOAT: np.float32, pva.DOUBLE: np.float64}
SCALARS = [*NUMBERS, *FLOATS, pva.BOOLEAN, pva.STRING]

texts = st.text(st.characters(codec="utf-8"), max_size=8)
names = st.text("abcXYZ_0123", min_size=1, max_size=4).map("f".__add__)


def structures(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(names, inner, min_size=1, max_size=4)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = structures(inner)
    return st.one_of(
        fields,
        fields.map(lambda kind: [kind]),
        fields.map(lambda kind: (kind,)),
        fields.map(lambda kind: [(kind,)]),
    )


leaves = st.one_of(
    st.sampled_from(SCALARS),
    st.sampled_from(SCALARS).map(lambda kind: [kind]),
    st.sampled_from([(), [()]]),
)
kinds = st.recursive(leaves, containers, max_leaves=8)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values that the binding takes for a kind."""
    if kind == pva.STRING:
        return texts
    if kind == pva.BOOLEAN:
        return st.booleans()
    if kind == pva.BYTE:
        # It cannot give negative ones.
        return st.integers(0, 127).map(chr)
    if isinstance(kind, pva.ScalarType):
        return numbers(kind)
    if isinstance(kind, dict):
        return st.fixed_dictionaries({name: values(inner) for name, inner in kind.items()})
    if isinstance(kind, list):
        return arrays(kind[0])
    if not kind:
        return leaves.filter(lambda k: k not in ((), [()])).flatmap(
            lambda k: values(k).map(lambda v: ({"value": v}, {"value": k}))
        ) | st.just(({}, {}))
    one = [values(inner).map(lambda v, n=name: ({n: v},)) for name, inner in kind[0].items()]
    return st.one_of(st.just(({}, {})), *one)


def numbers(kind: Any) -> st.SearchStrategy[Any]:
    if kind in FLOATS:
        return st.floats(width=32 if kind == pva.FLOAT else 64)
    limits = np.iinfo(NUMBERS[kind])
    return st.integers(int(limits.min), int(limits.max))


def arrays(kind: Any) -> st.SearchStrategy[Any]:
    if kind == pva.STRING or not isinstance(kind, pva.ScalarType):
        return st.lists(values(kind), max_size=3)
    dtype = np.dtype(bool) if kind == pva.BOOLEAN else np.dtype({**NUMBERS, **FLOATS}[kind])
    elements = st.booleans() if kind == pva.BOOLEAN else numbers(kind)
    short = st.lists(elements, max_size=5).map(lambda found: np.array(found, dtype))
    return short | short.map(lambda array: np.resize(array, 300) if array.size else array)


objects = structures(kinds).flatmap(
    lambda kind: values(kind).map(lambda value: pva.PvObject(kind, value))
)


def same(one: Any, other: Any) -> bool:
    """Equal in types too, and order of fields; not a number equals itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(
            one, other, equal_nan=one.dtype.kind == "f"
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or one != one


def assert_same(one: Any, other: Any) -> None:
    assert same(one.getStructureDict(), other.getStructureDict())
    assert same(one.toDict(), other.toDict()), f"{one}\n{other}"
    assert type_ids(one) == type_ids(other)


@settings(max_examples=rounds(60), deadline=None)
@given(objects)
def test_any_object_comes_back_equal(obj: Any) -> None:
    data = dumps(obj)
    assert_same(loads(data), obj)
    assert dumps(loads(data)) == data


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_images_come_back_equal(dtype: str) -> None:
    image = np.random.default_rng(1).integers(0, 100, (17, 33)).astype(dtype)
    attributes = {
        "i": 3, "l": 2**40, "x": 1.5, "s": "é", "b": True, "n": np.arange(4), "t": ["a", "b"],
        "f": np.zeros(100, np.float32),
    }  # fmt: skip
    obj = image_object(image, 7, time=123.25, **attributes)
    back = loads(dumps(obj))
    assert_same(back, obj)
    assert type_ids(back)[0] == "epics:nt/NTNDArray:1.0"
    assert type_ids(back) == type_ids(pva.NtNdArray())


def test_a_compressed_image_and_an_empty_one() -> None:
    obj = image_object(np.zeros((4, 6), np.uint16))
    obj["codec"] = pva.PvCodec("lz4", pva.PvInt(5))
    obj["value"] = {"ubyteValue": np.arange(200, dtype=np.uint8)}
    for one in (obj, pva.NtNdArray(), image_object(np.zeros((0, 6), np.uint16))):
        assert_same(loads(dumps(one)), one)


def test_type_ids_come_back() -> None:
    kind = {
        "one": {"two": {"x": pva.INT}, "list": [{"x": pva.INT}]},
        "u": ({"x": pva.INT, "s": {"k": pva.STRING}},),
        "any": (),
        "text": pva.STRING,
        "texts": [pva.STRING],
        "list": [{"x": pva.STRING}],
    }
    ids = {"one": "one id", "list": "last"}
    obj = pva.PvObject(kind, "top level:2.0", ids)
    # Texts that look like what the binding prints of a structure.
    obj["text"] = "x\n    evil one\n    evil list"
    obj["u"] = {"s": {"k": "\n    evil one"}}
    obj["any"] = ({"value": "\n    evil one"}, {"value": pva.STRING})
    obj["list"] = [{"x": "\n    evil list"}]
    assert type_ids(obj) == ("top level:2.0", ids)
    assert_same(loads(dumps(obj)), obj)
    assert type_ids(blank(obj)) == ("top level:2.0", ids)
    assert blank(obj)["text"] == ""
    assert obj["text"].startswith("x")


def test_a_writer_follows_a_stream_that_changes_its_structure() -> None:
    writer = ObjectWriter()
    for kind in ({"a": pva.INT}, {"a": pva.INT}, {"b": pva.INT, "a": pva.INT},
                 {"a": pva.INT, "b": pva.INT}, {"a": pva.STRING}):  # fmt: skip
        obj = pva.PvObject(kind)
        assert_same(loads(b"".join(writer.parts(obj))), obj)


def test_large_arrays_are_not_copied_on_the_way_to_bytes() -> None:
    obj = image_object(np.ones((64, 64), np.uint16))
    view = obj["value"][0]["ushortValue"]
    part = ObjectWriter().parts(obj)[-1]
    assert np.frombuffer(part, np.uint16).ctypes.data == view.ctypes.data


def test_text_that_is_not_utf8() -> None:
    obj = pva.PvObject({"s": pva.STRING}, {"s": b"\xff\xfe"})
    assert loads(dumps(obj))["s"] == b"\xff\xfe"
    obj = pva.PvObject({"s": [pva.STRING]}, {"s": [b"\xff"]})
    with pytest.raises(ObjectError, match="the binding cannot read"):
        dumps(obj)


def test_bytes_at_any_address_are_read() -> None:
    obj = image_object(np.arange(600, dtype=np.float64).reshape(20, 30))
    shifted = memoryview(b"x" + dumps(obj))[1:]
    assert_same(loads(shifted), obj)


def test_truncated_extended_and_changed_bytes_are_refused_or_read() -> None:
    """Whatever comes, it is an object or an `ObjectError`."""
    data = dumps(image_object(np.arange(200, dtype=np.uint16).reshape(10, 20), x=1.5, s="text"))
    for length in range(0, len(data), 7):
        with pytest.raises(ObjectError):
            loads(data[:length])
    with pytest.raises(ObjectError):
        loads(data + b"\0")
    rng = random.Random(3)
    refused = 0
    for _ in range(3000):
        changed = bytearray(data)
        changed[rng.randrange(len(data) - 400)] ^= 1 << rng.randrange(8)
        try:
            loads(changed)
        except ObjectError:
            refused += 1
    assert refused > 500


def made(schema: Any, plain: Any, lengths: list[int] | None = None, tail: bytes = b"") -> bytes:
    encode = msgspec.msgpack.encode
    head = encode((encode(schema), plain, lengths or []))
    start = serial._START.pack(serial._MAGIC, len(head)) + head
    return start + bytes(-len(start) % 8 if lengths else 0) + tail


def raw(*schema: bytes) -> bytes:
    """An object whose structure is MessagePack as given."""
    head = msgspec.msgpack.encode((b"\x93" + b"".join(schema), [1], []))
    return serial._START.pack(serial._MAGIC, len(head)) + head


def nested(levels: int) -> Any:
    kind: Any = int(pva.INT)
    for _ in range(levels):
        kind = {"x": kind}
    return kind


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (made(("", {}, nested(MAX_DEPTH + 1)), [1]), "more than 32 levels"),
        (raw(b"\xa0", b"\x80", b"\x81\xa1x" * 5000 + b"\x05"), "unreadable"),
        (
            made(("", {}, {f"f{n}": 5 for n in range(MAX_FIELDS + 1)}), []),
            "more than 10000 fields",
        ),
        (made(("", {}, {}), []), "no fields"),
        (made(("", {}, {"x": 99}), [1]), "no known type"),
        (made(("", {}, {"x": ["array", ["array", 5]]}), [1]), "no known type"),
        (made(("", {}, {"x": ["union", {}]}), [1]), "no known type"),
        (made(("", {}, {"a b": 5}), [1]), "do not fit"),
        (made((1, {}, {"x": 5}), [1]), "unreadable"),
        (made(("", {}, {"x": 5}), []), "do not fit"),
        (made(("", {}, {"x": 5}), [1, 2]), "do not fit"),
        (made(("", {}, {"x": 5}), ["text"]), "do not fit"),
        (made(("", {}, {"x": 5}), [2**63]), "do not fit"),
        (made(("", {}, {"x": 5}), 3), "do not fit"),
        (made(("", {}, {"x": ["union", {"y": 5}]}), [[7, 1]]), "has no choice 7"),
        (made(("", {}, {"x": ["array", 5]}), [1]), "array 1 is asked for where 0 is next"),
        (made(("", {}, {"x": ["array", int(pva.INT)]}), [b"123"]), "do not fit"),
        (made(("", {}, {"x": 5}), [1], [8], b"12345678"), "more arrays than"),
        (made(("", {}, {"x": ["array", 5]}), [0], [9], b"12345678"), "arrays do not fit"),
        (made(("", {}, {"x": ["array", 5]}), [0], [-1], b"12345678"), "arrays do not fit"),
        (made(("", {}, {"x": ["array", 5]}), [0], [2**60], b"1"), "arrays do not fit"),
        (b"PVO\x01\xff\xff\xff\xff", "a head of"),
        (b"PICKLE!!", "they begin with"),
        (b"", "there are only 0"),
    ],
)  # fmt: skip
def test_bad_bytes_say_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(ObjectError, match=message):
        loads(data)


def test_values_of_any_type_within_each_other_are_bounded() -> None:
    plain: Any = [int(pva.INT), 1]
    variant = msgspec.msgpack.encode(["any"])
    for _ in range(MAX_DEPTH + 2):
        plain = [variant, plain]
    with pytest.raises(ObjectError, match="levels of values of any type"):
        loads(made(("", {}, {"x": ["any"]}), [plain]))


@given(structures(kinds))
def test_kinds_and_their_plain_form(kind: Any) -> None:
    assert same(kind_of(msgspec.msgpack.decode(msgspec.msgpack.encode(plain_kind(kind)))), kind)
