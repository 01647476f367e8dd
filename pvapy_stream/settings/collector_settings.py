"""Settings of collectors."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.incumbent import at_least
from pvapy_stream.settings.stage_settings import StageSettings
from pvapy_stream.settings.text_types import IdList

# What a cache holds for each producer when its size is not given.
_CACHE_PER_PRODUCER = 10


class CollectorSettings(StageSettings):
    """A collector: gathers what several producers publish, in the order of ids."""

    collector_id: Annotated[int, opt("-id --collector-id", "Collector", metavar="N")] = Field(
        1, description="id of the collector"
    )
    producer_id_list: Annotated[
        IdList, opt("-pid --producer-id-list", "Collector", metavar="LIST")
    ] = Field(
        (1, 2),
        description=(
            "ids of the producers, which replace * in the input channel: 1,2,5 or"
            " range(first,last+1[,step])"
        ),
    )
    collector_cache_size: Annotated[
        int,
        at_least(-1, "--collector-cache-size"),
        opt("-ccs --collector-cache-size", "Collector", "objects", metavar="N"),
    ] = Field(
        -1,
        ge=-1,
        description=(
            "objects held while smaller ids may still arrive; when it is full, the object with"
            " the smallest id is released; -1: 10 for each producer, more for small images, up to"
            " 256 MB; at least one for each"
        ),
    )
    oid_offset: Annotated[int, opt("-oo --oid-offset", "Object ids", metavar="N")] = Field(
        1, description="step between successive ids of all producers together; 0 or less: 1"
    )
    gap_timeout: Annotated[float, opt("--gap-timeout", "Collector", "s", metavar="T")] = Field(
        5.0, gt=0, description="longest time that an object waits for a silent producer"
    )
    producer_disorder: Annotated[
        int, opt("--producer-disorder", "Collector", "ids", metavar="N")
    ] = Field(
        0, ge=0, description="by how much the ids of one producer may decrease within its stream"
    )

    @model_validator(mode="after")
    def _producers_differ(self) -> CollectorSettings:
        if not self.producer_id_list:
            raise ValueError("--producer-id-list is empty; give the ids of the producers, as 1,2")
        if len(self.producer_id_list) > 1 and "*" not in self.input_channel:
            raise ValueError(
                f"--input-channel {self.input_channel} has no * for the ids of the"
                f" {len(self.producer_id_list)} producers; write it like {self.input_channel}:*"
            )
        self.refuse_same_names("collector", self.producers.values())
        return self

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the stages of this command."""
        return (self.collector_id,)

    @property
    def producers(self) -> dict[int, str]:
        """Channels of the producers by id."""
        return {
            number: self.named(self.input_channel, "consumer", "output", number)
            for number in self.producer_id_list or ()
        }

    @property
    def cache_size(self) -> int:
        """Most objects held, given or computed."""
        producers = len(self.producer_id_list or ())
        if self.collector_cache_size < 0:
            return producers * _CACHE_PER_PRODUCER
        return max(self.collector_cache_size, producers)
