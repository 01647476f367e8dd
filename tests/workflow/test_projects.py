"""Projects: chained protocols in processes, two processes at once, kills, resume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pvapy_stream.workflow import Project, StreamSet, read_workflow, run_workflow
from pvapy_stream.workflow.run.project import ProtocolRow
from pvapy_stream.workflow.run.steps import State
from tests.in_process import Called, call
from tests.support import Commands, Program, wait_until
from tests.workflow.test_steps import steps

CHAIN = """
protocols:
  - {{label: count, class: tests.workflow.protocols:Count, n: {n}, milliseconds: {ms}, threads: 1,
     mode: {mode}}}
  - {{label: double, class: tests.workflow.protocols:Double, items: count.items,
     check_interval: 0.2}}
  - {{label: last, class: tests.workflow.protocols:Count, n: 1, after: [double]}}
"""


@pytest.fixture(autouse=True)
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVAPY_STREAM_PROJECTS", str(tmp_path / "projects"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def chain(tmp_path: Path, n: int = 5, ms: int = 0, mode: str = "plain") -> Path:
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN.format(n=n, ms=ms, mode=mode))
    return path


def rows(folder: Path) -> dict[str, ProtocolRow]:
    project = Project(folder)
    try:
        return {row.label: row for row in project.protocols()}
    finally:
        project.close()


def numbers(folder: Path, run: str, name: str) -> list[int]:
    path = folder / "Runs" / run / f"{name}.sqlite"
    return sorted(item["number"] for item in StreamSet.read(path)) if path.exists() else []


def ended(program: Program | Called, code: int = 0) -> str:
    found = program.code if isinstance(program, Called) else program.wait()
    assert found == code, program.text
    return program.text


def test_create_schedule_list_show(tmp_path: Path, commands: Commands) -> None:
    folder = tmp_path / "projects" / "night"
    assert "3 protocols" in ended(commands("create-project", "night", chain(tmp_path)))
    assert "exists already" in ended(call("create-project", "name=night"), 1)
    missing = call("create-project", "name=other", f"workflow={tmp_path}/none.json")
    assert "cannot read workflow" in ended(missing, 1)
    assert "unexpected word" in ended(call("create-project", *"abcde"), 1)
    assert "there is no project 'nigth'" in ended(call("schedule-project", "nigth"), 2)
    ended(call("create-project", "far", chain(tmp_path), tmp_path / "disk", "for later"))
    ended(commands("schedule-project", "night"))
    assert (tmp_path / "projects" / "far").resolve() == (tmp_path / "disk" / "far").resolve()
    assert {row.state for row in rows(folder).values()} == {State.FINISHED}
    assert numbers(folder, "000002_double", "doubled") == [2, 4, 6, 8, 10]
    # The one that waits started after the one it waits for had ended.
    assert rows(folder)["last"].started >= rows(folder)["double"].ended
    assert (folder / "Runs" / "000001_count" / "logs" / "000001_count.log").exists()
    assert "5 finished" in ended(call("project", "show", "night"))
    assert "night" in ended(call("project", "list"))
    assert "nothing to do" in ended(call("schedule-project", "night"))


def test_a_consumer_starts_before_its_producer_ends(tmp_path: Path) -> None:
    outcome = run_workflow(read_workflow(chain(tmp_path, n=3, ms=500)), tmp_path / "run")
    assert outcome.ok, outcome.problems
    found = rows(tmp_path / "run")
    assert found["double"].started < found["count"].ended
    assert numbers(tmp_path / "run", "000002_double", "doubled") == [2, 4, 6]


def test_a_killed_protocol_closes_its_sets_and_is_resumed(
    tmp_path: Path, commands: Commands
) -> None:
    folder = tmp_path / "run"
    program = commands("workflow", "run", chain(tmp_path, 6, mode="kill"), "--folder", folder)
    text = ended(program, 1)
    assert "died (signal SIGKILL)" in text
    found = rows(folder)
    # What the dead one had made was taken, for its set was closed.
    assert [found[name].state.value for name in ("count", "double")] == ["failed", "finished"]
    assert numbers(folder, "000001_count", "items") == [1, 2, 3, 4]
    before = steps(folder / "Runs" / "000001_count")[:3]
    ended(call("project", "resume", folder))
    assert numbers(folder, "000001_count", "items") == [1, 2, 3, 4, 5, 6]
    # The one that had finished goes on with what is new.
    assert numbers(folder, "000002_double", "doubled") == [2, 4, 6, 8, 10, 12]
    after = steps(folder / "Runs" / "000001_count")[:3]
    assert [s.ended for s in before] == [s.ended for s in after]


def test_one_process_runs_a_project(tmp_path: Path, commands: Commands) -> None:
    ended(call("project", "create", "busy", chain(tmp_path, n=400, ms=250)))
    first = commands("project", "schedule", "busy")
    wait_until(lambda: "started" in first.text)
    second, shown = call("project", "schedule", "busy"), call("project", "show", "busy")
    assert f"project busy is run by process {first.process.pid}" in ended(second, 1)
    assert f"run by process {first.process.pid}" in ended(shown)
    folder = tmp_path / "projects" / "busy"
    wait_until(lambda: len(numbers(folder, "000001_count", "items")) > 2)
    ended(call("project", "stop", "busy"))
    assert first.wait() == 1
    assert rows(folder)["count"].state is State.ABORTED
    assert "steps left; resume continues with them" in rows(folder)["count"].error


def test_a_killed_scheduler_is_told_and_leaves_no_process(
    tmp_path: Path, commands: Commands
) -> None:
    ended(call("create-project", "busy", chain(tmp_path, n=400, ms=250)))
    first = commands("schedule-project", "busy")
    folder = tmp_path / "projects" / "busy"
    wait_until(lambda: len(numbers(folder, "000001_count", "items")) > 1)
    first.signal(signal.SIGKILL)
    first.wait()
    log = folder / "Runs" / "000001_count" / "logs" / "000001_count.log"
    wait_until(lambda: "steps left" in log.read_text())
    shown, stopped = call("project", "show", "busy"), call("stop-project", "busy")
    assert "has ended; continue with" in ended(shown, 1)
    assert "does not run; there is nothing to stop" in ended(stopped, 1)


def test_left_out_and_unreachable_protocols(tmp_path: Path) -> None:
    ended(call("create-project", "some", chain(tmp_path)))
    wrong = call("schedule-project", "some", "--ignore", "cuont")
    text = ended(call("schedule-project", "some", "--ignore", "count"), 1)
    assert "double: its input count.items will never be available: count is skipped" in text
    assert rows(tmp_path / "projects" / "some")["last"].state is State.FINISHED
    assert "there is no protocol 'cuont'" in ended(wrong, 2)


def test_two_processes_make_one_project(tmp_path: Path) -> None:
    script = (
        "from pvapy_stream.workflow import Project; import sys\n"
        "try: Project.create('same')\n"
        "except Exception as e: print(e); sys.exit(1)"
    )
    both = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert sorted(process.wait(30) for process in both) == [0, 1]
    assert os.listdir(tmp_path / "projects") == ["same"]
