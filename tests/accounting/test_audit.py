"""The audit finds every id without a fate, and tells between which stages it went."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pvapy_stream.accounting.audit_result import AuditResult, audit
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger

N = 100


def sim(ids: Iterable[int] = range(1, N + 1), channel: str = "a") -> Ledger:
    return Ledger("sim", 0, output_channel=channel, published=IdSet(ids))


def stage(
    ids: Iterable[int],
    stage_id: int = 1,
    channel: str = "a",
    out: str = "",
    kind: str = "consumer",
    skipped: Iterable[int] = (0,),
    **other: Any,
) -> Ledger:
    """A stage that processed these ids, and passed them on."""
    got, first = list(ids), list(skipped)
    return Ledger(
        kind,
        stage_id,
        channel,
        out,
        received=IdSet([*first, *got]),
        processed=IdSet(got),
        skipped=IdSet(first),
        published=IdSet(got if out else []),
        **other,
    )


def failed(result: AuditResult, *words: str) -> None:
    assert not result.ok
    assert "FAILED: " in result.verdict
    for word in words:
        assert word in result.verdict


def test_chain() -> None:
    result = audit(
        [
            sim(),
            stage(range(1, N + 1), kind="mirror", out="b"),
            stage(range(1, N + 1, 2), 1, "b", group="g"),
            stage(range(2, N + 1, 2), 2, "b", group="g"),
        ]
    )
    assert result.verdict == "audit: published 100, processed 100, missed 0, without a fate 0: OK"
    assert result.notes == ()
    assert [c.subscribers[0].name for c in result.channels] == [
        "mirror 1",
        "group g (consumer 1, consumer 2)",
    ]


def test_lost_id_is_told_with_its_place() -> None:
    ids = [k for k in range(1, N + 1) if k not in (7, 8)]
    result = audit([sim(), stage(ids, missed=IdSet([7]))])
    failed(result, "2 ids: 7-8 lost between sim 0 and consumer 1 on channel a (1 noted as missed)")
    assert result.without_fate == 2
    assert result.missed == 1


def test_received_and_never_heard_of_again() -> None:
    ledger = stage(range(1, N + 1))
    ledger.processed = IdSet(range(1, N))
    failed(audit([sim(), ledger]), f"id {N} received by consumer 1 without a fate")


def test_independent_subscribers_need_everything_each() -> None:
    result = audit([sim(), stage(range(1, 51), 1), stage(range(51, N + 1), 2)])
    failed(result, "51-100 lost between sim 0 and consumer 1", "1-50 lost between sim 0 and cons")
    assert result.processed == N


def test_incarnations_are_one_stage() -> None:
    early, late = stage(range(1, 51)), stage(range(51, N + 1), skipped=[50])
    late.missed = IdSet([3])
    result = audit([sim(), early, late])
    assert result.ok
    assert result.missed == 0
    assert [one.name for one in result.stages] == ["sim 0", "consumer 1"]
    assert audit([sim(), early, stage(range(53, N + 1))]).without_fate == 2


def test_different_groups_share_nothing() -> None:
    parts = [stage(range(k + 1, N + 1, 2), k, group="g") for k in (0, 1)]
    assert audit([sim(), *parts]).ok
    failed(audit([sim(), *parts, stage(range(1, 51), 3, group="h")]), "group h (consumer 3)")


def test_sets() -> None:
    odd, even = range(1, N + 1, 2), range(2, N + 1, 2)

    def of(ids: Iterable[int], number: int, name: str, **other: Any) -> Ledger:
        return stage(ids, number, group="g", client_set=name, **other)

    members = [of(odd, 1, "A"), of(odd, 2, "A"), of(even, 3, "B"), of(even, 4, "B")]
    assert audit([sim(), *members]).ok
    short = [*members[:3], of(range(2, 90, 2), 4, "B")]
    result = audit([sim(), *short])
    failed(result, "lost between sim 0 and consumer 4 of set B")
    assert result.without_fate == 6
    # An initial update comes to a client whoever's turn it is, and it may think of a wrong turn.
    joined = [of(odd, 1, "A", skipped=[2]), of(odd, 2, "A", missed=IdSet([4])), *members[2:]]
    assert audit([sim(), *joined]).ok
    # What no member of a set got is one loss, not one for each.
    both = [members[0], members[1], of(range(4, N + 1, 2), 3, "B", missed=IdSet([2]))]
    assert audit([sim(), *both]).without_fate == 1


def test_clients_without_set_share_beside_sets() -> None:
    third = [range(k, N + 1, 3) for k in (1, 2, 3)]
    members = [
        stage(third[0], 1, group="g", client_set="A"),
        stage(third[0], 2, group="g", client_set="A"),
        stage(third[1], 3, group="g"),
        stage(third[2], 4, group="g"),
    ]
    assert audit([sim(), *members]).ok


def test_drops_have_a_fate_but_not_a_strict_one() -> None:
    ledger = stage(range(1, N - 2))
    ledger.received.add_range(N - 2, N)
    ledger.reject("queue full", N - 2)
    ledger.fail("process: ValueError", N - 1)
    ledger.left.add(N)
    assert audit([sim(), ledger]).ok
    strict = audit([sim(), ledger], strict=True)
    failed(
        strict,
        "id 98 rejected (queue full) by consumer 1",
        "id 99 failed (process: ValueError) by consumer 1",
        "id 100 left at stop by consumer 1",
    )
    again = stage([98, 99, 100])
    assert audit([sim(), ledger, again], strict=True).ok


def test_initial_update_that_was_published_is_a_fate() -> None:
    ledgers = [sim(), stage(range(2, N + 1), skipped=[1])]
    assert audit(ledgers).ok
    failed(audit(ledgers, strict=True), "id 1 skipped as initial update by consumer 1")
    # In a group, another member had it.
    odd, even = range(1, N + 1, 2), range(2, N + 1, 2)
    shared = [stage(odd, 1, group="g"), stage(even, 2, group="g", skipped=[1])]
    assert audit([sim(), *shared], strict=True).ok


def test_initial_update_between_others_was_published_by_a_source_without_ledger() -> None:
    back = stage([1, *range(52, N + 1)], group="g", skipped=[51])
    other = stage(range(2, 51), 2, group="g")
    failed(
        audit([back, other], strict=True),
        "id 51 skipped as initial update by group g (consumer 1, consumer 2)",
    )
    assert audit([back, stage(range(2, 52), 2, group="g")], strict=True).ok
    # What was shown before all others, or is left from an earlier run, may be old.
    assert audit([stage(range(2, N + 1), skipped=[1, 2 * N])], strict=True).ok


def test_what_arrived_more_than_once_is_named() -> None:
    result = audit([sim(), stage(range(1, N + 1), duplicate=IdSet([7, 8]))])
    assert "consumer 1: 2 ids: 7-8 arrived more than once" in result.notes
    assert result.ok


def test_ends_of_the_chain_and_sources_without_ledger() -> None:
    result = audit([stage(range(1, N + 1), out="b")])
    assert result.ok
    assert "source without ledger: a" in result.notes[0]
    assert (result.published, result.processed) == (N, N)
    assert result.channels[0].subscribers == ()
    assert audit([sim()]).ok
    assert audit([]).ok


def test_objects_without_ids_are_noted() -> None:
    mirror = Ledger("mirror", 1, "a", "b", anonymous=50)
    result = audit([sim(), mirror])
    assert result.ok
    assert "mirror 1: not audited, its 50 objects have no ids" in result.notes
    # A mirror that never got anything has lost it all.
    failed(audit([sim(), Ledger("mirror", 1, "a", "b")]), "1-100 lost between sim 0 and mirror 1")


def test_a_stage_with_several_inputs() -> None:
    producers = [stage(range(k, N + 1, 2), k, out=f"b{k}", group="g") for k in (1, 2)]
    collector = stage(range(1, N + 1), kind="collector", channel="b1,b2")
    assert audit([sim(), *producers, collector]).ok
    collector.received = collector.processed = IdSet(range(1, N))
    failed(audit([sim(), *producers, collector]), "id 100 lost between consumer 2 and collector 1")
