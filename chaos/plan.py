"""What one run does: a chain and faults, from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Faults that a run can have. "calm" has none; "filter" drops most frames on purpose.
KINDS = (
    "calm", "kill", "pause", "term", "interrupt", "disk", "puts", "filter", "filter-kill",
    "irregular", "jump", "restart-ids",
)  # fmt: skip
# Kinds whose ids come from a source that is not ours, and writes no ledger.
FOREIGN = frozenset({"irregular", "jump", "restart-ids"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        after: s after the source has begun.
        what: kill, pause, term, interrupt or puts.
        whom: mirror, consumer, collector or writer.
        length: of a pause, s.
    """

    after: float
    what: str
    whom: str
    length: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A run.

    Attributes:
        seed: it follows from this.
        kind: of `KINDS`.
        transport: between the programs: pva, shm or both.
        mirror: whether a mirror follows the source.
        consumers: 1 or 2, which share the stream.
        n_frames: frames that the source sends.
        rate: frames/s.
        faults: what happens.
        disk_limit: largest file of the writer, bytes; 0 for no limit.
    """

    seed: int
    kind: str
    transport: str
    mirror: bool
    consumers: int
    n_frames: int
    rate: float
    faults: tuple[Fault, ...]
    disk_limit: int = 0

    @property
    def stages(self) -> list[str]:
        """Stages after the source."""
        middle = ["consumer", "collector"] if self.consumers > 1 else ["consumer"]
        return [*(["mirror"] if self.mirror else []), *middle, "writer"]

    @property
    def filters(self) -> bool:
        return self.kind.startswith("filter")

    @property
    def foreign(self) -> bool:
        return self.kind in FOREIGN

    def __str__(self) -> str:
        faults = ", ".join(f"{f.what} {f.whom} at {f.after:.1f} s" for f in self.faults)
        return (
            f"seed {self.seed}: {self.kind}, {self.transport}, {' > '.join(self.stages)}, "
            f"{self.consumers} consumers, {self.n_frames} frames at {self.rate:g}/s"
            + (f"; {faults}" if faults else "")
        )


def plan(seed: int, kind: str = "") -> Plan:
    """The run of a seed; of a kind, if one is given."""
    draw = random.Random(seed)
    chosen = draw.choice(KINDS)
    kind = kind or chosen
    transport = draw.choice(("pva", "shm", "both"))
    # A mirror monitors PVA, and so does whoever follows a source that is not ours.
    mirror = transport != "shm" and draw.random() < 0.5
    consumers = draw.choice((1, 2))
    n_frames, rate = draw.randrange(300, 700, 50), draw.choice((200.0, 300.0, 400.0))
    made = Plan(seed, kind, transport, mirror, consumers, n_frames, rate, ())
    return Plan(
        seed, kind, transport, mirror, consumers, n_frames, rate, _faults(draw, made),
        draw.randrange(60_000, 400_000) if kind == "disk" else 0,
    )  # fmt: skip


def _faults(draw: random.Random, made: Plan) -> tuple[Fault, ...]:
    length = made.n_frames / made.rate
    what = "kill" if made.kind == "filter-kill" else made.kind
    if what not in ("kill", "pause", "term", "interrupt", "puts"):
        return ()
    return tuple(
        Fault(
            draw.uniform(0.1, length), what, draw.choice(made.stages), draw.uniform(0.2, 1.0)
        )
        for _ in range(draw.choice((1, 1, 2)))
    )  # fmt: skip
