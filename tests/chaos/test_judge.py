"""The judge finds what is wrong, and nothing where all is right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chaos.chain import KINDS, Plan, plan
from chaos.judge import judge
from chaos.late import Late
from chaos.pixels import is_hit, marked, marks_of, pixels_of, read
from chaos.source import ids
from chaos.table import BEGIN, END, Outcome, table, write
from chaos.truth import Record, Saved, Sent, counted, sent_of
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger

N = 20
MADE = Plan(
    seed=1,
    kind="kill",
    transport="pva",
    own_source=False,
    source_ledger=True,
    id_kind="plain",
    mirror=False,
    consumers=1,
    collector=False,
    writers=1,
    n_frames=N,
    rate=100.0,
    shm_timeout=5.0,
)
MARKS = marks_of(MADE.stages)


def saved(*numbers: int, marks: int = MARKS) -> Saved:
    return Saved([(number, number, marks) for number in numbers])


def stage(name: str, **sets: Any) -> dict[str, Any]:
    names = ("received", "processed", "filtered", "skipped", "left", "missed", "without_fate")
    empty: dict[str, Any] = {fate: [] for fate in names}
    return {"stage": name, **empty, "rejected": {}, "failed": {}, **sets}


def report(lost: list[list[int]] | None = None, drops: bool = False, **sets: Any) -> dict[str, Any]:
    lost = lost or []
    subscriber = {"lost": lost, "lost_by": {}, "surplus": sets.pop("surplus", [])}
    return {
        "ok": not lost and not subscriber["surplus"],
        "drops": ["some"] if drops else [],
        "notes": [],
        "channels": [{"channel": "a", "subscribers": [subscriber]}],
        "stages": [stage("sim"), stage("consumer", **sets)],
    }


def verdict(
    files: Saved, *reports: dict[str, Any], sent: Sent | None = None, made: Plan = MADE
) -> str:
    return "; ".join(judge(made, sent or counted(N), files, reports))


def test_a_clean_run() -> None:
    assert not verdict(saved(*range(1, N + 1)), report(), report())


def test_what_is_gone_has_to_be_named() -> None:
    files = saved(*range(1, 11), *range(13, N + 1))
    assert not verdict(files, report([[11, 12]]))
    assert not verdict(files, report(drops=True, failed={"disk full": [[11, 12]]}))
    text = verdict(files, report([[11, 11]]))
    assert "frames gone, and not named (audit not OK): 1 frames: 12" in text
    text = verdict(files, report())
    assert "frames gone, and not named (audit OK): 2 frames: 11-12" in text
    assert "strict audit OK while frames are gone" in text


def test_what_is_there_is_not_to_be_named() -> None:
    files = saved(*range(1, N + 1))
    assert "named lost, but in the files: 3 frames: 4-6" in verdict(files, report([[4, 6]]))
    assert "never published: 1 frames: 99" in verdict(files, report([[99, 99]]))
    text = verdict(files, report(drops=True, rejected={"queue full": [[2, 2]]}))
    assert "named queue full by consumer, but in the files: 1 frames: 2" in text


def test_twice_raw_and_foreign_frames() -> None:
    whole = saved(*range(1, N + 1))
    twice = Saved([*whole.rows, (7, 7, MARKS)])
    assert "frames twice in the files, and not named: 1 frames: 7" in verdict(twice, report())
    assert not verdict(twice, report(surplus=[[7, 7]]))
    raw = Saved([*saved(*range(1, N)).rows, *saved(N, marks=0).rows])
    assert f"raw frames as results: 1 frames: {N}" in verdict(raw, report())
    foreign = Saved([*whole.rows, (0, 0, MARKS)])
    assert "frames that nobody published in the files: 1 frames: 0" in verdict(foreign, report())


def test_an_audit_that_does_not_come() -> None:
    text = verdict(saved(*range(1, N + 1)), {"error": "no ledger"})
    assert text == "the audit gives no report: no ledger"


def test_what_can_be_repaired_has_to_be_there() -> None:
    made = replace(MADE, kind="cut+repair")
    files = saved(*range(1, 11), *range(13, N + 1))
    assert "frames gone that could be repaired: 2 frames: 11-12" in verdict(
        files, report([[11, 12]]), made=made
    )
    # One that was killed had what it kept.
    assert not verdict(files, report([[11, 12]]), made=replace(MADE, kind="kill+repair"))
    assert "audit not OK though nothing is gone" in verdict(
        saved(*range(1, N + 1)), report([[99, 99]]), made=made
    )
    assert "frames twice without any reason: 1 frames: 7" in verdict(
        Saved([*saved(*range(1, N + 1)).rows, (7, 7, MARKS)]), report(surplus=[[7, 7]]), made=made
    )


def test_a_ledger_says_of_an_id_either_that_it_came_late_or_that_it_is_missed() -> None:
    late = Late()
    late.add(ledger_of(received=[1, 2, 3], repaired=[2], missed=[4], unrepairable={"gone": [4]}))
    assert (late.repaired, late.wrong) == ({2}, [])
    assert late.false(counted(1)) == ["repaired, but never published: 2"]
    assert not late.false(counted(2))
    late.add(ledger_of(repaired=[5]))
    late.add(ledger_of(received=[6], repaired=[6], missed=[6]))
    late.add(ledger_of(unrepairable={"gone": [7]}))
    assert late.wrong == [
        "consumer 1, epoch 1: repaired, but not received: 5",
        "consumer 1, epoch 1: repaired, but also missed: 6",
        "consumer 1, epoch 1: not missed, but not to be repaired (gone): 7",
    ]


def ledger_of(unrepairable: dict[str, list[int]] | None = None, **sets: list[int]) -> Ledger:
    made = Ledger("consumer", 1)
    made.unrepairable = {why: IdSet(ids) for why, ids in (unrepairable or {}).items()}
    for name, some in sets.items():
        setattr(made, name, IdSet(some))
    return made


def test_ids_that_come_again_are_frames_of_their_own() -> None:
    sent = Sent(ids={1: 1, 2: 2, 3: 1, 4: 2})
    files = Saved([(1, 1, MARKS), (2, 2, MARKS), (2, 4, MARKS)])
    assert "not named (audit OK): 1 frames: 1" in verdict(files, report(), sent=sent)
    assert not verdict(files, report([[1, 1]]), sent=sent)


def test_a_frame_that_a_killed_source_may_have_sent_is_not_the_next_one_of_its_id() -> None:
    # The second source sent id 2 again.
    sent = Sent(ids={1: 1, 3: 2}, perhaps={2: 2})
    assert not verdict(Saved([(1, 1, MARKS), (2, 2, MARKS)]), report([[2, 2]]), sent=sent)
    files = Saved([(1, 1, MARKS), (2, 3, MARKS)])
    assert "named lost, but in the files: 1 frames: 2" in verdict(
        files, report([[2, 2]]), sent=sent
    )


def test_pixels_tell_id_number_and_stages() -> None:
    image = pixels_of(12, 3_000_007)
    assert read(image) == (12, 3_000_007, 0)
    done = marked(marked(image, "consumer"), "collector")
    assert read(done) == (12, 3_000_007, marks_of(("mirror", "consumer", "collector", "writer")))
    done[3, 3] = 1
    assert read(done)[2] == -1
    assert 0.2 < np.mean([is_hit(value) for value in range(1000)]) < 0.5


def test_the_record_of_a_killed_source_says_what_is_not_sure(tmp_path: Any) -> None:
    with Record(tmp_path / "record") as record:
        for number in (1, 2):
            record.begin(number, number + 5, 0)
            record.sent(number, number + 5, 0)
        record.begin(3, 8, 0)
    with (tmp_path / "record").open("ab") as file:
        file.write(b"half")
    sent = sent_of([tmp_path / "record"])
    assert sent.ids == {1: 6, 2: 7}
    assert sent.perhaps == {3: 8}


def test_plans_and_ids_follow_from_the_seed() -> None:
    made = [plan(seed) for seed in range(200)]
    assert made == [plan(seed) for seed in range(200)]
    assert {one.kind for one in made} == set(KINDS)
    for one in made:
        # A violation can be repeated by its command.
        assert plan(one.seed, (one.kind,)) == one
        assert one.kind in one.command
        assert not one.repairs or one.can_repair(one.proxied), one
        assert one.repairs or not (one.keep_past or one.queue), one
        if one.complete:
            assert {fault.what for fault in one.faults} <= {"cut", "stall", "pause"}, one
            assert one.keep_past == 100, one
    assert list(ids("plain", 5, 1)) == [1, 2, 3, 4, 5]
    assert list(ids("again", 300, 2)) == list(ids("again", 300, 2))


def test_the_table_goes_between_the_markers(tmp_path: Any) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    text = table([Outcome(MADE, ()), Outcome(MADE, ("lost",), 3, "/somewhere", 5)])
    write(page, text)
    content = page.read_text()
    assert "frames repaired | frames gone | violations" in content
    assert "| calm |" not in content
    assert "| kill | 2 (1 bad) | 0 |" in content
    assert "| 0 | 3 | 1 |" in content
    assert "2 runs with 40 frames and 5 starts of programs, 1 with a violation" in content
    assert content.startswith("before\n")
    assert content.endswith("after\n")
    assert "old" not in content
    page.write_text("no markers")
    with pytest.raises(ValueError, match="no place for the table"):
        write(page, text)
