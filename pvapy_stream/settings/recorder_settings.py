"""Settings of the recorder of streams."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.consumer_settings import FixedProcessorSettings


class RecordSettings(FixedProcessorSettings):
    """A consumer whose processor records the stream as it came, with arrival times."""

    processor_name = "recorder"

    # It takes arrival times when objects are delivered, so nothing may wait before it. These are no
    # options of the command either.
    receiver_queue_size: int = Field(-1, ge=-1, le=-1)
    batch_size: int = Field(1, ge=1, le=1)
    batch_timeout: float = 0.1

    output: Annotated[str, opt("-o --output", "Recording", metavar="FILE")] = Field(
        min_length=1, description="file to write; FILE.part until it is closed"
    )
    overwrite: Annotated[bool, opt("--overwrite", "Recording")] = Field(
        False, description="replace an existing file"
    )
    n_objects: Annotated[int, opt("--n-objects", "Recording", "objects", metavar="N")] = Field(
        0, ge=0, description="stop after this number of objects; 0: no limit"
    )
    duration: Annotated[float, opt("--duration", "Recording", "s", metavar="T")] = Field(
        0, ge=0, description="stop this time after the first object; 0: no limit"
    )
    max_size: Annotated[float, opt("--max-size", "Recording", "MB", metavar="X")] = Field(
        0, ge=0, description="stop before the objects take more than this; 0: no limit"
    )

    @property
    def ids(self) -> tuple[int, ...]:
        """The id of the recorder."""
        return (1,)
