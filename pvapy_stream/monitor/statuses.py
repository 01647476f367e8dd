"""What the states and counts of programs mean for those who look at them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

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
    "received", "processed", "filtered", "skipped", "published", "queued", "missed", "repaired",
    "unknown",    "duplicates", "rejected", "errors",
)  # fmt: skip
LOSSES = frozenset({"missed", "unknown", "rejected", "errors"})
# Columns that are shown only where there are any.
RARE = frozenset({"skipped", "unknown", "duplicates", "repaired"})


def tone_of(state: str) -> Tone:
    """Whether a state is good, bad, one to look at (warn), an end that was meant, or none of it."""
    return _TONE_OF.get(state, "")


def shown_counts(all_counts: Iterable[Mapping[str, float]]) -> list[str]:
    """The columns of a table of stages with these counts."""
    found = list(all_counts)
    return [name for name in COUNTS if name not in RARE or any(one.get(name) for one in found)]
