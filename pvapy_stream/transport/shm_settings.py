"""Options of mode ``shm``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from pvapy_stream.base_settings import OVERFLOW_TIMEOUT, Overflow, Settings, lower, opt


class ShmSettings(Settings):
    """Options of outputs in shared memory."""

    shm_overflow: Annotated[
        Overflow, BeforeValidator(lower), opt("--shm-overflow", "Shared memory")
    ] = Field(
        "block",
        description=(
            "overflow policy if the queue of a subscriber is full: block waits for a limited"
            " time; the others drop an object and count it"
        ),
    )
    shm_timeout: Annotated[float, opt("--shm-timeout", "Shared memory", "s", metavar="T")] = Field(
        5,
        gt=0,
        description=OVERFLOW_TIMEOUT,
    )
    shm_queue_size: Annotated[
        int, opt("--shm-queue-size", "Shared memory", "objects", metavar="N")
    ] = Field(
        0,
        ge=0,
        le=4096,
        description=(
            "queue of each subscriber that does not set --server-queue-size; 0: 4 to 256,"
            " depending on the size of the objects"
        ),
    )
