"""Steps of protocols: order, parallel runs, waiting, failures, resume."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pvapy_stream.errors import SettingsError, WorkflowError
from pvapy_stream.workflow.run.step_protocol import Protocol
from pvapy_stream.workflow.run.steps import State, Step, StepStore
from pvapy_stream.workflow.run.stream_set import StreamSet, StreamState
from tests.workflow.protocols import Count, InProcesses


def steps(folder: Path) -> list[Step]:
    store = StepStore(folder / "run.sqlite")
    try:
        return store.load()
    finally:
        store.close()


def numbers(folder: Path, name: str = "items") -> list[int]:
    return [item["number"] for item in StreamSet.read(folder / f"{name}.sqlite")]


class Scripted(Protocol):
    """Runs what a test gives it."""

    outputs = {"items": "set"}  # noqa: RUF012
    check_interval = 0.05
    met: threading.Barrier

    def __init__(
        self, insert: Callable[[Scripted], object] = lambda _: None, threads: int = 1
    ) -> None:
        super().__init__()
        self.threads = threads
        self.insert = insert
        self.done: list[object] = []
        self.checks = 0
        self.on_check: Callable[[], object] = lambda: None

    def insert_all_steps(self) -> None:
        self.insert(self)

    def steps_check(self) -> None:
        self.checks += 1
        self.on_check()

    def note(self, what: object) -> None:
        self.done.append(what)

    def nap(self, seconds: float) -> None:
        time.sleep(seconds)

    def meet(self) -> None:
        self.met.wait(60)

    def fail(self) -> None:
        raise ValueError("no beam")

    def promise(self, path: str) -> str:
        return path

    def register(self, number: int) -> None:
        self.output("items").append({"number": number})


def test_steps_run_in_order_and_leave_results(tmp_path: Path) -> None:
    protocol = Count(n=4)
    assert protocol.run(tmp_path) is State.FINISHED
    assert numbers(tmp_path) == [1, 2, 3, 4]
    assert StreamSet.read(tmp_path / "items.sqlite").state is StreamState.CLOSED
    assert [s.state for s in steps(tmp_path)] == [State.FINISHED] * 4
    assert steps(tmp_path)[0].results == [str(tmp_path / "extra" / "1.txt")]


def test_a_wrong_parameter_runs_no_step(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Number of items: must be greater than 0"):
        Count(n=-1).run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(SettingsError, match="has no parameter 'm'"):
        Count(m=1).run(tmp_path / "run")


def test_independent_steps_run_at_the_same_time(tmp_path: Path) -> None:
    def insert(protocol: Scripted) -> None:
        # Each waits until all four are there.
        meetings = [protocol.insert_step(protocol.meet, prerequisites=[]) for _ in range(4)]
        protocol.insert_step(protocol.note, "end", prerequisites=meetings)

    protocol = Scripted(insert, threads=4)
    protocol.met = threading.Barrier(4)
    assert protocol.run(tmp_path) is State.FINISHED
    assert protocol.done == ["end"]


def test_a_waiting_step_runs_when_released_and_not_before(tmp_path: Path) -> None:
    held: list[Step] = []

    def insert(protocol: Scripted) -> None:
        protocol.insert_step(protocol.note, "first")
        held.append(protocol.insert_step(protocol.note, "released", wait=True))
        protocol.insert_step(protocol.note, "after")

    def on_check() -> None:
        if protocol.checks == 4:
            protocol.note("check 4")
            held[0].release()

    protocol = Scripted(insert)
    protocol.on_check = on_check
    assert protocol.run(tmp_path) is State.FINISHED
    assert protocol.done == ["first", "check 4", "released", "after"]


def test_steps_are_inserted_while_others_run_and_at_the_end(tmp_path: Path) -> None:
    protocol = Scripted(lambda p: p.insert_step(p.nap, 0.2))

    def on_check() -> None:
        if protocol.checks <= 3:
            protocol.insert_step(protocol.note, protocol.checks, prerequisites=[])

    protocol.on_check = on_check
    assert protocol.run(tmp_path) is State.FINISHED
    assert protocol.done == [1, 2, 3]
    assert [s.dynamic for s in steps(tmp_path)] == [False, True, True, True]


def test_a_failure_starts_nothing_new_and_closes_the_sets(tmp_path: Path) -> None:
    def insert(protocol: Scripted) -> None:
        protocol.insert_step(protocol.register, 1)
        protocol.insert_step(protocol.nap, 0.2, prerequisites=[1])
        protocol.insert_step(protocol.fail, prerequisites=[1])
        protocol.insert_step(protocol.note, "never", prerequisites=[1])

    protocol = Scripted(insert, threads=2)
    assert protocol.run(tmp_path) is State.FAILED
    assert protocol.error == "step 3 (fail) failed: ValueError: no beam"
    assert protocol.done == []
    assert [s.state.value for s in steps(tmp_path)] == ["finished", "finished", "failed", "new"]
    assert StreamSet.read(tmp_path / "items.sqlite").state is StreamState.CLOSED


def test_a_returned_path_must_exist(tmp_path: Path) -> None:
    protocol = Scripted(lambda p: p.insert_step(p.promise, str(tmp_path / "none")))
    assert protocol.run(tmp_path / "run") is State.FAILED
    assert "none, which does not exist" in protocol.error


def test_an_unreachable_step_fails_the_run_with_the_reason(tmp_path: Path) -> None:
    protocol = Scripted(lambda p: p.insert_step(p.note, 1, prerequisites=[99]))
    assert protocol.run(tmp_path) is State.FAILED
    assert protocol.error == ("step 1 (note) can never run: it needs step 99, which does not exist")


def test_arguments_and_functions_that_cannot_be_kept(tmp_path: Path) -> None:
    protocol = Scripted(lambda p: p.insert_step(p.note, object()))
    assert protocol.run(tmp_path) is State.FAILED
    assert "arguments cannot be kept" in protocol.error
    protocol = Scripted(lambda p: p.insert_step(lambda: None))
    assert protocol.run(tmp_path) is State.FAILED
    assert "a step is a method" in protocol.error
    with pytest.raises(WorkflowError, match="only while the protocol runs"):
        protocol.insert_step(protocol.note, 1)


def test_killed_and_resumed_each_item_is_registered_once(tmp_path: Path) -> None:
    script = (
        "from tests.workflow.protocols import Count; import sys;"
        "sys.exit(Count(n=6, mode='kill').run(sys.argv[1]).value != 'finished')"
    )
    run = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    killed = subprocess.run(run, timeout=30)
    assert killed.returncode == -9
    assert sorted(numbers(tmp_path)) == [1, 2, 3, 4]
    before = {p.name: p.read_text() for p in (tmp_path / "extra").iterdir()}
    assert subprocess.run(run, timeout=30).returncode == 0
    assert numbers(tmp_path) == [1, 2, 3, 4, 5, 6]
    after = {p.name: p.read_text() for p in (tmp_path / "extra").iterdir()}
    assert {name: after[name] for name in before} == before


def test_resume_runs_again_what_is_gone_and_restart_all(tmp_path: Path) -> None:
    protocol = Count(n=3)
    protocol.run(tmp_path)
    times = [step.ended for step in steps(tmp_path)]
    (tmp_path / "extra" / "2.txt").unlink()
    assert Count(n=3).run(tmp_path) is State.FINISHED
    again = [step.ended for step in steps(tmp_path)]
    # The third needs the second, which ran again.
    assert [a == b for a, b in zip(times, again, strict=True)] == [True, False, False]
    assert numbers(tmp_path) == [1, 2, 3]
    (tmp_path / "extra" / "other").touch()
    assert Count(n=2, run_mode="restart").run(tmp_path) is State.FINISHED
    assert numbers(tmp_path) == [1, 2]
    assert not (tmp_path / "extra" / "other").exists()


def test_dynamic_steps_are_remembered(tmp_path: Path) -> None:
    def dynamic() -> Scripted:
        protocol = Scripted(lambda p: p.insert_step(p.register, 0))
        protocol.on_check = lambda: (
            protocol.checks == 1 and protocol.insert_step(protocol.register, 7, prerequisites=[])
        )
        return protocol

    dynamic().run(tmp_path)
    dynamic().run(tmp_path)
    assert numbers(tmp_path) == [0, 7]
    assert len(steps(tmp_path)) == 2
    protocol = Scripted(lambda p: p.insert_step(p.register, 0))
    assert protocol.run(tmp_path) is State.FINISHED
    assert len(steps(tmp_path)) == 2


def test_a_stop_is_a_clean_end_or_tells_what_is_left(tmp_path: Path) -> None:
    stop = threading.Event()
    protocol = Scripted(lambda p: p.insert_step(p.note, "closing", wait=True))
    protocol.on_check = lambda: protocol.checks == 2 and stop.set()
    assert protocol.run(tmp_path / "a", stop) is State.FINISHED
    assert protocol.done == ["closing"]
    stop.clear()
    protocol = Scripted(lambda p: [p.insert_step(p.nap, 0.1) for _ in range(9)])
    protocol.on_check = stop.set
    assert protocol.run(tmp_path / "b", stop) is State.ABORTED
    assert "steps left" in protocol.error


class Movies(Protocol):
    """Looks at movies as they come, and closes when all are looked at."""

    check_interval = 0.02
    threads = 3

    def __init__(self, come: list[int] | None = None) -> None:
        super().__init__()
        self.come = come or []
        self.done: list[str] = []
        self.checks = 0
        self.may_end = threading.Event()

    def insert_all_steps(self) -> None:
        self.closing = self.insert_step(self.close, prerequisites=[], wait=True)

    def steps_check(self) -> None:
        if self.come:
            new = self.insert_step(self.look, self.come.pop(0), prerequisites=[])
            self.closing.add_prerequisites(new)
        else:
            self.closing.release()
            # A closing step that did not wait would have run before the last look.
            self.checks += 1
            if self.checks > 3:
                self.may_end.set()

    def look(self, number: int) -> str:
        # The last one takes longest.
        if number == 5:
            assert self.may_end.wait(30)
        self.done.append(f"look {number}")
        path = self.extra(str(number))
        path.touch()
        return str(path)

    def close(self) -> None:
        self.done.append("close")


def test_a_closing_step_waits_for_all_that_was_added_to_it(tmp_path: Path) -> None:
    protocol = Movies([1, 2, 3, 4, 5])
    assert protocol.run(tmp_path) is State.FINISHED, protocol.error
    assert sorted(protocol.done) == ["close", *(f"look {n}" for n in range(1, 6))]
    assert protocol.done[-1] == "close"
    assert steps(tmp_path)[0].prerequisites == (2, 3, 4, 5, 6)
    # All is there: nothing runs again.
    again = Movies([])
    assert again.run(tmp_path) is State.FINISHED
    assert again.done == []
    # One is gone; it is looked at once more, then the closing step runs.
    (tmp_path / "extra" / "3").unlink()
    again = Movies([])
    assert again.run(tmp_path) is State.FINISHED
    assert again.done == ["look 3", "close"]
    # One more has come since.
    again = Movies([6])
    assert again.run(tmp_path) is State.FINISHED
    assert again.done == ["look 6", "close"]
    assert steps(tmp_path)[0].prerequisites == (2, 3, 4, 5, 6, 7)


def test_a_stop_closes_nothing_while_steps_are_left(tmp_path: Path) -> None:
    stop = threading.Event()

    def insert(protocol: Scripted) -> None:
        protocol.insert_step(protocol.note, "first")
        protocol.insert_step("halt")
        protocol.insert_step(protocol.note, "left")
        protocol.insert_step(protocol.note, "closing", prerequisites=[], wait=True)

    protocol = Scripted(insert)
    protocol.halt = stop.set  # type: ignore[attr-defined]
    assert protocol.run(tmp_path, stop) is State.ABORTED
    assert protocol.done == ["first"]
    assert protocol.error == "stopped with 1 steps left; resume continues with them"


def test_a_step_that_has_begun_cannot_wait_for_more(tmp_path: Path) -> None:
    def insert(protocol: Scripted) -> None:
        first = protocol.insert_step(protocol.note, 1)
        protocol.on_check = lambda: first.add_prerequisites(99)

    protocol = Scripted(insert)
    assert protocol.run(tmp_path) is State.FAILED
    assert "step 1 (note) is finished, and cannot wait for further steps; insert it with" in (
        protocol.error
    )
    with pytest.raises(WorkflowError, match="belongs to no run"):
        Step(1, "note", b"[]", ()).add_prerequisites(2)


def test_steps_in_processes(tmp_path: Path) -> None:
    protocol = InProcesses(deaths=1)
    assert protocol.run(tmp_path) is State.FINISHED, protocol.error
    found = list(StreamSet.read(tmp_path / "pids.sqlite"))
    assert sorted(item["number"] for item in found) == [0, 1, 2, 3]
    assert len({item["pid"] for item in found}) >= 2
    assert len(steps(tmp_path)) == 4


def test_a_step_whose_process_dies_twice_fails_alone(tmp_path: Path) -> None:
    protocol = InProcesses(deaths=9)
    assert protocol.run(tmp_path) is State.FAILED
    assert protocol.error == "step 3 (work) failed: its process died twice"


def test_many_steps_cost_little(tmp_path: Path) -> None:
    def insert(protocol: Scripted) -> None:
        for number in range(1000):
            first = protocol.insert_step(protocol.note, number, prerequisites=[])
            second = protocol.insert_step(protocol.note, number, prerequisites=[first])
            protocol.insert_step(protocol.note, number, prerequisites=[second])

    protocol = Scripted(insert, threads=2)
    start = time.process_time()
    assert protocol.run(tmp_path) is State.FINISHED
    # Three times what is promised, and of the processor: what else runs does not count.
    assert time.process_time() - start < 1000 * 1e-3 * 3
    assert len(protocol.done) == 3000
