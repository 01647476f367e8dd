"""Which library sends and receives by PVAccess, and how hosted channels treat slow subscribers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

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

    keep_past: Annotated[float, opt("--keep-past", "PVAccess", "MB", metavar="N")] = Field(
        0,
        ge=0,
        description=(
            "memory for the newest objects of the hosted output, from which receivers with --repair"
            " get objects that they missed; 0: none is kept"
        ),
    )
    keep_past_age: Annotated[float, opt("--keep-past-age", "PVAccess", "s", metavar="T")] = Field(
        0, ge=0, description="longest time for which --keep-past keeps an object; 0: no limit"
    )

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

    @model_validator(mode="after")
    def _past_can_be_kept(self) -> PvaSettings:
        if self.keep_past and self.pva_library == "binding":
            raise ValueError("--keep-past needs this package's server, not --pva-library binding")
        if self.keep_past_age and not self.keep_past:
            raise ValueError("--keep-past-age has no effect without --keep-past, the memory for it")
        return self
