"""Arguments of mode ``dectris``."""

from __future__ import annotations

from urllib.parse import parse_qs

from pydantic import ConfigDict, Field

from pvapy_stream.base_settings import Settings
from pvapy_stream.errors import SettingsError

_SCHEMES = ("tcp://", "ipc://")
_EXAMPLE = "write tcp://HOST:31001, or tcp://HOST:31001?threshold=NAME"


class DectrisInputSettings(Settings):
    """Arguments of ``--input-args``."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    threshold: str = Field("", description="channel of the detector; default: the first one")
    max_message_size: int = Field(
        2**29, ge=1024, lt=2**40, alias="maxMessageSize", description="limit of a message, bytes"
    )
    queue: int = Field(
        32, ge=1, le=100_000, description="messages that wait here; more wait at the detector"
    )
    silence: float = Field(
        30,
        ge=0,
        description=(
            "time without a message, s, after which images of a series without an end message"
            " count as missed until they come; 0: never"
        ),
    )
    ends_early: bool = Field(
        False,
        alias="endsEarly",
        description="a series that is ended before all of its images came is complete",
    )


def address_of(channel: str) -> tuple[str, str]:
    """Address and threshold of a channel, ``tcp://HOST:PORT?threshold=NAME``; "" for no threshold.

    Raises:
        SettingsError: it is no address.
    """
    address, mark, query = channel.partition("?")
    if not address.startswith(_SCHEMES):
        raise SettingsError(
            f"mode dectris needs the address of a detector as the channel, not {channel!r};"
            f" {_EXAMPLE}"
        )
    if not mark:
        return address, ""
    given = parse_qs(query, keep_blank_values=True)
    if set(given) != {"threshold"} or len(given["threshold"]) != 1 or not given["threshold"][0]:
        raise SettingsError(f"channel {channel}: only one threshold can be chosen; {_EXAMPLE}")
    return address, given["threshold"][0]
