"""Settings of the ways in and out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pvapy_stream.settings.base import Settings, opt
from pvapy_stream.settings.ejfat import check_ejfat
from pvapy_stream.settings.values import JsonObject, lower, mode_name


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


class TransportSettings(ShmSettings):
    """How objects come in, and how they go out."""

    input_mode: Annotated[
        Literal["pva", "ca", "pvas", "rpc", "shm", "auto", "ejfat"],
        BeforeValidator(mode_name),
        opt("-im --input-mode", "Channels"),
    ] = Field(
        "pva",
        description=(
            "how objects come in: pva, ca: monitor of a channel; pvas: a channel on our PVA server"
            " that clients put to; rpc: calls; shm: shared memory of this host; auto: shm if the"
            " source is there, else pva; ejfat: UDP datagrams (experimental)"
        ),
    )
    input_args: Annotated[JsonObject, opt("-ia --input-args", "Channels", metavar="JSON")] = Field(
        default_factory=dict, description="JSON object for input mode ejfat; the others need none"
    )
    output_mode: Annotated[
        Literal["pvas", "pva", "rpc", "shm", "both", "ejfat"],
        BeforeValidator(mode_name),
        opt("-om --output-mode", "Channels"),
    ] = Field(
        "pvas",
        description=(
            "how objects go out: pvas: a channel on our PVA server; pva: puts to another's channel;"
            " rpc: calls; shm: shared memory of this host; both: pvas and shm; ejfat: UDP datagrams"
            " (experimental)"
        ),
    )
    output_args: Annotated[JsonObject, opt("-oa --output-args", "Channels", metavar="JSON")] = (
        Field(
            default_factory=dict,
            description="JSON object for output mode ejfat; the others need none",
        )
    )
    remote_timeout: Annotated[float, opt("--remote-timeout", "Channels", "s", metavar="T")] = Field(
        5,
        gt=0,
        description=(
            "longest time an object is tried again when the other side of output mode pva or rpc"
            " fails"
        ),
    )

    @model_validator(mode="after")
    def _arguments_fit(self) -> TransportSettings:
        if self.input_mode == "ejfat":
            check_ejfat("input", self.input_args)
        if self.output_mode == "ejfat":
            check_ejfat("output", self.output_args)
        return self
