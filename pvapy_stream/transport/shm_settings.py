"""Options of mode ``shm``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pvapy_stream.base_settings import Settings, lower, opt


class ShmSettings(Settings):
    """What is published in shared memory."""

    shm_overflow: Annotated[
        Literal["block", "drop-newest", "drop-oldest"],
        BeforeValidator(lower),
        opt("--shm-overflow", "Shared memory"),
    ] = Field(
        "block",
        description=(
            "what a full queue of a subscriber does to our objects: block waits for it, for a"
            " limited time; the others drop objects, which are counted"
        ),
    )
    shm_timeout: Annotated[float, opt("--shm-timeout", "Shared memory", "s", metavar="T")] = Field(
        5,
        gt=0,
        description=(
            "longest wait for a subscriber whose queue is full; then it counts as stuck, and its"
            " objects as rejected until it takes some"
        ),
    )
    shm_queue_size: Annotated[
        int, opt("--shm-queue-size", "Shared memory", "objects", metavar="N")
    ] = Field(
        0,
        ge=0,
        le=4096,
        description=(
            "queue for each subscriber that does not ask for one with --server-queue-size; 0: by"
            " the size of the objects, 4 to 256"
        ),
    )
