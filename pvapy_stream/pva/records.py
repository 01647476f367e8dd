"""Structures of the control and status channels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pvaccess as pva

_RATES = pva.DOUBLE
_LONGEST_TEXT = 1024  # bytes

RECEIVER = {
    "nReceived": pva.ULONG, "receivedRate": _RATES, "nRejected": pva.ULONG, "rejectedRate": _RATES,
    "nErrors": pva.ULONG, "errorRate": _RATES, "nOverruns": pva.ULONG, "overrunRate": _RATES,
}  # fmt: skip
PUBLISHER = {
    "nPublished": pva.ULONG,
    "publishedRate": _RATES,
    "nErrors": pva.ULONG,
    "errorRate": _RATES,
    "nRejected": pva.ULONG,
    "rejectedRate": _RATES,
}
QUEUE = {
    "nReceived": pva.ULONG,
    "nRejected": pva.ULONG,
    "nDelivered": pva.ULONG,
    "nQueued": pva.ULONG,
}
PROCESSOR = {
    "runtime": pva.DOUBLE, "startTime": pva.DOUBLE, "endTime": pva.DOUBLE,
    "receivingTime": pva.DOUBLE, "firstObjectTime": pva.DOUBLE, "lastObjectTime": pva.DOUBLE,
    "firstObjectId": pva.LONG, "lastObjectId": pva.LONG,
    "nProcessed": pva.ULONG, "processedRate": _RATES, "nErrors": pva.ULONG, "errorRate": _RATES,
    "nMissed": pva.ULONG, "missedRate": _RATES,
    # Dropped on purpose; initial updates and repeats that were not processed.
    "nFiltered": pva.ULONG, "nSkipped": pva.ULONG,
    # Came more than once; lie in jumps of ids, of which nothing is known.
    "nDuplicates": pva.ULONG, "nUnknown": pva.ULONG,
    # How often ids went back.
    "nEpochs": pva.ULONG,
}  # fmt: skip


COLLECTOR = {
    "nCollected": pva.ULONG, "collectedRate": _RATES, "nRejected": pva.ULONG,
    "rejectedRate": _RATES, "nMissed": pva.ULONG, "missedRate": _RATES, "nCached": pva.ULONG,
}  # fmt: skip
_COMMON = {
    "state": pva.STRING, "restarts": pva.UINT, "message": pva.STRING, "objectId": pva.LONG,
    "objectTime": pva.DOUBLE, "objectTimestamp": pva.PvTimeStamp(),
    # For those who look at a chain: where to the stage sends, and where it takes commands.
    "outputChannel": pva.STRING, "controlChannel": pva.STRING,
}  # fmt: skip
METADATA = {
    "producerId": pva.UINT, "channel": pva.STRING, "receiverStats": RECEIVER, "queueStats": QUEUE,
    # Waiting, connected or disconnected; objects with a value of it and without, and the share of
    # those that have one.
    "state": pva.STRING, "nWith": pva.ULONG, "nWithout": pva.ULONG, "coverage": pva.DOUBLE,
}  # fmt: skip
LATENCY = {
    "n": pva.ULONG, "sum": pva.DOUBLE, "p50": pva.DOUBLE, "p90": pva.DOUBLE, "p99": pva.DOUBLE,
    "max": pva.DOUBLE,
}  # fmt: skip


def control_type(id_field: str) -> dict[str, Any]:
    """Structure of a control channel; `id_field` is consumerId or collectorId."""
    return {
        id_field: pva.UINT,
        "objectTime": pva.DOUBLE,
        "objectTimestamp": pva.PvTimeStamp(),
        "command": pva.STRING,
        "args": pva.STRING,
        "statusMessage": pva.STRING,
    }


def consumer_status_type(user_types: dict[str, Any], n_metadata: int = 0) -> dict[str, Any]:
    """Structure of a consumer's status channel; the users' own statistics come last."""
    return {
        "consumerId": pva.UINT,
        "inputChannel": pva.STRING,
        **_COMMON,
        "receiverStats": RECEIVER,
        "publisherStats": PUBLISHER,
        "queueStats": QUEUE,
        "processorStats": PROCESSOR,
        "latencyStats": LATENCY,
        **_last(user_types, n_metadata),
    }


def collector_status_type(
    user_types: dict[str, Any], producers: Sequence[int], n_metadata: int = 0
) -> dict[str, Any]:
    """Structure of a collector's status channel, with statistics of each producer."""
    return {
        "collectorId": pva.UINT,
        "inputChannel": pva.STRING,
        **_COMMON,
        "collectorStats": COLLECTOR,
        "publisherStats": PUBLISHER,
        "queueStats": QUEUE,
        "processorStats": PROCESSOR,
        "latencyStats": LATENCY,
        **{
            f"producerStats_{number}": {
                "producerId": pva.UINT,
                "channel": pva.STRING,
                "receiverStats": RECEIVER,
                "queueStats": QUEUE,
            }
            for number in producers
        },
        **_last(user_types, n_metadata),
    }


def program_status_type(id_field: str, own: dict[str, Any]) -> dict[str, Any]:
    """Structure of the status channel of a program that is no stage, such as a buffer.

    What it shares with consumers has their names, so that whoever reads one reads the other.

    Args:
        id_field: bufferId or writerId.
        own: what it has besides.
    """
    return {
        id_field: pva.UINT,
        "inputChannel": pva.STRING,
        **_COMMON,
        "receiverStats": RECEIVER,
        "publisherStats": PUBLISHER,
        "queueStats": QUEUE,
        "processorStats": PROCESSOR,
        "latencyStats": LATENCY,
        **own,
    }


def _last(user_types: dict[str, Any], n_metadata: int) -> dict[str, Any]:
    metadata = {f"metadataStats_{number}": METADATA for number in range(1, n_metadata + 1)}
    # A structure without fields cannot be served.
    return {**metadata, **({"userStats": user_types} if user_types else {})}


def bounded(text: str) -> str:
    """A text of 1 kB at most, as fields of channels hold it; what is cut off shows as "…"."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) > _LONGEST_TEXT:
        kept = _LONGEST_TEXT - len("…".encode())
        return encoded[:kept].decode("utf-8", "ignore") + "…"
    return encoded.decode()


def time_fields(now: float | None = None) -> dict[str, Any]:
    """ObjectTime and objectTimestamp of a status or reply."""
    now = time.time() if now is None else now
    return {"objectTime": now, "objectTimestamp": pva.PvTimeStamp(now)}
