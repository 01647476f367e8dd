"""Types of settings that are written as text: JSON, id lists, channel lists."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BeforeValidator, Field

from pvapy_stream.base_settings import PIXEL_TYPES, PixelKind, lower
from pvapy_stream.settings.incumbent import warn_once

# A fraction.
Part = Annotated[float, Field(ge=0, le=1)]

# A field that is asked for, and its options.
_REQUESTED = re.compile(r"[\w.:-]+(?:\[[^][]*\]|\{[^{}]*\})?")


def _json_object(value: Any) -> object:
    if value is None or value == "" or isinstance(value, dict):
        return cast("dict[str, Any]", value or {})
    try:
        value = json.loads(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"is not JSON ({error}); write it like '{{\"key\": 1}}'") from error
    if not isinstance(value, dict):
        raise ValueError(f"must be a JSON object like '{{\"key\": 1}}', not {type(value).__name__}")
    return cast("dict[str, Any]", value)


def parse_id_list(value: object) -> object:
    """Ids from ``1,2,5``, ``[1,2,5]`` or ``range(first,last+1[,step])``; nothing is evaluated."""
    if value is None or not isinstance(value, str):
        return value
    text = value.strip()
    if not text:
        return None
    try:
        if text.startswith("range(") and text.endswith(")"):
            ids = list(range(*map(_whole, text[len("range(") : -1].split(","))))
        else:
            ids = [_whole(part) for part in text.strip("[]()").split(",") if part.strip()]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{value!r} is not an id list; write 1,2,5 or range(first,last+1[,step])"
        ) from error
    if not ids:
        raise ValueError(f"{value!r} has no id")
    return ids


def _whole(text: str) -> int:
    """A whole number, or a sum of them, as in ``range(1,4+1)``."""
    return sum(map(int, text.split("+"))) if text[:1] != "+" else int(text)


def _unique(ids: Any) -> object:
    ids = parse_id_list(ids)
    if ids is not None and len(set(ids)) != len(ids):
        raise ValueError(f"{list(ids)} has an id twice")
    return ids


@dataclass(frozen=True, slots=True)
class MetadataChannel:
    """A channel whose values a processor gets in addition to the stream."""

    name: str
    provider: Literal["pva", "ca"] = "ca"


def _metadata_channels(value: Any) -> object:
    if value is None:
        return ()
    if not isinstance(value, str):
        return tuple(value)
    channels: list[MetadataChannel] = []
    for text in filter(None, (part.strip() for part in value.split(","))):
        provider, _, name = text.rpartition("://")
        if not name:
            raise ValueError(
                f"{text!r} is not a metadata channel; write pva://NAME, ca://NAME or NAME (for ca)"
            )
        if provider not in ("", "pva", "ca") or text.startswith("://"):
            warn_once(
                f"metadata channel {text}: used as the name of a CA channel; write pva://NAME,"
                " ca://NAME or NAME"
            )
            provider, name = "ca", text
        channels.append(MetadataChannel(name, "pva" if provider == "pva" else "ca"))
    return tuple(channels)


def _names(value: Any) -> Any:
    return (
        tuple(filter(None, (part.strip() for part in value.split(","))))
        if isinstance(value, str)
        else value
    )


def mode_name(value: Any) -> Any:
    """An input or output mode; the numbers are those of PvaPy."""
    return {"0": "pva", "1": "pvas", "2": "rpc", "3": "ca", "4": "ejfat"}.get(
        str(value), lower(value)
    )


def _level_name(value: Any) -> object:
    value = lower(value)
    # What `logging` accepts besides.
    return {"warn": "warning", "fatal": "critical"}.get(value, value)


def _stats_kinds(value: Any) -> object:
    """The kinds that are named, if only as part of a word: PvaPy reads the list so."""
    if not isinstance(value, str):
        return value
    unknown = [word for word in _names(value) if word not in STATS_KINDS]
    found = tuple(kind for kind in STATS_KINDS if kind in value)
    if unknown:
        warn_once(
            f"--report-stats: {', '.join(unknown)} is not one of {', '.join(STATS_KINDS)}; using"
            f" {', '.join(found) or 'none'}"
        )
    return found


def _field_request(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = "".join(value.split())
    inner = text.removeprefix("field(").removesuffix(")") if text.startswith("field(") else text
    wrong = [part for part in inner.split(",") if part and not _REQUESTED.fullmatch(part)]
    if wrong or text.count("(") != text.count(")"):
        raise ValueError(
            f"is not a field request{f': {wrong[0]!r} is not a field' if wrong else ''}; write"
            " names separated by commas, as uniqueId,value or field(uniqueId,value)"
        )
    return text


def _pixel_type(value: object) -> object:
    """Other names of numpy's types, such as u2 and float, as PvaPy takes them."""
    if not isinstance(value, str) or value in PIXEL_TYPES:
        return value
    import numpy as np  # here, as this is rare, and other programs start without it

    try:
        return str(np.dtype(value).name)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    except TypeError:
        return value


PixelType = Annotated[PixelKind, BeforeValidator(_pixel_type)]
FieldRequest = Annotated[str, BeforeValidator(_field_request)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(_json_object)]
# Several names: a sequence, or one text with commas.
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
IdList = Annotated[tuple[int, ...] | None, BeforeValidator(_unique)]
MetadataChannels = Annotated[tuple[MetadataChannel, ...], BeforeValidator(_metadata_channels)]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"] | None, BeforeValidator(_level_name)
]
StatsKind = Literal["receiver", "publisher", "queue", "metadata", "processor", "user", "all"]
STATS_KINDS: tuple[str, ...] = get_args(StatsKind)
StatsKinds = Annotated[tuple[StatsKind, ...], BeforeValidator(_stats_kinds)]
