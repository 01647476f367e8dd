"""What is known of a file when it is closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ending:
    """How an acquisition ends, for its file.

    Attributes:
        last: pulse id after which the file is cut off; None for nowhere.
        lost: first and last pulse id of ranges that are not in it.
        general: texts for /general that have changed.
        about: what is noted of the acquisition.
    """

    last: int | None = None
    lost: Sequence[tuple[int, int]] = ()
    general: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, str | int] = field(default_factory=dict)


PLAIN = Ending()
