"""Types of settings that are written as text: JSON, id lists, channel lists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BeforeValidator


def _json_object(value: Any) -> Any:
    if value is None or isinstance(value, dict):
        return cast("dict[str, Any]", value or {})
    try:
        value = json.loads(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"is not JSON ({error}); write it like '{{\"key\": 1}}'") from error
    if not isinstance(value, dict):
        raise ValueError(f"must be a JSON object like '{{\"key\": 1}}', not {type(value).__name__}")
    return cast("dict[str, Any]", value)


def parse_id_list(value: Any) -> Any:
    """Ids from ``1,2,5``, ``[1,2,5]`` or ``range(first,last+1[,step])``; nothing is evaluated."""
    if value is None or not isinstance(value, str):
        return value
    text = value.strip()
    if not text:
        return None
    try:
        if text.startswith("range(") and text.endswith(")"):
            ids = list(range(*(int(part) for part in text[len("range(") : -1].split(","))))
        else:
            ids = [int(part) for part in text.strip("[]()").split(",") if part.strip()]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{value!r} is no id list; write 1,2,5 or range(first,last+1[,step])"
        ) from error
    if not ids:
        raise ValueError(f"{value!r} holds no id")
    return ids


def _unique(ids: Any) -> Any:
    ids = parse_id_list(ids)
    if ids is not None and len(set(ids)) != len(ids):
        raise ValueError(f"{list(ids)} names an id twice")
    return ids


@dataclass(frozen=True, slots=True)
class MetadataChannel:
    """A channel whose values accompany the stream."""

    name: str
    provider: Literal["pva", "ca"] = "ca"


def _metadata_channels(value: Any) -> Any:
    if value is None:
        return ()
    if not isinstance(value, str):
        return tuple(value)
    channels: list[MetadataChannel] = []
    for text in filter(None, (part.strip() for part in value.split(","))):
        provider, separator, name = text.rpartition("://")
        if provider not in ("", "pva", "ca") or not name or (separator and not provider):
            raise ValueError(
                f"{text!r} is no metadata channel; write pva://NAME, ca://NAME or NAME (then ca)"
            )
        channels.append(MetadataChannel(name, provider or "ca"))
    return tuple(channels)


def _names(value: Any) -> Any:
    return (
        tuple(filter(None, (part.strip() for part in value.split(","))))
        if isinstance(value, str)
        else value
    )


def lower(value: Any) -> Any:
    """Text in lower case; anything else as it is."""
    return value.lower() if isinstance(value, str) else value


def _level_name(value: Any) -> Any:
    value = lower(value)
    # What `logging` accepts besides.
    return {"warn": "warning", "fatal": "critical"}.get(value, value)


PixelType = Literal[
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"
]
PIXEL_TYPES: tuple[str, ...] = get_args(PixelType)  # fmt: skip
JsonObject = Annotated[dict[str, Any], BeforeValidator(_json_object)]
# Several names: a sequence, or one text with commas.
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
IdList = Annotated[tuple[int, ...] | None, BeforeValidator(_unique)]
MetadataChannels = Annotated[tuple[MetadataChannel, ...], BeforeValidator(_metadata_channels)]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"] | None, BeforeValidator(_level_name)
]
StatsKinds = Annotated[
    tuple[Literal["receiver", "publisher", "queue", "metadata", "processor", "user", "all"], ...],
    BeforeValidator(_names),
]
