"""The structure of control channels, and fields that status channels have too."""

from __future__ import annotations

import time

import pvaccess as pva

_LONGEST_TEXT = 1024  # bytes


def control_type(id_field: str) -> dict[str, object]:
    """Structure of a control channel; `id_field` is consumerId or collectorId."""
    return {
        id_field: pva.UINT,
        "objectTime": pva.DOUBLE,
        "objectTimestamp": pva.PvTimeStamp(),
        "command": pva.STRING,
        "args": pva.STRING,
        "statusMessage": pva.STRING,
    }


def bounded(text: str) -> str:
    """A text of 1 kB at most, as fields of channels hold it; what is cut off shows as "…"."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) > _LONGEST_TEXT:
        kept = _LONGEST_TEXT - len("…".encode())
        return encoded[:kept].decode("utf-8", "ignore") + "…"
    return encoded.decode()


def time_fields(now: float | None = None) -> dict[str, object]:
    """ObjectTime and objectTimestamp of a status or reply."""
    now = time.time() if now is None else now
    return {"objectTime": now, "objectTimestamp": pva.PvTimeStamp(now)}
