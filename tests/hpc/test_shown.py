"""What a source shows is no frame, and hides none: random runs against the truth."""

from __future__ import annotations

import random

import pytest

from pvapy_stream.accounting.audit_result import AuditResult, audit
from pvapy_stream.accounting.ledger import union
from tests.hpc.shown import Member, Source
from tests.support import rounds


def run(seed: int) -> tuple[Source, list[Member], AuditResult]:
    """A run, and its audit without a ledger of the source."""
    draw = random.Random(seed)
    n = draw.choice((1, 2, 3))
    members = [Member(number, n) for number in range(1, n + 1)]
    source = Source(draw.random() < 0.5, members)
    losing, leaving = draw.choice((0.0, 0.05, 0.3)), draw.choice((0.0, 0.1))
    for _ in range(draw.randrange(1, 5)):
        source.start()
        for _ in range(draw.choice((0, 0, 1, 3))):
            source.send(False)
        for one in draw.sample(members, draw.choice((n, n, draw.randint(0, n)))):
            source.connect(one)
            for _ in range(draw.choice((0, 0, 1, 2, 4))):
                source.send(draw.random() < losing)
        for _ in range(draw.choice((0, 1, 3, 10))):
            if draw.random() < leaving:
                draw.choice(members).connected = False
            source.send(draw.random() < losing)
            if draw.random() < 0.3:
                for one in members:
                    source.connect(one)
    newest = source.newest if draw.random() < 0.5 else None
    if newest is not None and any(one.connected for one in members):
        source.known[source.process] = newest
    for one in members:
        one.stage.finish(newest if one.connected else None)
    return source, members, audit([led for one in members for led in one.stage.account.ledgers])


@pytest.mark.parametrize("first", range(0, rounds(200), 100))
def test_what_nobody_has_is_named(first: int) -> None:
    for seed in range(first, first + 100):
        source, members, result = run(seed)
        taken = [one for member in members for one in member.processor.taken]
        assert len(taken) == len(set(taken)), seed
        assert not [one for one in taken if one[1] == 0], seed
        lost = source.gone(taken)
        subscribers = [one for channel in result.channels for one in channel.subscribers]
        named = union(
            ids for one in subscribers for ids in (one.lost, one.unknown, one.unprocessed)
        )
        skipped = union(stage.ledger.skipped for stage in result.stages)
        gone = {value for _, value in lost}
        assert not gone - set(named | skipped), (seed, lost, result.verdict)
        if gone - set(skipped):
            assert not result.ok, (seed, lost)
        false = set(union(one.lost for one in subscribers)) - {
            value for _, value in set(source.sent) - set(taken)
        }
        assert not false, (seed, false, result.verdict)
        if not set(source.sent) - set(taken):
            assert result.ok, (seed, result.verdict)
