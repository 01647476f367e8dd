"""Whether the stages of a chain are connected, as their status channels tell."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any, cast

import pvaccess as pva

_GET_TIMEOUT = 1.0
_POLL = 0.1
_RECEIVER = "receiverStats"


def wait_for_stages(channels: Iterable[str], timeout: float, stop: threading.Event) -> list[str]:
    """Wait until each stage has received an object from each of its sources and metadata channels.

    Args:
        channels: status channels of consumers and collectors.
        timeout: longest wait, s.
        stop: ends the wait.

    Returns:
        the channels of those that have not.
    """
    end = time.monotonic() + timeout
    waiting = list(channels)
    while waiting:
        waiting = [name for name in waiting if not _receives(name)]
        if time.monotonic() >= end or (waiting and stop.wait(_POLL)):
            break
    return waiting


def _receives(channel: str) -> bool:
    connection = pva.Channel(channel)
    connection.setTimeout(_GET_TIMEOUT)
    try:
        status = cast("dict[str, Any]", connection.get("field()").toDict())
    except pva.PvaException:
        return False
    counters = [status[name][_RECEIVER] for name in status if name.startswith("producerStats_")]
    counters = counters or [status.get(_RECEIVER, {})]
    counters += [status[name]["queueStats"] for name in status if name.startswith("metadataStats_")]
    return all(counter.get("nReceived", 0) > 0 for counter in counters)
