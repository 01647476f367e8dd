"""The graph of a workflow: protocols and their connections."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pvapy_stream.errors import SettingsError
from pvapy_stream.workflow.model.base_protocol import BaseProtocol
from pvapy_stream.workflow.model.node import Node
from pvapy_stream.workflow.model.plan import WorkflowPlan, in_order
from pvapy_stream.workflow.model.protocol_classes import Kind, find_class, reference
from pvapy_stream.workflow.model.streaming_stage import Site

_LABEL = re.compile(r"[^.\s/][^./\n]*")
_STAGE_LABEL = re.compile(r"[A-Za-z0-9_-]+")


class Workflow:
    """Protocols and their connections; from a file or from Python.

    Args:
        name: of the workflow.
        description: for people.
        channels: prefix of channel names; "": a different one for each run.
        sources: folder to which relative names of classes and input files refer.
    """

    def __init__(
        self, name: str = "", description: str = "", channels: str = "", sources: Path | None = None
    ) -> None:
        self.name = name
        self.description = description
        self.channels = channels
        self.sources = sources or Path()
        self.nodes: dict[str, Node] = {}
        self._plan: tuple[Site, WorkflowPlan] | None = None

    def add(
        self,
        protocol: BaseProtocol,
        label: str,
        after: Iterable[str | Node] = (),
        comment: str = "",
    ) -> Node:
        """Add a protocol.

        Args:
            protocol: with its parameters; pointers are given as ``node["output"]``.
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
                f"two protocols have the label {node.label!r}; give them different labels"
            )
        form = _STAGE_LABEL if node.is_stage else _LABEL
        if not form.fullmatch(node.label):
            allowed = "letters, digits, _ and -" if node.is_stage else "anything but . and /"
            raise SettingsError(f"label {node.label!r} is not possible here; use {allowed}")
        self.nodes[node.label] = node
        self._plan = None
        return node

    def copy(self) -> Workflow:
        """A copy, which is independent of later changes."""
        made = Workflow(self.name, self.description, self.channels, self.sources)
        for node in self.nodes.values():
            made.add_node(replace(node, params=dict(node.params)))
        return made

    def find(self, class_name: str) -> Kind:
        """The class of a name in this workflow's files."""
        return find_class(class_name, self.sources)

    def plan(self, site: Site) -> WorkflowPlan:
        """The workflow, checked and connected for a run; made once for each site."""
        if self._plan is None or self._plan[0] != site:
            self._plan = site, WorkflowPlan(self.nodes, site)
        return self._plan[1]

    def problems(self) -> list[str]:
        """All errors that do not depend on the site, a sentence each."""
        return WorkflowPlan(self.nodes, Site("")).problems

    def check(self) -> None:
        """Check whether it can run.

        Raises:
            SettingsError: with all errors.
        """
        WorkflowPlan(self.nodes, Site("")).check()

    def in_order(self) -> list[Node]:
        """All protocols, each after those it needs.

        Raises:
            SettingsError: they depend on each other in a cycle.
        """
        return in_order(self.nodes)

    def stages(self) -> list[Node]:
        """Streaming stages, each after those it follows."""
        return [node for node in self.in_order() if node.is_stage]

    def follows(self, node: Node) -> str:
        """Label of the stage whose stream a stage receives; "" for none."""
        return node.upstream
