"""Stages and steps on a real Dask cluster of processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from pvapy_stream.errors import SettingsError, WorkflowError
from pvapy_stream.launch import agent, dask
from pvapy_stream.launch.programs import ProgramSpec
from pvapy_stream.workflow import Consumer, Project, Simulator, StreamSet, Workflow
from pvapy_stream.workflow.run.clusters import make_launcher
from pvapy_stream.workflow.run.scheduler import Scheduler, run_workflow
from tests.support import wait_until
from tests.workflow.protocols import InProcesses
from tests.workflow.test_streams import live

# Dask's own warnings are not ours.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    """A cluster for all tests, as it costs the start of four processes."""
    made = LocalCluster(
        n_workers=3,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
    )
    yield made
    made.close()


@pytest.fixture
def cluster(started: Any) -> Any:
    """The cluster with all its workers: another test may have killed one, which comes back."""
    wait_until(lambda: len(started.scheduler.workers) == 3, what="three workers")
    return started


def test_stages_and_steps_on_workers_one_of_which_is_killed(
    cluster: Any, tmp_path: Path, prefix: str
) -> None:
    flow = Workflow("cluster", channels=prefix)
    cam = flow.add(
        Simulator(n_publish=0, frame_rate=100, n_x_pixels=8, n_y_pixels=8, n_frames=4, place="0"),
        "cam",
    )
    flow.add(Consumer(input=cam["output"], n_consumers=2), "work")
    flow.add(InProcesses(), "steps")
    project = Project.create_in(tmp_path / "run", flow)
    launcher = make_launcher(cluster.scheduler_address)
    said: list[str] = []
    scheduler = Scheduler(project, launcher=launcher, say=said.append)
    stop = threading.Event()
    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(scheduler.run(stop)))
    thread.start()
    try:
        wait_until(lambda: live(project.folder)["work"]["processed"] > 50)
        before = live(project.folder)["work"]["programs"]
        assert len({one["host"] for one in before}) == 2
        # With the worker of the source, all would end.
        source = live(project.folder)["cam"]["programs"][0]["host"]
        number = next(k for k, one in enumerate(before) if one["host"] != source)
        on = before[number]["host"]
        assert isinstance(launcher, dask.DaskPrograms)
        os.kill(launcher.call(on, os.getpid), signal.SIGKILL)
        after = wait_until(
            lambda: (p := live(project.folder)["work"]["programs"][number]) and p["restarts"] and p
        )
        wait_until(lambda: live(project.folder)["work"]["programs"][number]["pid"])
        counted = live(project.folder)["work"]["processed"]
        wait_until(lambda: live(project.folder)["work"]["processed"] > counted + 50)
        assert live(project.folder)["work"]["programs"][number]["host"] != on, after
        wait_until(lambda: project.state_of("steps").value == "finished")
    finally:
        stop.set()
        thread.join(60)
    (outcome,) = outcomes
    (audit,) = outcome.audits
    assert audit.published > 100
    # What the killed worker's consumer had, and what came while it was away, is named.
    lost = sum(len(s.lost) for channel in audit.channels for s in channel.subscribers)
    skipped = sum(len(s.unprocessed) for channel in audit.channels for s in channel.subscribers)
    assert audit.processed == audit.published - lost - skipped
    pids = {item["pid"] for item in StreamSet.read(project.run_folder("steps") / "pids.sqlite")}
    assert len(pids) >= 1
    assert os.getpid() not in pids
    project.close()


def test_a_cluster_from_a_file_and_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "class: distributed.LocalCluster\njobs: 1\nn_workers: 0\nthreads_per_worker: 1\n"
        "dashboard_address: 127.0.0.1:0\nhost: 127.0.0.1\n"
    )
    flow = Workflow("file")
    flow.add(Simulator(n_publish=5, frame_rate=50, n_x_pixels=4, n_y_pixels=4, n_frames=2), "cam")
    outcome = run_workflow(flow, tmp_path / "run", launcher=make_launcher(str(file)))
    assert outcome.ok, outcome.problems
    assert outcome.audits[0].published == 5
    file.write_text("jobs: 1")
    with pytest.raises(SettingsError, match="does not describe a cluster"):
        make_launcher(str(file))
    with pytest.raises(SettingsError, match="is not known"):
        make_launcher("slurm")
    monkeypatch.setattr(dask, "_TIMEOUT", 1.0)
    with pytest.raises(WorkflowError, match="does not answer"):
        make_launcher("tcp://127.0.0.1:1")


def test_a_program_of_a_worker_that_has_just_come_is_not_taken_for_lost(
    prefix: str, tmp_path: Path
) -> None:
    """Who looks after the programs has asked which workers there are before it came."""
    cluster = LocalCluster(
        n_workers=0, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    )
    launcher = make_launcher(cluster.scheduler_address)
    assert isinstance(launcher, dask.DaskPrograms)
    workers, asked, started = launcher.workers, threading.Event(), threading.Event()

    def answered_late() -> dict[str, Any]:
        found = workers()
        if threading.current_thread().name == "dask-look" and not started.is_set():
            asked.set()
            started.wait(60)
        return found

    launcher.workers = answered_late
    assert asked.wait(60)
    cluster.scale(1)
    spec = ProgramSpec("cam", "sim", argv=("-cn", f"{prefix}image", "-rt", "600"))
    program = launcher.start(spec, tmp_path, 1)
    started.set()
    seen = program.seen
    wait_until(lambda: program.seen is not seen)
    assert program.poll() is None
    program.kill()
    launcher.close()
    cluster.close()


def test_a_placed_stage_waits_for_its_worker_to_return(
    cluster: Any, tmp_path: Path, prefix: str
) -> None:
    flow = Workflow("placed", channels=prefix)
    cam = flow.add(
        Simulator(n_publish=0, frame_rate=100, n_x_pixels=8, n_y_pixels=8, n_frames=4, place="0"),
        "cam",
    )
    flow.add(Consumer(input=cam["output"], place="1"), "work")
    project = Project.create_in(tmp_path / "run", flow)
    launcher = make_launcher(cluster.scheduler_address)
    assert isinstance(launcher, dask.DaskPrograms)
    scheduler = Scheduler(project, launcher=launcher)
    stop = threading.Event()
    thread = threading.Thread(target=scheduler.run, args=(stop,))
    thread.start()

    def work() -> dict[str, Any]:
        return live(project.folder)["work"]["programs"][0]

    try:
        wait_until(lambda: live(project.folder)["work"]["processed"] > 20)
        before = work()["host"]
        # Its nanny starts another of the same name, at another address.
        os.kill(launcher.call(before, os.getpid), signal.SIGKILL)
        wait_until(lambda: work()["restarts"] == 1 and work()["pid"])
        counted = live(project.folder)["work"]["processed"]
        wait_until(lambda: live(project.folder)["work"]["processed"] > counted + 20)
        assert work()["host"] != before
        assert launcher.workers()[work()["host"]]["name"] == 1
    finally:
        stop.set()
        thread.join(60)
    project.close()


def _ended(launcher: str) -> list[bool]:
    """Of each program that a launcher has started on a worker, whether it has ended."""
    of_it = [one for key, one in agent._programs.items() if key.startswith(launcher)]
    return [one.poll() is not None for one in of_it]


def test_a_program_that_starts_too_late_is_ended(
    cluster: Any, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would run twice: by then another worker has been asked."""
    launcher = make_launcher(cluster.scheduler_address)
    assert isinstance(launcher, dask.DaskPrograms)
    monkeypatch.setattr(dask, "_ANSWER_TIMEOUT", 1e-4)
    spec = ProgramSpec("cam", "sim", argv=("-cn", f"{prefix}image", "-rt", "600"))
    with pytest.raises(WorkflowError, match="cam cannot be started on"):
        launcher.start(spec, tmp_path, 1)
    monkeypatch.undo()
    client = dask.connect(cluster.scheduler_address)
    wait_until(lambda: [*client.run(_ended, launcher._id).values()] == [[True]] * 3)
    client.close()
    launcher.close()
