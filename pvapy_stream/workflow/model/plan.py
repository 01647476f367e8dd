"""A workflow that is checked and wired for a run: the one place where both are done."""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pvapy_stream.errors import SettingsError
from pvapy_stream.launch.programs import ProgramSpec
from pvapy_stream.workflow.model.node import Node
from pvapy_stream.workflow.model.parameters import Pointer
from pvapy_stream.workflow.model.spelling import nearest
from pvapy_stream.workflow.model.streaming_stage import Site, Stream, StreamingStage


@dataclass(frozen=True, slots=True)
class WiredStage:
    """A stage with its channels.

    Attributes:
        node: what the workflow says of it.
        stage: the stage itself.
        source: its input; None when it has none.
        programs: what is started.
        output: what other stages receive; None for nothing.
    """

    node: Node
    stage: StreamingStage
    source: Stream | None
    programs: tuple[ProgramSpec, ...]
    output: Stream | None


class WorkflowPlan:
    """The protocols of a workflow, checked and wired for one run.

    Args:
        nodes: by label.
        site: where the run is.

    Attributes:
        nodes: by label, each after those it needs.
        stages: by label, in the same order; those with nothing wrong.
        problems: all that is wrong, a sentence each.
    """

    def __init__(self, nodes: Mapping[str, Node], site: Site) -> None:
        self._given = nodes
        self._site = site
        self.stages: dict[str, WiredStage] = {}
        cycle: list[str] = []
        try:
            self.nodes = {node.label: node for node in in_order(nodes)}
        except SettingsError as error:
            self.nodes = dict(nodes)
            cycle = [str(error)]
        found = {label: list(self._problems(node)) for label, node in self.nodes.items()}
        self.problems = [problem for label in nodes for problem in found[label]]
        self.problems += cycle or self._sharing()
        if not nodes:
            self.problems = ["the workflow has no protocol"]

    def check(self) -> None:
        """Look whether it can run.

        Raises:
            SettingsError: all that is wrong.
        """
        if self.problems:
            raise SettingsError("; ".join(self.problems))

    def _problems(self, node: Node) -> Iterator[str]:
        """What is wrong with one protocol; a stage that is right is wired."""
        for label in node.after:
            if label not in self._given:
                yield f"{node.label}: waits for {label!r}, which does not exist{self._near(label)}"
        for name, param, to in node.pointers():
            yield from self._pointer_problems(node, name, param, to)
        made = node.make()
        problems = made.problems()
        if isinstance(made, StreamingStage) and not problems:
            try:
                self._wire(node, made)
            except SettingsError as error:
                problems = [str(error)]
        yield from (f"{node.label}: {problem}" for problem in problems)

    def _wire(self, node: Node, stage: StreamingStage) -> None:
        source: Stream | None = None
        upstream = node.upstream
        if upstream in self.stages:
            source = None if upstream in self._site.ignored else self.stages[upstream].output
        elif upstream:
            # Errors of the other one are reported there; its own settings are checked all the
            # same.
            source = stage.sample_input()
        wired = stage.wire(node.label, source, self._site)
        self.stages[node.label] = WiredStage(node, stage, source, wired.programs, wired.output)

    def _pointer_problems(self, node: Node, name: str, param: Pointer, to: object) -> Iterator[str]:
        where = f"{node.label}: {name} points to"
        label, dot, output = to.partition(".") if isinstance(to, str) else ("", "", "")
        if not dot:
            yield f"{where} {to!r}; write it like label.output"
        elif label not in self._given:
            yield f"{where} {to!r}, but there is no {label!r}{self._near(label)}"
        else:
            outputs = self._given[label].kind.outputs
            if output not in outputs:
                known = ", ".join(outputs) or "none"
                yield f"{where} {to!r}, but the outputs of {label} are: {known}"
            elif param.kinds and outputs[output] not in param.kinds:
                yield f"{where} {to!r}, a {outputs[output]}, and needs a {' or '.join(param.kinds)}"

    def _near(self, label: str) -> str:
        hint = nearest(label, self._given)
        return hint and f"; {hint}"

    def _sharing(self) -> Iterator[str]:
        """Streams that cannot be shared, and are."""
        for label, one in self.stages.items():
            after = [node.label for node in self.nodes.values() if node.upstream == label]
            if one.output and not one.output.is_shared and len(after) > 1:
                yield (
                    f"{label}: gives each message to one stage only, and {' and '.join(after)}"
                    " follow it; put a Buffer between"
                )


def in_order(nodes: Mapping[str, Node]) -> list[Node]:
    """Protocols, each after those it needs, and else as they were given.

    Raises:
        SettingsError: they need each other in a circle.
    """
    needs = {
        label: [need for need in node.needs() if need in nodes] for label, node in nodes.items()
    }
    sorter = graphlib.TopologicalSorter(needs)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        # It lists who is needed before who needs it, and the first once more at the end.
        circle = list(reversed(error.args[1]))[1:]
        start = circle.index(min(circle))
        names = [*circle[start:], *circle[: start + 1]]
        raise SettingsError(
            f"cycle: {' needs '.join(names)}; remove one of these connections"
        ) from error
    places = {label: place for place, label in enumerate(nodes)}
    ordered: list[Node] = []
    while sorter.is_active():
        free = sorted(sorter.get_ready(), key=places.__getitem__)
        ordered += [nodes[label] for label in free]
        sorter.done(*free)
    return ordered
