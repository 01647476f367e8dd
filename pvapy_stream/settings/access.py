"""Settings of access rights: which clients may put to control channels."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from pvapy_stream.base_settings import Settings, opt
from pvapy_stream.settings.text_types import Names

_CLIENT = re.compile(r"(?:[A-Za-z0-9_.-]+@(?:\*|[A-Za-z0-9_.-]+)|[A-Za-z0-9_.-]+)")


def _clients(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _CLIENT.fullmatch(name):
            raise ValueError(f"{name!r} is not a client; write HOST, USER@HOST or USER@*")
    return names


class AccessSettings(Settings):
    """Access rights of control channels; outputs and status channels are always read-only."""

    control_from: Annotated[
        Names, AfterValidator(_clients), opt("--control-from", "Access rights", metavar="CLIENTS")
    ] = Field(
        (),
        description=(
            "clients that may put to the control channel, separated by commas: HOST, USER@HOST or"
            " USER@*; default: any client"
        ),
    )
    access_security: Annotated[str, opt("--access-security", "Access rights", metavar="FILE")] = (
        Field(
            "",
            description=(
                "EPICS access security file, instead of --control-from; its group CONTROL, else"
                " DEFAULT, applies to control channels"
            ),
        )
    )

    @model_validator(mode="after")
    def _one_way(self) -> AccessSettings:
        if self.control_from and self.access_security:
            raise ValueError("give --control-from or --access-security, not both")
        return self
