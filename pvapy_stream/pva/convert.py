"""Types and values of PvObjects as those of `pva.wire`, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import pvaccess as pva
from numpy.typing import NDArray

from pvapy_stream.errors import ObjectError
from pvapy_stream.pva.structure import type_ids
from pvapy_stream.pva.wire.types import (
    AnyValue,
    Array,
    ArrayOf,
    Kind,
    Scalar,
    Selected,
    Structure,
    Type,
    Union,
    Variant,
    default,
)

Value = dict[str, object]

# Looked up once: it is compared with for each attribute of an image.
_ScalarType = pva.ScalarType
_KIND_OF = {int(kind): Kind[name] for name, kind in _ScalarType.names.items()}
_SCALAR_OF = {Kind[name]: kind for name, kind in _ScalarType.names.items()}


def type_of(obj: pva.PvObject) -> Structure:
    """The type of a PvObject; type ids below its first level are left out."""
    top, ids = type_ids(obj)
    kind = obj.getStructureDict()
    return Structure(top, tuple((n, wire_type(inner, ids.get(n, ""))) for n, inner in kind.items()))


def value_of(obj: pva.PvObject, kind: Structure, copy: bool = True) -> Value:
    """The value of a PvObject, as of `pva.wire`.

    Args:
        obj: the object.
        kind: its type.
        copy: whether arrays are copied; those that are not change with the object.
    """
    # The binding reuses its arrays.
    return _from_binding(kind, obj.toDict(), np.array if copy else np.asarray)


def wire_value(kind: Type, value: object) -> object:
    """The value of a field that `PvObject.toDict` gives.

    Arrays of numbers are copied: the binding writes new values into the memory of its arrays. Of a
    union, which gets a new array with each value, they are not.

    Args:
        kind: type of the field.
        value: of the field.

    Raises:
        KeyError, TypeError, IndexError: it is none of this type.
    """
    array = np.asarray if isinstance(kind, Union) else np.array
    return _from_binding(kind, value, array)


def blank_object(kind: Structure) -> pva.PvObject:
    """A PvObject of a type, without values.

    Raises:
        ObjectError: the binding cannot hold such a structure.
    """
    ids = {n: _id(inner) for n, inner in kind.fields if _id(inner)}
    try:
        return pva.PvObject(binding_kind(kind), kind.id, ids)
    except (pva.PvaException, TypeError, ValueError) as error:
        raise ObjectError(f"no PvObject can have such a structure: {error}") from error


def fill(obj: pva.PvObject, kind: Structure, value: Mapping[str, object]) -> pva.PvObject:
    """Set all fields of a PvObject of a type, and return it.

    Raises:
        ObjectError: the binding cannot hold one of the values.
    """
    try:
        obj.set(_to_binding(kind, value))
    except (pva.PvaException, TypeError, ValueError, KeyError, OverflowError) as error:
        raise ObjectError(
            f"no PvObject can be made of what was put: {error}; the binding has no negative"
            " numbers in fields of type byte, for instance"
        ) from error
    return obj


def _id(kind: Type) -> str:
    if isinstance(kind, ArrayOf):
        return _id(kind.element)
    return kind.id if isinstance(kind, Structure) else ""


def wire_type(kind: object, type_id: str = "") -> Type:
    """A type that the binding describes as in `getStructureDict`."""
    if isinstance(kind, _ScalarType):
        return Scalar(_KIND_OF[int(kind)])
    if isinstance(kind, dict):
        fields = cast("dict[str, object]", kind)
        return Structure(type_id, tuple((n, wire_type(inner)) for n, inner in fields.items()))
    if isinstance(kind, list):
        inner = wire_type(cast("list[object]", kind)[0], type_id)
        if isinstance(inner, Scalar):
            return Array(inner.kind)
        return ArrayOf(cast("Structure | Union | Variant", inner))
    choices = cast("tuple[dict[str, object], ...]", kind)
    if not choices:
        return Variant()
    return Union("", tuple((n, wire_type(inner)) for n, inner in choices[0].items()))


def binding_kind(kind: Type) -> Any:
    """A type as the binding describes it, see `getStructureDict`."""
    match kind:
        case Scalar():
            return _SCALAR_OF[kind.kind]
        case Array():
            return [_SCALAR_OF[kind.kind]]
        case ArrayOf():
            return [binding_kind(kind.element)]
        case Structure():
            return {n: binding_kind(inner) for n, inner in kind.fields}
        case Union():
            return ({n: binding_kind(inner) for n, inner in kind.choices},)
        case Variant():
            return ()


def _from_binding(kind: Type, value: Any, array: Callable[[object], NDArray[np.generic]]) -> Any:
    match kind:
        case Scalar(Kind.BYTE):
            # The binding gives signed bytes as characters.
            return (ord(value) + 128) % 256 - 128
        case Scalar(Kind.STRING) if isinstance(value, bytes):
            # The binding gives text that is not UTF-8 as bytes, and takes it as such.
            return value.decode(errors="surrogateescape")
        case Structure():
            if len(value) != len(kind.fields):
                raise KeyError(f"it has the fields {', '.join(value)}")
            return {n: _from_binding(inner, value[n], array) for n, inner in kind.fields}
        case ArrayOf():
            return [_from_binding(kind.element, one, array) for one in value]
        case Union():
            if not value or not value[0]:
                return Selected()
            ((name, inner),) = value[0].items()
            return Selected(name, _from_binding(dict(kind.choices)[name], inner, array))
        case Variant():
            if not value or not value[0]:
                return AnyValue()
            ((name, inner),) = value[0].items()
            found = wire_type(value[1][name])
            return AnyValue(found, _from_binding(found, inner, array))
        case Array() if kind.kind is not Kind.STRING:
            return array(value)
        case _:
            return value


def _to_binding(kind: Type, value: Any) -> Any:
    match kind:
        case Scalar(Kind.BYTE):
            return chr(value % 256)
        case Scalar(Kind.STRING):
            return value if value.isascii() else value.encode(errors="surrogateescape")
        case Structure():
            return {n: _to_binding(inner, value[n]) for n, inner in kind.fields}
        case ArrayOf():
            element = kind.element
            blank = default(element)
            return [_to_binding(element, blank if one is None else one) for one in value]
        case Union():
            if value.choice is None:
                return {}, {}
            return ({value.choice: _to_binding(dict(kind.choices)[value.choice], value.value)},)
        case Variant():
            if value.type is None:
                return {}, {}
            return {"value": _to_binding(value.type, value.value)}, {
                "value": binding_kind(value.type)
            }
        case Array() if kind.kind is not Kind.STRING:
            return plain_array(value)
        case _:
            return value


def plain_array(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """An array that the binding can read: in the order of the machine, and aligned."""
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.aligned else array.copy()
