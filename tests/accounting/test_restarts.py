"""The account is never wrong in the comfortable direction: kills, restarts, odd ids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.audit_result import audit
from pvapy_stream.accounting.bags import ascending, excess, layers
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger


def ids(*ranges: tuple[int, int]) -> IdSet:
    found = IdSet()
    for first, last in ranges:
        found.add_range(first, last)
    return found


def source(published: IdSet, **other: Any) -> Ledger:
    return Ledger("sim", output_channel="a", published=published, **other)


def stage(processed: IdSet, out: str = "", **other: Any) -> Ledger:
    return Ledger(
        "consumer", 1, other.pop("channel", "a"), out, received=processed | ids(),
        processed=processed | ids(), published=processed if out else IdSet(), **other,
    )  # fmt: skip


def failures(ledgers: Iterable[Ledger]) -> str:
    result = audit(ledgers)
    assert not result.ok
    return result.verdict


def test_multiplicities() -> None:
    assert layers([ids((1, 5)), ids((3, 8)), ids((4, 4))]) == [
        ids((1, 8)),
        ids((3, 5)),
        ids((4, 4)),
    ]
    assert excess([ids((1, 5)), ids((3, 8))], [ids((1, 8))]) == ids((3, 5))
    assert not excess([], [ids((1, 2))])
    assert layers([]) == []
    assert ascending([1, 2, 5, 5, 1, 2]) == [ids((1, 2), (5, 5)), ids((5, 5)), ids((1, 2))]


def test_results_that_nobody_published() -> None:
    text = failures([source(ids((1, 10))), stage(ids((1, 10), (987654, 987654)))])
    assert "id 987654 processed by consumer 1 more often than sim 0 published" in text


def test_a_frame_twice_in_a_group() -> None:
    first = stage(ids((1, 5)), group="g")
    second = Ledger("consumer", 2, "a", group="g", received=ids((5, 10)), processed=ids((5, 10)))
    assert "id 5 processed by group g" in failures([source(ids((1, 10))), first, second])


def test_a_publisher_that_repeats_ids_explains_them() -> None:
    tiles = source(ids((1, 5)), repeated=ids((1, 5)))
    again = stage(ids((1, 5)), incarnation=2)
    assert audit([tiles, stage(ids((1, 5))), again]).ok


def test_what_lies_between_two_processes_is_unknown_without_the_ledger_of_the_source() -> None:
    killed = stage(ids((1, 40)), closed=False)
    after = stage(ids((61, 100)), incarnation=2)
    text = failures([killed, after])
    assert "20 ids: 41-60 unknown" in text
    assert "source without ledger: a" in audit([killed, after]).notes[0]
    # The source's ledger decides: these were published, or they were not.
    assert "20 ids: 41-60 lost between sim 0" in failures([source(ids((1, 100))), killed, after])
    assert audit([source(ids((1, 40), (61, 100))), killed, after]).ok


def test_what_members_of_a_group_received_meanwhile_is_known() -> None:
    killed = stage(ids((1, 1), (3, 3)), group="g", closed=False)
    after = stage(ids((7, 7), (9, 9)), group="g", incarnation=2)
    other = IdSet(range(2, 11, 2))
    second = Ledger("consumer", 2, "a", group="g", received=other, processed=other)
    assert "id 5 unknown" in failures([killed, after, second])


def test_a_process_without_a_ledger_is_told() -> None:
    text = failures([stage(ids((50, 100)), incarnation=2)])
    assert "the ledger of its process 1 is missing" in text


def test_a_killed_stage_that_did_not_come_back() -> None:
    assert "was killed after id 40" in failures([stage(ids((1, 40)), closed=False)])
    empty = Ledger("consumer", 1, "a", closed=False)
    assert "was killed before it received any id" in failures([empty])


def test_missed_ids_of_a_source_without_ledger_are_losses() -> None:
    assert "id 5 lost between a source without ledger" in failures(
        [stage(ids((1, 4), (6, 10)), missed=ids((5, 5)))]
    )


def test_a_killed_source() -> None:
    killed = source(ids((1, 80)), closed=False)
    receiver = stage(ids((1, 89), (91, 95)), missed=ids((90, 90)))
    assert "id 90 lost" in failures([killed, receiver])


def test_a_stage_that_ended_and_was_started_again_was_away_in_between() -> None:
    first, second = stage(ids((1, 1194))), stage(IdSet(), started=2.0)
    second.received.add(1300)
    second.skipped.add(1300)
    assert "105 ids: 1195-1299 unknown" in failures([first, second])


def test_a_killed_source_that_starts_again_leaves_open_what_it_published() -> None:
    # The first process published to 67, the second from 1 to 95; its first 9 were lost.
    killed = [source(ids((1, 52)), closed=False), source(IdSet(), incarnation=2, closed=False)]
    last = source(ids((1, 300)), incarnation=3)
    arrived = [
        stage(ids((1, 67))), stage(ids((10, 95)), epoch=2), stage(ids((16, 300)), epoch=3),
    ]  # fmt: skip
    text = failures([*killed, last, *arrived])
    assert "sim 0 was killed after id 52" in text
    assert "sim 0 was killed before it published any id" in text
    assert text.count("known only from its receivers") == 2


def test_ids_that_start_again_have_an_account_of_their_own() -> None:
    first, second = source(ids((1, 100))), source(ids((1, 100)), incarnation=2)
    one = stage(ids((1, 100)))
    short = stage(ids((1, 39), (60, 100)), epoch=2)
    text = failures([first, second, one, short])
    assert "20 ids: 40-59 lost between sim 0 and consumer 1" in text
    whole = audit([first, second, one, stage(ids((1, 100)), epoch=2)])
    assert whole.verdict.startswith("audit: published 200, processed 200, missed 0")
    assert whole.ok
    assert whole.restarts == 1


def test_an_initial_update_of_a_later_epoch_hides_no_loss() -> None:
    first, second = source(ids((1, 10))), source(ids((1, 10)), incarnation=2)
    later = stage(ids((4, 10)), epoch=2)
    later.received.add(3)
    later.skipped.add(3)
    assert "3 ids: 1-3 lost" in failures([first, second, stage(ids((1, 10))), later])


def test_filtered_ids_are_no_losses() -> None:
    finder = stage(ids((3, 3), (8, 8)), out="b", filtered=ids((1, 2), (4, 7), (9, 10)))
    finder.received = ids((1, 10))
    # Whoever comes after, and did not hear of it, may think they are missed.
    writer = stage(ids((3, 3), (8, 8)), channel="b", missed=ids((4, 7)))
    result = audit([source(ids((1, 10))), finder, writer])
    assert result.verdict == (
        "audit: published 10, processed 2, filtered 8, missed 0, without a fate 0: OK"
    )
    assert result.to_dict()["stages"][1]["filtered"] == [[1, 2], [4, 7], [9, 10]]


def test_what_was_dropped_on_purpose_twice_or_never_sent_is_named() -> None:
    first = stage(ids(), group="g", filtered=ids((1, 5)))
    second = Ledger("consumer", 2, "a", group="g", filtered=ids((5, 10), (99, 99)))
    for one in (first, second):
        one.received = one.filtered | ids()
    text = failures([source(ids((1, 10))), first, second])
    assert "2 ids: 5,99 processed by group g (consumer 1, consumer 2) more often than sim 0" in text


def test_what_a_source_without_ledger_sent_again_while_nobody_listened_is_unknown() -> None:
    before = stage(ids((1, 500)))
    after = stage(ids((38, 300)), epoch=2, unknown=ids((1, 37)))
    text = failures([before, after])
    assert "37 ids: 1-37 unknown: it cannot be known whether they were sent on channel a" in text
    # What it showed when it came back, nobody took.
    after.received.add(37)
    after.skipped.add(37)
    assert "37 ids: 1-37 unknown" in failures([before, after])
    # Others of the group were back earlier: what none of them has is unknown.
    first, second = stage(ids((1, 500)), group="g"), stage(ids((38, 300)), epoch=2, group="g")
    second.unknown = ids((1, 37))
    others = [
        Ledger("consumer", 2, "a", group="g", received=some, processed=some, epoch=epoch)
        for epoch, some in ((1, ids((501, 600))), (2, ids((11, 37))))
    ]
    others[1].unknown = ids((1, 10))
    assert "10 ids: 1-10 unknown" in failures([first, second, *others])


def test_what_was_missed_in_one_epoch_is_not_found_in_another() -> None:
    first = stage(ids((1, 100)))
    second = stage(ids((1, 19), (26, 100)), epoch=2, missed=ids((20, 25)))
    assert "6 ids: 20-25 lost" in failures([first, second])
    first = stage(ids((1, 19), (26, 100)), missed=ids((20, 25)))
    second = stage(ids((1, 100)), epoch=2)
    assert "6 ids: 20-25 lost" in failures([first, second])


def test_an_account_knows_what_it_cannot_know_of_a_source_that_came_back() -> None:
    account = Account(stage(ids((1, 500))))
    account.begin_epoch()
    account.note_late_start(38)
    assert account.ledger.unknown == ids((1, 37))
    account.begin_epoch()
    account.note_late_start(1)
    assert not account.ledger.unknown
    # Ids of this source begin with 0.
    account.ledgers[0].received.add(0)
    account.note_late_start(1)
    assert account.ledger.unknown == ids((0, 0))
