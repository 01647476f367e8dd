"""Workflows are checked and wired once, and all that is wrong is told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pvapy_stream.workflow import (
    Consumer,
    Mirror,
    Project,
    Scheduler,
    Simulator,
    Workflow,
    Writer,
    run_workflow,
)


class Counted(Simulator):
    """A source that notes the folders for which it is wired."""

    wired: ClassVar[list[Path]] = []

    def wire(self, label: str, source: Any, site: Any) -> Any:
        self.wired.append(site.folder)
        return super().wire(label, source, site)


def test_a_run_checks_and_wires_once(tmp_path: Path) -> None:
    Counted.wired.clear()
    flow = Workflow("x")
    camera = flow.add(Counted(n_publish=20, n_x_pixels=4, n_y_pixels=4), "camera")
    flow.add(Writer(input=camera["output"], output="scan.h5"), "disk")
    outcome = run_workflow(flow, tmp_path / "run")
    assert outcome.ok, outcome.problems
    assert (tmp_path / "run" / "scan.h5").exists()
    assert Counted.wired == [tmp_path / "run"]


def test_what_follows_a_wrong_stage_is_checked_all_the_same() -> None:
    flow = Workflow("x")
    camera = flow.add(Simulator(n_publish=-1), "camera")
    mirror = flow.add(Mirror(input=camera["output"]), "mirror")
    flow.add(Consumer(input=mirror["output"], n_consumers=0), "work")
    flow.add(Writer(input="work.output", chunk_size="many"), "disk")
    labels = [problem.partition(":")[0] for problem in flow.problems()]
    assert labels == ["camera", "work", "disk"]


def test_protocols_are_in_the_order_of_their_needs_and_else_as_they_were_added() -> None:
    flow = Workflow("x")
    flow.add(Mirror(input="b.output"), "a")
    for label in "bdc":
        flow.add(Simulator(), label)
    flow.add(Mirror(input="c.output"), "e", after=["a"])
    assert [node.label for node in flow.in_order()] == ["b", "d", "c", "a", "e"]


def test_a_circle_is_told_beside_what_else_is_wrong() -> None:
    flow = Workflow("x")
    flow.add(Mirror(input="c.output"), "b")
    flow.add(Mirror(input="b.output"), "c")
    flow.add(Simulator(frame_rat=1), "a", after=["c"])
    assert [problem.partition(";")[0] for problem in flow.problems()] == [
        "a: Simulator has no parameter 'frame_rat'",
        "cycle: b needs c needs b",
    ]


def test_what_is_changed_later_is_not_in_the_project(tmp_path: Path) -> None:
    flow = Workflow("x")
    node = flow.add(Simulator(n_publish=20), "camera")
    project = Project.create_in(tmp_path / "run", flow)
    node.params["n_publish"] = -1
    flow.add(Simulator(), "late")
    planned = Scheduler(project).flow
    assert planned.nodes.keys() == {"camera"}
    assert planned.nodes["camera"].params == {"n_publish": 20}
    project.close()
