"""A kind of monitor that another package brings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from pvapy_stream.base_settings import opt
from pvapy_stream.monitor import MonitorKind, Sample, SamplingMonitor
from pvapy_stream.settings import MonitorSettings


class DoorSettings(MonitorSettings):
    """Whether a door is open."""

    QUANTITIES: ClassVar[Mapping[str, str]] = {"open": ""}

    door: Annotated[str, opt("--door", "Door", metavar="FILE")] = Field(
        description="file that is there as long as the door is open"
    )


class DoorMonitor(SamplingMonitor):
    """Looks at the door."""

    kind = "door"

    def __init__(self, settings: DoorSettings, *rest: object) -> None:
        super().__init__(settings, *rest)  # pyright: ignore[reportArgumentType]
        self._door = Path(settings.door)

    def sample(self) -> list[Sample]:
        return [Sample(self._door.name, "open", float(self._door.exists()))]


MONITOR = MonitorKind("door", DoorSettings, DoorMonitor, "whether a door is open")
