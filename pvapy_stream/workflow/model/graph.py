"""The graph of a workflow: protocols, and the arrows between them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pvapy_stream.errors import SettingsError
from pvapy_stream.workflow.model.base_protocol import BaseProtocol
from pvapy_stream.workflow.model.parameters import Form, Pointer
from pvapy_stream.workflow.model.registry import find_class, reference
from pvapy_stream.workflow.model.streaming_stage import Site, Stage, Stream

_LABEL = re.compile(r"[^.\s/][^./\n]*")
_STAGE_LABEL = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(slots=True)
class Node:
    """One protocol of a workflow; ``node["output"]`` points to an output of it.

    Attributes:
        label: its name, unlike all others.
        class_name: as it stands in files.
        kind: the class.
        params: as they were given; a pointer is ``label.output``.
        after: labels of protocols that must have ended before it starts.
        comment: for people.
    """

    label: str
    class_name: str
    kind: Any
    params: dict[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    comment: str = ""

    def __getitem__(self, output: str) -> str:
        return f"{self.label}.{output}"

    @property
    def is_stage(self) -> bool:
        """Whether it is a program, and not a protocol of steps."""
        return issubclass(self.kind, Stage)

    def form(self) -> Form:
        """Its parameters."""
        return self.kind.form()

    def make(self, **changes: Any) -> Any:
        """The protocol itself, with some parameters changed."""
        return self.kind(**{**self.params, **changes})

    def pointers(self) -> Iterator[tuple[str, Pointer, str]]:
        """Parameters that point to outputs: name, parameter, ``label.output``."""
        for name, param in self.form().pointers().items():
            value = self.params.get(name)
            for one in value if isinstance(value, (list, tuple)) else [value]:
                if one not in (None, ""):
                    yield name, param, one

    def sources(self) -> list[str]:
        """Labels of the protocols it points to."""
        return list(dict.fromkeys(str(to).partition(".")[0] for _, _, to in self.pointers()))


class Workflow:
    """Protocols and arrows; from a file or from Python.

    Args:
        name: of the workflow.
        description: for people.
        channels: what channel names begin with; "" for a name of each run's own.
        sources: folder where files of classes and inputs are looked for.
    """

    def __init__(
        self, name: str = "", description: str = "", channels: str = "", sources: Path | None = None
    ) -> None:
        self.name = name
        self.description = description
        self.channels = channels
        self.sources = sources or Path()
        self.nodes: dict[str, Node] = {}

    def add(
        self,
        protocol: BaseProtocol,
        label: str,
        after: Iterable[str | Node] = (),
        comment: str = "",
    ) -> Node:
        """Add a protocol.

        Args:
            protocol: with its parameters; those that point are given ``node["output"]``.
            label: unlike all others.
            after: protocols that must have ended before it starts.
            comment: for people.

        Raises:
            SettingsError: the label is taken, or is no label.
        """
        return self.add_node(
            Node(
                label,
                reference(type(protocol)),
                type(protocol),
                dict(protocol.given),
                tuple(one.label if isinstance(one, Node) else one for one in after),
                comment,
            )
        )

    def add_node(self, node: Node) -> Node:
        """Add what a file describes.

        Raises:
            SettingsError: the label is taken, or is no label.
        """
        if node.label in self.nodes:
            raise SettingsError(
                f"two protocols are called {node.label!r}; give each a label of its own"
            )
        form = _STAGE_LABEL if node.is_stage else _LABEL
        if not form.fullmatch(node.label):
            allowed = "letters, digits, _ and -" if node.is_stage else "anything but . and /"
            raise SettingsError(f"label {node.label!r} is not possible here; use {allowed}")
        self.nodes[node.label] = node
        return node

    def find(self, class_name: str) -> Any:
        """The class of a name in this workflow's files."""
        return find_class(class_name, self.sources)

    # -- checks ----------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """All that is wrong, a sentence each."""
        if not self.nodes:
            return ["the workflow holds no protocol"]
        found = [problem for node in self.nodes.values() for problem in self._node_problems(node)]
        if not any("points to" in problem or "waits for" in problem for problem in found):
            found += self._cycle()
        return found or self._wiring_problems()

    def _wiring_problems(self) -> list[str]:
        """Stages that do not fit what their arrows bring."""
        streams: dict[str, Stream | None] = {}
        for node in self.stages():
            try:
                source = streams.get(self.follows(node))
                streams[node.label] = node.make().wire(node.label, source, Site("")).output
            except SettingsError as error:
                return [f"{node.label}: {error}"]
        alone = [label for label, one in streams.items() if one and not one.is_shared]
        return [
            f"{label}: gives each message to one stage only, and {' and '.join(after)} follow it;"
            " put a Buffer between"
            for label in alone
            if len(after := self.followers(label)) > 1
        ]

    def check(self) -> None:
        """Look whether it can run.

        Raises:
            SettingsError: all that is wrong.
        """
        problems = self.problems()
        if problems:
            raise SettingsError("; ".join(problems))

    def _node_problems(self, node: Node) -> Iterator[str]:
        for label in node.after:
            if label not in self.nodes:
                yield f"{node.label}: waits for {label!r}, which does not exist{self._near(label)}"
        for name, param, to in node.pointers():
            yield from self._pointer_problems(node, name, param, to)
        yield from (f"{node.label}: {problem}" for problem in node.make().problems())

    def _pointer_problems(self, node: Node, name: str, param: Pointer, to: Any) -> Iterator[str]:
        where = f"{node.label}: {name} points to"
        label, dot, output = to.partition(".") if isinstance(to, str) else ("", "", "")
        if not dot:
            yield f"{where} {to!r}; write it like label.output"
        elif label not in self.nodes:
            yield f"{where} {to!r}, but there is no {label!r}{self._near(label)}"
        else:
            outputs: Mapping[str, str] = self.nodes[label].kind.outputs
            if output not in outputs:
                known = ", ".join(outputs) or "none"
                yield f"{where} {to!r}, but the outputs of {label} are: {known}"
            elif param.kinds and outputs[output] not in param.kinds:
                yield f"{where} {to!r}, a {outputs[output]}, and needs a {' or '.join(param.kinds)}"

    def _near(self, label: str) -> str:
        near = difflib.get_close_matches(label, self.nodes, 1, 0.5)
        return f"; did you mean {near[0]!r}?" if near else ""

    def needs(self, node: Node) -> list[str]:
        """Labels of all that comes before a protocol."""
        return list(dict.fromkeys([*node.sources(), *node.after]))

    def in_order(self) -> list[Node]:
        """All protocols, each after those it needs; those of a cycle are left out."""
        ordered: dict[str, Node] = {}
        while True:
            free = [
                node
                for label, node in self.nodes.items()
                if label not in ordered and all(need in ordered for need in self.needs(node))
            ]
            if not free:
                return list(ordered.values())
            ordered.update((node.label, node) for node in free)

    def _cycle(self) -> list[str]:
        """The first cycle, told from protocol to protocol."""
        stuck = self.nodes.keys() - {node.label for node in self.in_order()}
        if not stuck:
            return []
        # Whoever is stuck needs somebody who is stuck: following that leads into the cycle.
        path = [min(stuck)]
        while True:
            need = next(n for n in self.needs(self.nodes[path[-1]]) if n in stuck)
            if need in path:
                cycle = [*path[path.index(need) :], need]
                return [f"cycle: {' needs '.join(cycle)}; take one of these arrows away"]
            path.append(need)

    # -- streams ---------------------------------------------------------------------------------

    def stages(self) -> list[Node]:
        """Streaming stages, each after those it follows."""
        return [node for node in self.in_order() if node.is_stage]

    def followers(self, label: str) -> list[str]:
        """Labels of the stages that receive a stage's stream."""
        return [node.label for node in self.stages() if self.follows(node) == label]

    def follows(self, node: Node) -> str:
        """Label of the stage whose stream a stage receives; "" for none."""
        to = node.params.get("input") or ""
        return str(to).partition(".")[0]
