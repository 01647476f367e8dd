"""One protocol of a workflow, as a file or a program describes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pvapy_stream.workflow.model.base_protocol import BaseProtocol
from pvapy_stream.workflow.model.parameters import Form, Pointer
from pvapy_stream.workflow.model.protocol_classes import Kind
from pvapy_stream.workflow.model.streaming_stage import StreamingStage


@dataclass(slots=True)
class Node:
    """One protocol of a workflow; ``node["output"]`` points to an output of it.

    Attributes:
        label: its unique name.
        class_name: name of the class in files.
        kind: the class.
        params: as they were given; a pointer is ``label.output``.
        after: labels of protocols that must have ended before it starts.
        comment: for people.
    """

    label: str
    class_name: str
    kind: Kind
    params: dict[str, object] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    comment: str = ""
    _form: Form | None = field(default=None, init=False, repr=False, compare=False)

    def __getitem__(self, output: str) -> str:
        return f"{self.label}.{output}"

    @property
    def is_stage(self) -> bool:
        """Whether it is a streaming stage, not a protocol of steps."""
        return issubclass(self.kind, StreamingStage)

    @property
    def upstream(self) -> str:
        """Label of the stage whose stream a stage receives; "" for none."""
        return str(self.params.get("input") or "").partition(".")[0] if self.is_stage else ""

    def form(self) -> Form:
        """Its parameters."""
        if self._form is None:
            self._form = self.kind.form()
        return self._form

    def make(self, **changes: Any) -> BaseProtocol:
        """The protocol itself, with some parameters changed."""
        return self.kind(**{**self.params, **changes})

    def pointers(self) -> Iterator[tuple[str, Pointer, Any]]:
        """Parameters that point to outputs: name, parameter, ``label.output``."""
        for name, param in self.form().pointers().items():
            value = self.params.get(name)
            for one in value if isinstance(value, (list, tuple)) else [value]:
                if one not in (None, ""):
                    yield name, param, one

    def sources(self) -> list[str]:
        """Labels of the protocols it points to."""
        return list(dict.fromkeys(str(to).partition(".")[0] for _, _, to in self.pointers()))

    def needs(self) -> list[str]:
        """Labels of all protocols before it."""
        return list(dict.fromkeys([*self.sources(), *self.after]))
