"""Settings of the replay of recordings."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.source_settings import SourceSettings
from pvapy_stream.settings.transport import PublishSettings

# Part of the objects that a fault is done to.
Rate = Annotated[float, Field(ge=0, le=1)]


class ReplaySettings(PublishSettings, SourceSettings):
    """A source that publishes the objects of a recording, with faults on request."""

    file: Annotated[str, opt("FILE", "Replay")] = Field(
        min_length=1, description="recording of pvapy-stream record, also FILE.part"
    )
    speed: Annotated[
        Annotated[float, Field(gt=0)] | Literal["max"], opt("--speed", "Replay", metavar="X|max")
    ] = Field(1.0, description="1: as recorded; 2: twice as fast; 0.5: half; max: without any wait")
    loop: Annotated[int, opt("--loop", "Replay", "passes", metavar="N")] = Field(
        1, ge=0, description="publish the recording so often; ids go on; 0: until stopped"
    )
    oid_field: Annotated[str, opt("-of --oid-field", "Replay", metavar="FIELD")] = Field(
        "uniqueId", min_length=1, description="field with the object id"
    )
    drop: Annotated[Rate, opt("--drop", "Faults", metavar="RATE")] = Field(
        0, description="part of the objects, 0 to 1, that are not published"
    )
    delay: Annotated[Rate, opt("--delay", "Faults", metavar="RATE")] = Field(
        0, description="part that are published late, and what follows with them"
    )
    delay_time: Annotated[float, opt("--delay-time", "Faults", "s", metavar="T")] = Field(
        0.05, gt=0, description="how late"
    )
    duplicate: Annotated[Rate, opt("--duplicate", "Faults", metavar="RATE")] = Field(
        0, description="part that are published twice"
    )
    reorder: Annotated[Rate, opt("--reorder", "Faults", metavar="RATE")] = Field(
        0, description="part that are published after the object that follows them"
    )
    corrupt: Annotated[Rate, opt("--corrupt", "Faults", metavar="RATE")] = Field(
        0, description="part in whose largest array a byte is wrong"
    )
    reconnect: Annotated[Rate, opt("--reconnect", "Faults", metavar="RATE")] = Field(
        0, description="part before which the channel disappears, and comes back"
    )
    reconnect_time: Annotated[float, opt("--reconnect-time", "Faults", "s", metavar="T")] = Field(
        0.5, ge=0, description="how long it is away"
    )
    seed: Annotated[int, opt("--seed", "Faults", metavar="N")] = Field(
        1, description="the same seed makes the same faults, at any speed"
    )

    @property
    def scale(self) -> float:
        """What recorded times are divided by; infinite: without any wait."""
        return math.inf if self.speed == "max" else self.speed

    @property
    def rates(self) -> dict[str, float]:
        """Rates of the faults by kind."""
        return {
            "drop": self.drop,
            "delay": self.delay,
            "duplicate": self.duplicate,
            "reorder": self.reorder,
            "corrupt": self.corrupt,
            "reconnect": self.reconnect,
        }

    @model_validator(mode="after")
    def _is_finite(self) -> ReplaySettings:
        if self.speed != "max" and not math.isfinite(self.speed):
            raise ValueError(f"--speed: {self.speed} is no number; give max for no wait")
        return self
