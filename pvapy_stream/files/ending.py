"""What is recorded in a file when it is closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of an acquisition, as its file records it.

    Attributes:
        last: later pulse ids are removed from the file; None: all are kept.
        lost: first and last pulse id of ranges that are not in it.
        general: texts for /general that have changed.
        about: attributes of the acquisition, by name.
    """

    last: int | None = None
    lost: Sequence[tuple[int, int]] = ()
    general: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, str | int] = field(default_factory=dict)


PLAIN = Ending()
