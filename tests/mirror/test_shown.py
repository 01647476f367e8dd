"""What a source shows, behind a mirror: random runs against the truth."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pvaccess as pva
import pytest

from pvapy_stream.accounting.audit_result import audit
from pvapy_stream.accounting.ledger import union
from pvapy_stream.mirror.mirror_channel import MirrorChannel
from pvapy_stream.settings import MirrorSettings
from pvapy_stream.settings.channel_map import MirrorEntry
from pvapy_stream.transport.memory_mode import MemoryReceiver
from pvapy_stream.transport.ports import Return
from tests.hpc.shown import Member, Source
from tests.support import rounds


class Mirrored:
    """A mirror that follows the source, and members that share what it publishes."""

    def __init__(self, draw: random.Random, server: pva.PvaServer, seed: int) -> None:
        name = f"mirror{seed}"
        self._channel = MirrorChannel(
            MirrorEntry(name, "source", "memory"), 1,
            MirrorSettings.of(channel_map=f"({name},source)"), server, "memory",
        )  # fmt: skip
        self.connected = False
        self._process = 0
        self.members = [
            Member(number, n) for n in (draw.choice((1, 2, 3)),) for number in range(1, n + 1)
        ]
        self.losing = draw.choice((0.0, 0.1))
        self._draw = draw
        # What its members follow.
        self.output = Source(True, self.members)
        self.output.process = 1
        self.published: list[tuple[int, int]] = []
        self._receiver = MemoryReceiver(name)
        self._receiver.start(self._on_published)
        for one in self.members:
            self.output.connect(one)

    def connect(self, source: Source) -> None:
        before, self._process = self._process, source.process
        self.connected = True
        how = Return(anew=before != source.process) if before else None
        self._channel._take_current(0, source.object(source.newest), how)

    def take(self, obj: Any) -> None:
        channel = self._channel
        with channel._lock:
            channel._pass_on(obj, obj["uniqueId"])

    def _on_published(self, obj: Any) -> None:
        self.published.append((obj["process"], obj["uniqueId"]))
        if self._draw.random() >= self.losing:
            self._draw.choice(self.members).take(obj)

    def stop(self) -> None:
        self._receiver.stop()
        self._channel.stop()

    def ledgers(self) -> list[Any]:
        for one in self.members:
            one.stage.finish()
            for ledger in one.stage.account.ledgers:
                ledger.input_channel = self._channel.ledger.output_channel
        return [
            *self._channel.ledgers(),
            *(ledger for one in self.members for ledger in one.stage.account.ledgers),
        ]


@pytest.fixture
def server() -> Iterator[pva.PvaServer]:
    made = pva.PvaServer()
    yield made
    made.stop()


@pytest.mark.parametrize("first", range(0, rounds(150), 75))
def test_what_a_mirror_does_not_pass_on_is_named(server: pva.PvaServer, first: int) -> None:
    for seed in range(first, first + 75):
        draw = random.Random(seed)
        mirror = Mirrored(draw, server, seed)
        source = Source(draw.random() < 0.5, [mirror])
        losing, leaving = draw.choice((0.0, 0.05, 0.3)), draw.choice((0.0, 0.1))
        for _ in range(draw.randrange(1, 5)):
            source.start()
            for _ in range(draw.choice((0, 0, 1, 3))):
                source.send(False)
            if draw.random() < 0.8:
                source.connect(mirror)
            for _ in range(draw.choice((0, 1, 3, 10))):
                mirror.connected = mirror.connected and draw.random() >= leaving
                source.send(draw.random() < losing)
                if draw.random() < 0.3:
                    source.connect(mirror)
        result = audit(mirror.ledgers())
        mirror.stop()
        published = mirror.published
        assert len(published) == len(set(published)), seed
        assert not [one for one in published if one[1] == 0], seed
        taken = [one for member in mirror.members for one in member.processor.taken]
        assert len(taken) == len(set(taken)), seed
        assert not set(taken) - set(published), seed
        found = {channel.channel: channel.subscribers for channel in result.channels}
        (before,) = found.get("source", (None,))
        if before is None:
            assert not source.gone(published)
            continue
        named = union([before.lost, before.unknown, before.unprocessed])
        skipped = union(
            stage.ledger.skipped for stage in result.stages if stage.ledger.stage == "mirror"
        )
        gone = {value for _, value in source.gone(published)}
        assert not gone - set(named | skipped), (seed, gone, result.verdict)
        if gone - set(skipped):
            assert not result.ok, (seed, result.verdict)
        lost = {value for _, value in set(published) - set(taken)}
        (behind,) = found[f"mirror{seed}"]
        # One id alone, of one source and then of the next, looks like a repeat behind the mirror.
        again = set(union(stage.ledger.duplicate for stage in result.stages))
        assert lost <= set(behind.lost) <= lost | again, (seed, lost, result.verdict)
        if not set(source.sent) - set(taken) and not again:
            assert result.ok, (seed, result.verdict)
