"""What stages and protocols of steps have in common: parameters and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pvapy_stream.workflow.model.parameters import Form


class BaseProtocol:
    """One box of a workflow: a streaming stage, or a protocol of steps.

    Attributes:
        label: name for people.
        outputs: what other protocols may point to, as name: kind.
        streaming: whether it works on input sets that are still open; if not, it waits for CLOSED.
        given: parameters as they were given.
    """

    label: ClassVar[str] = ""
    outputs: ClassVar[Mapping[str, str]] = {}
    streaming: ClassVar[bool] = True

    def __init__(self, **params: object) -> None:
        self.given = params

    @classmethod
    def form(cls) -> Form:
        """All parameters."""
        raise NotImplementedError

    def problems(self) -> list[str]:
        """What is wrong with the parameters, each by its name."""
        raise NotImplementedError
