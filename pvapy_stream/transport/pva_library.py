"""Which library sends and receives by PVAccess, and how hosted channels treat slow subscribers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pvapy_stream.base_settings import OVERFLOW_TIMEOUT, Overflow, Settings, lower, opt


class PvaLibrarySettings(Settings):
    """Which library is used."""

    pva_library: Annotated[
        Literal["auto", "own", "binding"],
        BeforeValidator(lower),
        opt("--pva-library", "PVAccess"),
    ] = Field(
        "auto",
        description=(
            "library for PVAccess: own: this package; binding: pvapy; auto: this package, and"
            " pvapy for what it does not support"
        ),
    )


class PvaSettings(PvaLibrarySettings):
    """Options of hosted channels."""

    pva_overflow: Annotated[Overflow, BeforeValidator(lower), opt("--pva-overflow", "PVAccess")] = (
        Field(
            "block",
            description=(
                "overflow policy if the queue of a pipeline subscriber is full: block waits for a"
                " limited time; the others drop an object and count it; for plain monitors the"
                " newest objects are merged"
            ),
        )
    )
    pva_timeout: Annotated[float, opt("--pva-timeout", "PVAccess", "s", metavar="T")] = Field(
        5,
        gt=0,
        description=OVERFLOW_TIMEOUT,
    )
