"""Settings of the mirror server."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.common import (
    LedgerSettings,
    LoggingSettings,
    MetricsSettings,
    StatusSettings,
)
from pvapy_stream.settings.modes import ProvidersHelp
from pvapy_stream.transport.pva_library import PvaSettings


class MirrorSettings(LoggingSettings, LedgerSettings, MetricsSettings, StatusSettings, PvaSettings):
    """A server that republishes channels of other servers under its own names."""

    channel_map: Annotated[
        str, ProvidersHelp(), opt("-cm --channel-map", "Channels", metavar="MAP")
    ] = Field(
        min_length=1, description="(mirror,source[,PROVIDERS[,queue[,n_monitors,request]]]),(…)"
    )
    runtime: Annotated[float, opt("-rt --runtime", "Run", "s", metavar="T")] = Field(
        0, description="stop after this time; 0: run until stopped"
    )
    wait_for_consumers: Annotated[int, opt("--wait-for-consumers", "Run", metavar="N")] = Field(
        0,
        ge=0,
        description=(
            "pass objects on only when this number of clients are connected; earlier objects are"
            " reported and in the ledger"
        ),
    )
    wait_timeout: Annotated[float, opt("--wait-timeout", "Run", "s", metavar="T")] = Field(
        60,
        gt=0,
        description="longest wait for them; then objects are passed on, and the exit code is 1",
    )
    report_period: Annotated[float, opt("-rp --report-period", "Reporting", "s", metavar="T")] = (
        Field(0, description="time between printed counters; 0: only at the end")
    )
    oid_field: Annotated[str, opt("-of --oid-field", "Accounting", metavar="FIELD")] = Field(
        "uniqueId",
        min_length=1,
        description="field with the object id; without it the ledger stays empty",
    )
