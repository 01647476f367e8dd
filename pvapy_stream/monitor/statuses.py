"""What stands in status channels, brought to one form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _is_buffer(status: Mapping[str, Any]) -> bool:
    return "outputSent" in status and "sourceLost" in status


def read_counts(status: Mapping[str, Any]) -> dict[str, float]:
    """Counts in a status of a consumer, a collector or a buffer, ours or the incumbent's."""
    if _is_buffer(status):
        return {
            "received": status["received"],
            "processed": status["received"],
            "published": status["outputSent"],
            "missed": status["sourceLost"],
            # A buffer lets go what is old: that is its work, and no loss.
            "rejected": 0,
            "errors": status["malformed"] + status["readerErrors"],
            "overruns": status["outputLost"],
            "queued": status["outputPending"],
        }
    receivers = [status.get("receiverStats", {})] + [
        value.get("receiverStats", {})
        for name, value in status.items()
        if name.startswith("producerStats_")
    ]
    processor, publisher, queue, collector = (
        status.get(f"{name}Stats", {}) for name in ("processor", "publisher", "queue", "collector")
    )

    def of_receivers(name: str) -> float:
        return sum(receiver.get(name, 0) for receiver in receivers)

    return {
        "received": of_receivers("nReceived"),
        "processed": processor.get("nProcessed", 0),
        "published": publisher.get("nPublished", 0),
        "missed": max(processor.get("nMissed", 0), collector.get("nMissed", 0)),
        # The same objects are counted where they are rejected and where that is told.
        "rejected": max(
            queue.get("nRejected", 0), of_receivers("nRejected"), collector.get("nRejected", 0)
        ),
        "errors": processor.get("nErrors", 0)
        + publisher.get("nErrors", 0)
        + of_receivers("nErrors"),
        "overruns": of_receivers("nOverruns"),
        "queued": queue.get("nQueued", 0) + collector.get("nCached", 0),
    }


def read_facts(status: Mapping[str, Any]) -> dict[str, Any]:
    """State, kind, id, channels, latency, last id, message and the processor's statistics."""
    if _is_buffer(status):
        return {
            "state": status["status"],
            "kind": "buffer",
            "id": 1,
            "inputs": (status["source"],),
            "output": status["output"],
            "last_id": status["newest"],
            "message": status["lastError"],
        }
    kind = next((k for k in ("consumer", "collector") if f"{k}Id" in status), "")
    producers = [
        value.get("channel", "")
        for name, value in status.items()
        if name.startswith("producerStats_")
    ]
    latency = status.get("latencyStats", {})
    return {
        "state": str(status.get("state") or "running"),
        "kind": kind,
        "id": int(status.get(f"{kind}Id", 0)),
        "inputs": tuple(filter(None, producers or [status.get("inputChannel", "")])),
        "output": status.get("outputChannel", ""),
        "control": status.get("controlChannel", ""),
        "latency": (
            {name: latency[name] for name in ("p50", "p90", "p99", "max")}
            if latency.get("n")
            else {}
        ),
        "last_id": int(status.get("objectId", 0)),
        "message": status.get("message", ""),
        "user": status.get("userStats", {}),
    }
