"""What a source sends first and last is repaired, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.repair.links import Link, N, audit_of, ids_in
from tests.support import Commands, Program, status, wait_until

STAGES = pytest.mark.parametrize("stage", ["writer", "collector"])


class Chain:
    """A writer that repairs, or a collector that repairs before a writer that does not."""

    def __init__(
        self, commands: Commands, source: Link, prefix: str, folder: Path, stage: str
    ) -> None:
        self._commands, self._source, self._prefix, self._folder = commands, source, prefix, folder
        self._stage = stage
        self.programs: list[Program] = []
        if stage == "collector":
            self.programs.append(commands(
                "collector", "-ic", source.channel, "-pid", "1", "-oc", f"{prefix}gathered",
                *self._options(stage, repair=True), **source.found_at,
            ))  # fmt: skip
            self.programs.append(commands(
                "write", "-ic", f"{prefix}gathered", "-o", folder / "out.h5",
                *self._options("writer"),
            ))  # fmt: skip
        else:
            self.programs.append(commands(
                "write", "-ic", source.channel, "-o", folder / "out.h5",
                *self._options(stage, repair=True), **source.found_at,
            ))  # fmt: skip
        for name in dict.fromkeys((stage, "writer")):
            wait_until(lambda name=name: self._has_received(name))

    def _options(self, name: str, repair: bool = False) -> list[object]:
        options = ["-dc", "-sc", f"{self._prefix}{name}", "--ledger", self._folder / f"{name}.json"]
        return [*options, "--repair", "--drain-timeout", 30, "-sqs", 20] if repair else options

    def _has_received(self, name: str) -> bool:
        """Whether a stage has received the opening object."""
        found = status(f"{self._prefix}{name}")
        counted = found.get("producerStats_1", found).get("receiverStats", {})
        return counted.get("nReceived", 0) > 0

    def ends_complete(self, *others: Program) -> None:
        """End all, and see that all frames are in the file."""
        for program in (*self.programs, *others, self._source.source):
            program.signal()
            assert program.wait() == 0, program.text
        assert sorted(ids_in(self._folder / "out.h5")) == list(range(1, N + 1))
        names = dict.fromkeys(("sim", self._stage, "writer"))
        code, text = audit_of(self._commands, *(self._folder / f"{name}.json" for name in names))
        assert code == 0, text


@STAGES
def test_a_connection_that_is_cut_before_the_first_object(
    commands: Commands, link: Callable[..., Link], prefix: str, tmp_path: Path, stage: str
) -> None:
    # The source begins when another stage is there.
    source = link("--keep-past", 100, "--wait-for-stages", f"{prefix}another")
    chain = Chain(commands, source, prefix, tmp_path, stage)
    source.proxy.cut()
    another = commands("consumer", "-ic", source.channel, "-sc", f"{prefix}another", "-dc")
    wait_until(lambda: source.newest() >= 100)
    source.proxy.mend()
    wait_until(lambda: source.newest() == N)
    chain.ends_complete(another)


@STAGES
def test_a_source_that_drops_what_it_sent_last(
    commands: Commands, link: Callable[..., Link], prefix: str, tmp_path: Path, stage: str
) -> None:
    source = link(
        "--keep-past", 100, "--pva-overflow", "drop-newest", "--wait-for-stages", f"{prefix}writer"
    )
    chain = Chain(commands, source, prefix, tmp_path, stage)
    wait_until(lambda: source.newest() >= N // 2)
    source.proxy.stall()
    wait_until(lambda: source.newest() == N)
    source.proxy.mend()
    chain.ends_complete()
