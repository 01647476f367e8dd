"""The command lines of a plan's programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chaos.chain import REMOTE, TRANSPORTS, Plan
from chaos.pixels import pixels_of

_PROCESSORS = Path(__file__).with_name("processors.py")
_QUEUE = 3000  # objects; more than a run has, so that a calm one loses none
_DRAIN = 30  # s; also for a source that has to come back
_FIRST_OF = 1_000_000  # numbers of frames of one process of the source
# A supervisor brings back so many, as the campaign does.
_STARTS = 8

Words = Callable[[int], list[str]]


@dataclass(frozen=True, slots=True)
class Commands:
    """Arguments for the interpreter, from how often a program is started.

    Attributes:
        plan: what is run.
        prefix: of all channel names.
        folder: for ledgers and records.
        disk: for the files of the writer.
    """

    plan: Plan
    prefix: str
    folder: Path
    disk: Path

    @property
    def image(self) -> str:
        """The source's channel."""
        return f"{self.prefix}image"

    @property
    def statuses(self) -> dict[str, list[str]]:
        """Status channels of each stage that has some."""
        p = self.prefix
        return {
            "consumer": [f"{p}status:c{k}" for k in range(1, self.plan.consumers + 1)],
            "collector": [f"{p}status:g"],
            "writer": [f"{p}status:w{k}" for k in range(1, self.plan.writers + 1)],
        }

    @property
    def go(self) -> str:
        """What the simulator waits for: it takes it for the status of a stage that is connected."""
        return f"{self.prefix}go"

    @property
    def unawaited(self) -> list[str]:
        """Status channels of the others, whose inputs are hosted."""
        return [
            name for stage in self.plan.stages for name in self.statuses.get(stage, [])
            if name not in self.awaited
        ]  # fmt: skip

    @property
    def awaited(self) -> list[str]:
        """Status channels of the stages that are shown an opening object, before any frame."""
        stages = ["consumer"] if self.plan.transport in REMOTE else list(self.statuses)
        return [
            name for stage in stages if stage in self.plan.stages for name in self.statuses[stage]
        ]

    @property
    def outputs(self) -> list[str]:
        """Channels that nobody may put into."""
        found = [self.image, f"{self.prefix}mirror"]
        if self.plan.transport not in REMOTE:
            found += [f"{self.prefix}out", f"{self.prefix}out:1", f"{self.prefix}gathered"]
        return [*found, *(name for names in self.statuses.values() for name in names)]

    def of(self, name: str) -> Words:
        """The command of a program."""
        made: dict[str, Callable[[], Words]] = {
            "source": self._source,
            "mirror": self._mirror,
            "consumer": self._consumer,
            "collector": self._collector,
            "writer": self._writer,
        }
        return made[name]()

    def prepare(self) -> None:
        """Write the frames of the simulator."""
        if not self.plan.own_source:
            frames = [pixels_of(number, number) for number in range(1, self.plan.n_frames + 1)]
            np.save(self.folder / "frames.npy", np.stack(frames))

    # -- single ones -----------------------------------------------------------------------------

    def _cli(self, name: str, command: str, *words: object) -> Words:
        if self.plan.keep_past and command != "write":
            words = (
                *words, "--keep-past", self.plan.keep_past, "--pva-overflow", self.plan.overflow,
            )  # fmt: skip

        def made(start: int) -> list[str]:
            ledger = str(self.folder / f"{name}.{start}.ledger.json")
            given = [str(word).replace("{start}", str(start)) for word in words]
            return ["-m", "pvapy_stream.cli.main", command, *given, "--ledger", ledger]

        return made

    def _source(self) -> Words:
        plan = self.plan
        head = "pva" if plan.mirror or plan.transport in ("pva", *REMOTE) else "both"
        mode = "shm" if plan.transport == "shm" and not plan.mirror else head
        if not plan.own_source:
            return self._cli(
                "source", "sim", "-cn", self.image, "-om", mode, "-if", self.folder / "frames.npy",
                "-fps", plan.rate, "--n-publish", plan.n_frames, "-cs", plan.n_frames + 1, "-dc",
                "-rp", 0, "-shd", 120, "-rt", 0, "--wait-for-stages",
                self.go, "--shm-timeout", plan.shm_timeout,
            )  # fmt: skip

        def made(start: int) -> list[str]:
            words = [
                "-m", "chaos.source", self.image, "--mode", mode, "--ids", plan.id_kind, "--n",
                str(plan.n_frames), "--rate", str(plan.rate), "--seed", str(plan.seed),
                "--first-number", str((start - 1) * _FIRST_OF + 1), "--record",
                str(self.folder / f"source.{start}.record"),
            ]  # fmt: skip
            if plan.source_ledger:
                words += ["--ledger", str(self.folder / f"source.{start}.ledger.json")]
            if plan.kind == "damaged":
                words.append("--damage")
            if plan.keep_past:
                words += ["--keep-past", str(plan.keep_past), "--overflow", plan.overflow]
            return [*words, "--go"] if start > 1 else words

        return made

    def _mirror(self) -> Words:
        return self._cli(
            "mirror", "mirror", "-cm", f"({self.prefix}mirror,{self.image},pva,{_QUEUE})"
        )

    def _stage(self, name: str, into: str) -> list[object]:
        plan = self.plan
        words: list[object] = []
        queue = _QUEUE
        if plan.can_repair(name):
            words = ["--repair", "--drain-timeout", _DRAIN]
            queue = plan.queue or _QUEUE
        return [
            "-im", into, "-sqs", queue, "-rqs", 0, "--status-period", 0.3, "-dc",
            "--shm-timeout", plan.shm_timeout, *words,
        ]  # fmt: skip

    def _share(self, n: int, group: str) -> list[object]:
        if n == 1:
            return []
        return ["-nc", n, "-dg", group, "-dt", "uniqueId", "--max-restarts", _STARTS]

    def _consumer(self) -> Words:
        plan = self.plan
        out, into = TRANSPORTS[plan.transport]
        first = f"{self.prefix}mirror" if plan.mirror else self.image
        if plan.mirror or plan.transport in REMOTE:
            into = "pva"
        return self._cli(
            "consumer", "consumer", "-ic", first, *self._stage("consumer", into), "-oc",
            self._middle, "-om", out, "-sc", f"{self.prefix}status:c*", "-pf", _PROCESSORS, "-pc",
            "HitFinder" if plan.filters else "Work", *self._share(plan.consumers, "g"),
        )  # fmt: skip

    @property
    def _middle(self) -> str:
        return f"{self.prefix}out" + (":*" if self.plan.collector else "")

    def _collector(self) -> Words:
        plan = self.plan
        out, into = TRANSPORTS[plan.transport]
        producers = ",".join(str(k) for k in range(1, plan.consumers + 1))
        return self._cli(
            "collector", "collector", "-ic", self._middle, "-pid", producers,
            *self._stage("collector", into), "-oc", f"{self.prefix}gathered", "-om", out, "-sc",
            f"{self.prefix}status:g", "--gap-timeout", 2, "-pf", _PROCESSORS, "-pc", "Gathered",
        )  # fmt: skip

    def _writer(self) -> Words:
        plan = self.plan
        _, into = TRANSPORTS[plan.transport]
        last = f"{self.prefix}gathered" if plan.collector else self._middle
        name = "run.{start}.{processorId}.h5" if plan.writers > 1 else "run.{start}.h5"
        return self._cli(
            "writer", "write", "-ic", last, *self._stage("writer", into), "-o", self.disk / name,
            "-sc", f"{self.prefix}status:w*", *self._share(plan.writers, "w"),
        )  # fmt: skip
