"""Options of mode ``shm``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pvapy_stream.base_settings import Settings, lower, opt


class ShmSettings(Settings):
    """Options of outputs in shared memory."""

    shm_overflow: Annotated[
        Literal["block", "drop-newest", "drop-oldest"],
        BeforeValidator(lower),
        opt("--shm-overflow", "Shared memory"),
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
        description=(
            "longest wait for a subscriber whose queue is full; then it counts as stuck, and its"
            " objects are rejected until it takes one"
        ),
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
