"""How soon a consumer processes, and whether a source that starts late loses frames."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.run import (
    OURS,
    PROCESSORS,
    PVAPY,
    SIDES,
    Consumer,
    Simulator,
    Source,
    alternate,
    channel,
    rounds,
    wait_for,
)
from benchmarks.table import Row

_LATE = 8.0  # s
_RATE = 100.0  # frames/s
_FIRST = 200  # frames


def run(quick: bool) -> list[Row]:
    """Seconds to the first processed object; frames lost when the source comes late."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "notes.json"
        with Source(128) as source:
            source.stream(_RATE)
            up = alternate(rounds(quick), lambda side: _first(side, source.channel, file))
        late = {side: _late(side, file, 3.0 if quick else _LATE) for side in SIDES}
    (delay, lost), (pvapy_delay, pvapy_lost) = late[OURS], late[PVAPY]
    start = "start: process to first processed object, source up"
    what = f"source starts {3.0 if quick else _LATE:g} s later"
    sooner = f"{what}: first published to first processed"
    losses = f"{what}: lost of the first {_FIRST} frames"
    return [
        Row(start, "s", up[OURS], up[PVAPY], "< 1.5 s", up[OURS] < 1.5),
        Row(sooner, "s", delay, pvapy_delay, "< 0.5 s", delay < 0.5),
        Row(losses, "frames", lost, pvapy_lost, "0", lost == 0),
    ]


def _consumer(side: str, name: str, file: Path) -> Consumer:
    file.unlink(missing_ok=True)
    arguments = json.dumps({"file": str(file)})
    return Consumer(side, name, "-pf", PROCESSORS[side], "-pc", "Noting", "-pa", arguments)


def _notes(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def _first(side: str, name: str, file: Path) -> float:
    with _consumer(side, name, file) as consumer:
        wait_for(file.exists, 30, f"the first object processed by {side}")
        return _notes(file)["at"] - consumer.started


def _late(side: str, file: Path, late: float) -> tuple[float, float]:
    """Seconds from the first published frame to the first processed one, and lost frames.

    Our source waits for the consumer; pvapy's has no such option, and its start delay is 0.
    """
    seconds = _FIRST / _RATE
    how = {
        OURS: ("--wait-for-clients", 1, "--wait-timeout", 20, "--n-publish", _FIRST),
        PVAPY: ("-std", 0, "-rt", seconds),
    }[side]
    name = channel("late")
    with _consumer(side, name, file) as consumer:
        time.sleep(late)
        with Simulator(side, "-fps", _RATE, "-shd", 3, *how, name=name) as simulator:
            simulator.rate(60)
        consumer.interrupt()
    notes: dict[str, Any] = _notes(file) if file.exists() else {"ids": []}
    lost = _FIRST - sum(1 for frame_id in set(notes["ids"]) if frame_id <= _FIRST)
    if not notes["ids"]:
        return float("inf"), lost
    published = notes["stamp"] - (notes["id"] - 1) / _RATE
    return notes["at"] - published, lost
