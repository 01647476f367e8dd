"""The fields of a status channel: from a snapshot, and back. The terminal shows the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from pvapy_stream.status.snapshot import KINDS, NOTHING, Snapshot, camel, types_of

_NUMBERED = ("producer_stats", "metadata_stats")
_NUMBER = re.compile(r"(producer|metadata)Stats_(\d+)")


class Field(NamedTuple):
    """A field of a status channel.

    Attributes:
        name: of the field.
        kind: name of its PVA type, TIME for a time stamp; "" for a group of fields.
        value: or its fields.
    """

    name: str
    kind: str
    value: Any


def fields_of(snapshot: Snapshot) -> list[Field]:
    """All fields of a snapshot, in their order, without the statistics of the processor."""
    first = [
        Field(f"{snapshot.kind}Id", "UINT", snapshot.id),
        *(one for one in _fields(snapshot) if one.name not in ("kind", "id")),
        *(_fields(snapshot.own) if snapshot.own is not None else ()),
        *_numbered(snapshot),
    ]
    drops = [Field(name, "ULONG", count) for name, count in snapshot.drop_stats.items()]
    return [*first, *([Field("dropStats", "", drops)] if drops else [])]


def _fields(group: Struct) -> Iterator[Field]:
    for name, kind in types_of(type(group)).items():
        value = getattr(group, name)
        if isinstance(kind, str):
            yield Field(camel(name), kind, NOTHING if value is None else value)
            if name == "object_time":
                yield Field("objectTimestamp", "TIME", value)
        elif isinstance(value, Struct):
            yield Field(camel(name), "", list(_fields(value)))


def _numbered(snapshot: Snapshot) -> Iterator[Field]:
    for group in _NUMBERED:
        for number, stats in getattr(snapshot, group).items():
            yield Field(f"{camel(group)}_{number}", "", list(_fields(stats)))


def values(snapshot: Snapshot) -> dict[str, Any]:
    """The values of all fields, by their names; those of the processor too."""
    found = _plain(fields_of(snapshot))
    return {**found, "userStats": dict(snapshot.user_stats)} if snapshot.user_stats else found


def _plain(found: Iterable[Field]) -> dict[str, object]:
    return {one.name: one.value if one.kind else _plain(one.value) for one in found}


def read(status: Mapping[str, Any]) -> Snapshot:
    """The snapshot that a status channel shows, ours or the incumbent's."""
    kind = next((one for one in KINDS if f"{one}Id" in status), "")
    numbered: dict[str, dict[int, Any]] = {name: {} for name in _NUMBERED}
    classes = types_of(Snapshot)
    for name, value in status.items():
        if match := _NUMBER.fullmatch(name):
            group = f"{match[1]}_stats"
            numbered[group][int(match[2])] = _read(classes[group], value)
    groups = {name: cls for name, cls in classes.items() if name not in _NUMBERED}
    return Snapshot(
        **{
            **_read_fields(groups, status),
            "kind": kind,
            "id": int(status.get(f"{kind}Id", 0)),
            "state": str(status.get("state") or "running"),
            "user_stats": status.get("userStats", {}),
            "drop_stats": status.get("dropStats", {}),
            **numbered,
        }
    )


def _read(group: Any, status: Mapping[str, Any]) -> object:
    return group(**_read_fields(types_of(group), status))


def _read_fields(kinds: Mapping[str, object], status: Mapping[str, Any]) -> dict[str, object]:
    return {
        name: status[camel(name)] if isinstance(kind, str) else _read(kind, status[camel(name)])
        for name, kind in kinds.items()
        if camel(name) in status
    }
