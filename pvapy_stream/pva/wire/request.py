"""What a client asks for (pvRequest): fields and options.

On the wire it is a structure: in it the structure ``field`` (``putField``, ``getField``) has a
structure for each field, which may have structures for fields below and a structure ``_options`` of
strings; ``record`` has ``_options`` that hold for the whole request. As text:
``record[queueSize=10,pipeline=true]field(value,timeStamp.userTag[key=text])``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from pvapy_stream.errors import WireError
from pvapy_stream.pva.wire.types import AnyValue, Kind, Scalar, Structure, Type

OPTIONS = "_options"
WHOLE = "_"  # the whole structure, to which a plugin's options belong

_TOKEN = re.compile(r"\s*([\w.:;=+-]+|[][(){},])")
_STRING = Scalar(Kind.STRING)
_Tree = dict[str, "_Tree | str"]


def parse(text: str) -> AnyValue:
    """The request of a text such as ``record[queueSize=10]field(a,b.c)``, or ``a,b.c``.

    Raises:
        WireError: it cannot be understood.
    """
    text = text.strip()
    if not re.match(r"(record|field|putField|getField)\s*[\[({]", text) and text:
        text = f"field({text})"
    tokens = _tokens(text)
    tree: _Tree = {}
    while tokens:
        name = tokens.pop(0)
        if name in "[](){},":
            raise WireError(f"the request {text!r} cannot be understood at {name!r}")
        _options(tokens, _branch(tree, [name]), text)
        if tokens[:1] in (["("], ["{"]):
            _fields(tokens, _branch(tree, [name]), text)
    tree.setdefault("field", {})
    return _value(tree)


def selected(kind: Structure, request: AnyValue, part: str = "field") -> Structure:
    """The part of a structure that a client asks for; fields it does not have are left out.

    Args:
        kind: the structure.
        request: of the client.
        part: ``field``, or ``putField`` or ``getField`` of a put-get.

    Raises:
        WireError: none of the fields exists.
    """
    fields = inside(request.value, part)
    if not fields or WHOLE in fields:
        return kind
    made = _select(kind, fields)
    if made is None:
        raise WireError(f"none of the fields {', '.join(fields)[:200]} exists")
    return made


def options(request: AnyValue, part: str = "record") -> dict[str, str]:
    """Options of a request, such as ``queueSize`` and ``pipeline``."""
    found = inside(inside(request.value, part), OPTIONS)
    return {name: str(value) for name, value in found.items() if not isinstance(value, dict)}


def without(request: AnyValue, option: str) -> AnyValue:
    """The request without one of the options of `record`."""
    record, kept = inside(request.value, "record"), options(request)
    if kept.pop(option, None) is None or not isinstance(request.value, dict):
        return request
    tree = cast("_Tree", {**request.value, "record": {**record, OPTIONS: kept}})
    return _value(tree)


def narrowed(kind: Structure, bits: int, part: Structure) -> int:
    """The bit set of a structure, as one of a part of it."""
    if kind is part:
        return bits
    if bits & 1:
        # Other bits say nothing more, and may be none of the part.
        return 1
    made = 0
    for (name, inner), start in zip(part.fields, part.starts, strict=True):
        place, whole = _find(kind, name)
        found = bits >> place & ((1 << whole.count) - 1)
        if isinstance(whole, Structure) and isinstance(inner, Structure):
            found = narrowed(whole, found, inner)
        made |= found << start
    return made


def widened(part: Structure, bits: int, kind: Structure) -> int:
    """The bit set of a part of a structure, as one of the structure."""
    if kind is part or kind == part:
        return bits
    made = 0
    for (name, inner), start in zip(part.fields, part.starts, strict=True):
        found = 1 if bits & 1 else bits >> start & ((1 << inner.count) - 1)
        place, whole = _find(kind, name)
        if isinstance(whole, Structure) and isinstance(inner, Structure):
            found = widened(inner, found, whole)
        made |= found << place
    return made


def merged(held: Mapping[str, object], new: Mapping[str, object]) -> dict[str, object]:
    """The structure with the fields of a part of it replaced."""
    made = dict(held)
    for name, value in new.items():
        before = held.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            made[name] = merged(cast("dict[str, object]", before), cast("dict[str, object]", value))
        else:
            made[name] = value
    return made


def _find(kind: Structure, name: str) -> tuple[int, Type]:
    for (other, inner), start in zip(kind.fields, kind.starts, strict=True):
        if other == name:
            return start, inner
    raise WireError(f"there is no field {name}")


def inside(value: object, name: str) -> dict[str, object]:
    """A part of a request, such as its ``field``; empty if there is none."""
    if not isinstance(value, dict):
        return {}
    found = cast("dict[str, object]", value).get(name)
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}


def _select(kind: Structure, fields: Mapping[str, object]) -> Structure | None:
    made: list[tuple[str, Type]] = []
    for name, inner in kind.fields:
        if name not in fields:
            continue
        below = inside(fields, name)
        if below.keys() - {OPTIONS} and isinstance(inner, Structure):
            part = _select(inner, below)
            if part is None:
                continue
            inner = part
        made.append((name, inner))
    if not made:
        return None
    return kind if tuple(made) == kind.fields else Structure(kind.id, tuple(made))


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    place = 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise WireError(f"the request {text!r} cannot be understood at {text[place:]!r}")
        found.append(token[1])
        place = token.end()
    return found


def _branch(tree: _Tree, path: list[str]) -> _Tree:
    for name in path:
        inner = tree.setdefault(name, {})
        if isinstance(inner, str):
            raise WireError(f"{name} is an option and a field")
        tree = inner
    return tree


def _options(tokens: list[str], branch: _Tree, text: str) -> None:
    if tokens[:1] != ["["]:
        return
    tokens.pop(0)
    made = _branch(branch, [OPTIONS])
    while tokens and tokens[0] != "]":
        name, _, value = tokens.pop(0).partition("=")
        if tokens[:1] == [","]:
            tokens.pop(0)
        made[name] = value
    _close(tokens, "]", text)


def _fields(tokens: list[str], branch: _Tree, text: str) -> None:
    end = ")" if tokens.pop(0) == "(" else "}"
    while tokens and tokens[0] != end:
        inner = _branch(branch, tokens.pop(0).split("."))
        _options(tokens, inner, text)
        if tokens[:1] == ["{"]:
            _fields(tokens, inner, text)
        if tokens[:1] == [","]:
            tokens.pop(0)
    _close(tokens, end, text)


def _close(tokens: list[str], end: str, text: str) -> None:
    if not tokens or tokens.pop(0) != end:
        raise WireError(f"the request {text!r} lacks a {end!r}")


def _value(tree: _Tree) -> AnyValue:
    fields: list[tuple[str, Type]] = []
    values: dict[str, object] = {}
    for name, inner in tree.items():
        if isinstance(inner, str):
            fields.append((name, _STRING))
            values[name] = inner
        else:
            made = _value(inner)
            fields.append((name, cast("Structure", made.type)))
            values[name] = made.value
    return AnyValue(Structure("", tuple(fields)), values)
