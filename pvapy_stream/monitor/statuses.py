"""What stands in status channels, brought to one form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Tone = Literal["good", "warn", "bad", "over", ""]

# What the state of a program means for who looks at it.
_TONES: dict[Tone, tuple[str, ...]] = {
    "bad": ("failed", "error", "gone"),
    "warn": ("absent", "disconnected", "silent", "paused", "waiting", "draining"),
    "good": ("running", "receiving", "armed", "writing", "finishing"),
    "over": ("stopped", "done"),
}
_TONE_OF: dict[str, Tone] = {state: tone for tone, states in _TONES.items() for state in states}
# Counts of a stage, in the order of tables: received = processed + filtered + skipped + queued +
# rejected + errors, where each error met an object.
COUNTS = (
    "received", "processed", "filtered", "skipped", "published", "queued", "missed", "unknown",
    "duplicates", "rejected", "errors",
)  # fmt: skip
LOSSES = frozenset({"missed", "unknown", "rejected", "errors"})
# Columns that are shown only where there are any.
RARE = frozenset({"skipped", "unknown", "duplicates"})
_KINDS = ("consumer", "collector", "buffer", "writer")


def tone_of(state: str) -> Tone:
    """Whether a state is good, bad, one to look at (warn), an end that was meant, or none of it."""
    return _TONE_OF.get(state, "")


def shown_counts(all_counts: Iterable[Mapping[str, float]]) -> list[str]:
    """The columns of a table of stages with these counts."""
    found = list(all_counts)
    return [name for name in COUNTS if name not in RARE or any(one.get(name) for one in found)]


def read_counts(status: Mapping[str, Any]) -> dict[str, float]:
    """Counts in a status of a stage, a buffer or a writer, ours or the incumbent's."""
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
        "filtered": processor.get("nFiltered", 0),
        "skipped": processor.get("nSkipped", 0),
        "published": publisher.get("nPublished", 0),
        "duplicates": processor.get("nDuplicates", 0),
        "unknown": processor.get("nUnknown", 0),
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
    kind = next((k for k in _KINDS if f"{k}Id" in status), "")
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
        "outputs": tuple(filter(None, status.get("outputChannel", "").split(","))),
        "control": status.get("controlChannel", ""),
        "restarts": int(status.get("restarts", 0)),
        "latency": (
            {name: latency[name] for name in ("p50", "p90", "p99", "max")}
            if latency.get("n")
            else {}
        ),
        "last_id": int(status.get("objectId", 0)),
        "message": status.get("message", ""),
        "user": status.get("userStats", {}),
    }
