"""Which library sends and receives by PVAccess, and how hosted channels treat slow subscribers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pvapy_stream.base_settings import Settings, lower, opt


class PvaLibrarySettings(Settings):
    """Which library is used."""

    pva_library: Annotated[
        Literal["auto", "own", "binding"],
        BeforeValidator(lower),
        opt("--pva-library", "PVAccess"),
    ] = Field(
        "auto",
        description=(
            "what sends and receives by PVAccess: own: this package itself; binding: pvapy; auto:"
            " this package, and pvapy for what it cannot do"
        ),
    )


class PvaSettings(PvaLibrarySettings):
    """How channels are hosted."""

    pva_overflow: Annotated[
        Literal["block", "drop-newest", "drop-oldest"],
        BeforeValidator(lower),
        opt("--pva-overflow", "PVAccess"),
    ] = Field(
        "block",
        description=(
            "what the full queue of a subscriber that acknowledges objects (pipeline) does to ours:"
            " block waits for it, for a limited time; the others drop objects, which are counted;"
            " for other subscribers the newest objects are merged"
        ),
    )
    pva_timeout: Annotated[float, opt("--pva-timeout", "PVAccess", "s", metavar="T")] = Field(
        5,
        gt=0,
        description=(
            "longest wait for a subscriber whose queue is full; then it counts as stuck, and its"
            " objects as rejected until it takes some"
        ),
    )
