"""What one run does: a chain of programs and its faults, all from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

# Kinds of runs. "calm" has no fault at all, and must lose nothing.
_PLAIN_KINDS = (
    "calm", "kill", "pause", "term", "interrupt", "mixed", "source-kill", "disk-full",
    "file-limit", "cut", "stall", "puts", "damaged", "filter", "filter-kill", "irregular", "jump",
    "far", "again",
)  # fmt: skip
_REPAIR = "+repair"
# In these, sources keep what they have published, and stages ask for what they missed.
_REPAIRED = (
    "cut", "stall", "filter", "irregular", "jump", "mixed", "kill", "source-kill", "disk-full",
    "filter-kill", "again",
)  # fmt: skip
KINDS = (*_PLAIN_KINDS, *(kind + _REPAIR for kind in _REPAIRED))
# Of these, all that is missed can be repaired: no frame may be lost.
_COMPLETE = ("cut", "stall", "filter", "irregular", "jump")
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
_LASTING = ("pause", "cut", "stall")
# What stages miss objects by, besides the faults of the kind.
_MISSES = {"cut": ("cut",), "stall": ("stall",)}
_ANY_MISS = ("cut", "cut", "stall", "pause")
_SHORT = 20  # objects; of a queue that a stalled stage makes drop some
_PASTS = (100.0, 100.0, 0.2)  # MB; the last one is too little
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
        keep_past: what each program keeps of what it published, MB.
        queue: of a stage that repairs, in the server of its source; what comes when it is full is
            dropped. 0: it is as long as the run.
        overflow: what is dropped then.
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
    keep_past: float = 0.0
    queue: int = 0
    overflow: str = "block"
    faults: tuple[Fault, ...] = ()

    @property
    def base(self) -> str:
        """The kind, whether objects are repaired or not."""
        return self.kind.removesuffix(_REPAIR)

    @property
    def repairs(self) -> bool:
        """Whether stages ask for what they missed."""
        return self.kind.endswith(_REPAIR)

    @property
    def complete(self) -> bool:
        """Whether all that is missed can be repaired."""
        return self.repairs and self.base in _COMPLETE

    def can_repair(self, stage: str) -> bool:
        """Whether a stage may ask for what it missed; one that shares the stream may not."""
        shares = {"mirror": True, "consumer": self.consumers > 1, "writer": self.writers > 1}
        return self.repairs and not shares.get(stage, False)

    def before(self, stage: str) -> str:
        """The program that a stage receives from."""
        return dict(zip(self.stages, ("source", *self.stages), strict=False))[stage]

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
        if self.repairs:
            queue = f", queues of {self.queue} ({self.overflow})" if self.queue else ""
            limit += f", {self.keep_past:g} MB of the past{queue}"
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
    base, repair, _ = kind.partition(_REPAIR)
    transport = draw.choice(tuple(TRANSPORTS))
    if repair:
        transport = "pva"
    if kind in ("cut", "stall"):
        transport = draw.choice(("pva", "both"))
    consumers = draw.choice((1, 2))
    # Long enough for programs to come back while the stream lasts.
    rate = draw.choice((100, 150, 200, 300))
    made = Plan(
        seed=seed,
        kind=kind,
        transport=transport,
        own_source=base in _OWN or draw.random() < 0.3,
        source_ledger=draw.random() < 0.6,
        id_kind=base if base in _ID_KINDS else "plain",
        # A mirror follows PVA only.
        mirror=draw.random() < 0.4,
        consumers=consumers,
        collector=consumers > 1 or draw.random() < 0.2,
        writers=2 if transport not in REMOTE and draw.random() < 0.25 else 1,
        n_frames=50 * draw.randrange(6, rate * _LONGEST // 50),
        rate=float(rate),
        shm_timeout=draw.choice((5.0, 5.0, 0.5)),
        disk_limit=draw.randrange(*_LIMITS[base]) if base in _LIMITS else 0,
    )
    if kind in ("cut", "stall"):
        made = replace(made, proxied=draw.choice(_can_be_proxied(made)))
    if repair:
        made = _repaired(draw, made)
    return replace(made, faults=_faults(draw, made))


def _can_be_proxied(made: Plan) -> list[str]:
    """Stages whose source is one process, which has one address."""
    return [
        stage for stage in made.stages
        if made.before(stage) != "consumer" or made.consumers == 1
    ]  # fmt: skip


def _repaired(draw: random.Random, made: Plan) -> Plan:
    """A run in which objects are repaired; a stage that can repair is behind the proxy."""
    if made.filters:
        # The proxy does not lead to the channel with the filtered ids.
        made = replace(made, consumers=1)
    if made.consumers > 1:
        made = replace(made, writers=1)
    stages = [one for one in _can_be_proxied(made) if made.can_repair(one)]
    if made.filters:
        stages = ["consumer"]
    short = made.base == "stall" or draw.random() < 0.4
    return replace(
        made,
        proxied=draw.choice(stages),
        keep_past=_PASTS[0] if made.complete else draw.choice(_PASTS),
        queue=_SHORT if short else 0,
        overflow=draw.choice(("drop-newest", "drop-oldest")) if short else "block",
    )


def _faults(draw: random.Random, made: Plan) -> tuple[Fault, ...]:
    repaired = _MISSES if made.repairs else {}
    found = [
        _fault(draw, made, draw.choice(_MISSES.get(made.base, _ANY_MISS)))
        for _ in range(draw.choice((1, 2, 3)) if made.repairs else 0)
    ]
    if made.base == "mixed" or (made.base in _SIGNALS and made.base not in repaired):
        for _ in range(draw.choice((1, 1, 2, 3))):
            what = draw.choice(_MIXED) if made.base == "mixed" else _SIGNALS[made.base]
            found.append(_fault(draw, made, what))
    return tuple(sorted(found, key=lambda fault: fault.after))


def _fault(draw: random.Random, made: Plan, what: str) -> Fault:
    return Fault(
        # Also before the first frame, and after the last.
        after=draw.uniform(-0.2, made.seconds + 0.3),
        what=what,
        whom=_victim(draw, made, what),
        length=draw.uniform(0.2, 1.2) if what in _LASTING else 0.0,
        child=draw.randrange(4),
    )


def _victim(draw: random.Random, made: Plan, what: str) -> str:
    if what in ("cut", "stall"):
        return made.proxied
    if what == "puts":
        return "all"
    if made.base == "source-kill" and what == "kill":
        return "source"
    return draw.choice((*made.stages, "source") if what == "pause" else made.stages)
