"""What one run does: a chain of programs and its faults, all from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

# Kinds of runs. "calm" has no fault at all, and must lose nothing.
KINDS = (
    "calm", "kill", "pause", "term", "interrupt", "mixed", "source-kill", "disk-full",
    "file-limit", "cut", "stall", "puts", "damaged", "filter", "filter-kill", "irregular", "jump",
    "far", "again",
)  # fmt: skip
# Between the programs: what they publish with, and what they receive with.
TRANSPORTS = {
    "pva": ("pvas", "pva"),
    "shm": ("shm", "shm"),
    "auto": ("both", "auto"),
    "both": ("both", "pva"),
    "put": ("pva", "pvas"),
    "rpc": ("rpc", "rpc"),
}
REMOTE = ("put", "rpc")
_SIGNALS = {
    "kill": "kill", "filter-kill": "kill", "source-kill": "kill", "pause": "pause", "term": "term",
    "interrupt": "interrupt", "puts": "puts", "cut": "cut", "stall": "stall",
}  # fmt: skip
# Bytes. On a disk, the writer keeps two megabytes free, to close its file with.
_LIMITS = {"disk-full": (2_150_000, 3_000_000), "file-limit": (80_000, 500_000)}
_LONGEST = 7  # s; of a stream
_MIXED = ("kill", "pause", "term", "interrupt", "puts")
_ID_KINDS = {"irregular", "jump", "far", "again"}
_OWN = _ID_KINDS | {"source-kill", "damaged"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        after: s after the source has begun.
        what: kill, pause, term, interrupt, puts, cut or stall.
        whom: name of a program; of the proxy's link for cut and stall.
        length: how long it lasts, s.
        child: which of the processes of a program, as a number that is taken modulo.
    """

    after: float
    what: str
    whom: str
    length: float = 0.0
    child: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A run.

    Attributes:
        seed: all follows from this and the kind.
        kind: one of `KINDS`.
        transport: one of `TRANSPORTS`, between the programs.
        own_source: whether the campaign's source publishes, else the simulator.
        source_ledger: whether the campaign's source writes a ledger.
        id_kind: ids of the campaign's source.
        mirror: whether a mirror follows the source.
        consumers: 1 or 2, which share the stream.
        collector: whether a collector gathers what they publish.
        writers: 1 or 2, which share the stream.
        n_frames: frames that the source sends.
        rate: frames/s.
        shm_timeout: limit of a block in shared memory, s.
        disk_limit: bytes of the writer's disk or largest file; 0 for no limit.
        proxied: who receives through the proxy, "" for nobody.
        faults: what happens.
    """

    seed: int
    kind: str
    transport: str
    own_source: bool
    source_ledger: bool
    id_kind: str
    mirror: bool
    consumers: int
    collector: bool
    writers: int
    n_frames: int
    rate: float
    shm_timeout: float
    disk_limit: int = 0
    proxied: str = ""
    faults: tuple[Fault, ...] = ()

    @property
    def stages(self) -> tuple[str, ...]:
        """Programs after the source, in order."""
        return tuple(
            filter(
                None,
                (
                    "mirror" if self.mirror else "",
                    "consumer",
                    "collector" if self.collector else "",
                    "writer",
                ),
            )
        )

    @property
    def filters(self) -> bool:
        """Whether the consumer drops most frames on purpose."""
        return self.kind.startswith("filter")

    @property
    def seconds(self) -> float:
        """How long the source publishes."""
        return self.n_frames / self.rate

    @property
    def accounted(self) -> bool:
        """Whether the source writes a ledger."""
        return self.source_ledger or not self.own_source

    @property
    def command(self) -> str:
        """What does this run again."""
        return f"python -m chaos --runs 1 --seed {self.seed} --kinds {self.kind} --keep"

    def __str__(self) -> str:
        source = f"source ({self.id_kind})" if self.own_source else "sim"
        chain = " > ".join(
            (
                source + ("" if self.accounted else " without ledger"),
                *(
                    stage
                    + ("*2" if (self.consumers if stage == "consumer" else self.writers if
                                stage == "writer" else 1) > 1 else "")
                    for stage in self.stages
                ),
            )
        )  # fmt: skip
        faults = ", ".join(
            f"{f.what} {f.whom} at {f.after:.2f} s" + (f" for {f.length:.1f} s" if f.length else "")
            for f in self.faults
        )
        limit = f", limit {self.disk_limit} bytes" if self.disk_limit else ""
        return (
            f"seed {self.seed}, {self.kind}, {self.transport}: {chain}, {self.n_frames} frames at"
            f" {self.rate:g}/s{limit}" + (f"; {faults}" if faults else "")
        )


def plan(seed: int, kinds: tuple[str, ...] = KINDS) -> Plan:
    """The run of a seed; its kind is one of those given."""
    draw = random.Random(seed)
    kind = draw.choice(kinds)
    # A run is the same whichever other kinds were to choose from.
    draw = random.Random(f"{seed} {kind}")
    transport = draw.choice(tuple(TRANSPORTS))
    if kind in ("cut", "stall"):
        transport = draw.choice(("pva", "both"))
    consumers = draw.choice((1, 2))
    # Long enough for programs to come back while the stream lasts.
    rate = draw.choice((100, 150, 200, 300))
    made = Plan(
        seed=seed,
        kind=kind,
        transport=transport,
        own_source=kind in _OWN or draw.random() < 0.3,
        source_ledger=draw.random() < 0.6,
        id_kind=kind if kind in _ID_KINDS else "plain",
        # A mirror follows PVA only.
        mirror=draw.random() < 0.4,
        consumers=consumers,
        collector=consumers > 1 or draw.random() < 0.2,
        writers=2 if transport not in REMOTE and draw.random() < 0.25 else 1,
        n_frames=50 * draw.randrange(6, rate * _LONGEST // 50),
        rate=float(rate),
        shm_timeout=draw.choice((5.0, 5.0, 0.5)),
        disk_limit=draw.randrange(*_LIMITS[kind]) if kind in _LIMITS else 0,
    )
    if kind in ("cut", "stall"):
        made = replace(made, proxied=draw.choice(_can_be_proxied(made)))
    return replace(made, faults=_faults(draw, made))


def _can_be_proxied(made: Plan) -> list[str]:
    """Stages whose source is one process, which has one address."""
    before = dict(zip(made.stages, ("source", *made.stages), strict=False))
    return [
        stage for stage in made.stages if before[stage] != "consumer" or made.consumers == 1
    ]  # fmt: skip


def _faults(draw: random.Random, made: Plan) -> tuple[Fault, ...]:
    if made.kind != "mixed" and made.kind not in _SIGNALS:
        return ()
    found: list[Fault] = []
    for _ in range(draw.choice((1, 1, 2, 3))):
        what = draw.choice(_MIXED) if made.kind == "mixed" else _SIGNALS[made.kind]
        found.append(
            Fault(
                # Also before the first frame, and after the last.
                after=draw.uniform(-0.2, made.seconds + 0.3),
                what=what,
                whom=_victim(draw, made, what),
                length=draw.uniform(0.2, 1.2) if what in ("pause", "cut", "stall") else 0.0,
                child=draw.randrange(4),
            )
        )
    return tuple(sorted(found, key=lambda fault: fault.after))


def _victim(draw: random.Random, made: Plan, what: str) -> str:
    if what in ("cut", "stall"):
        return made.proxied
    if what == "puts":
        return "all"
    if made.kind == "source-kill":
        return "source"
    return draw.choice((*made.stages, "source") if what == "pause" else made.stages)
