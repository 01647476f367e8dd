"""Whether the stages of a chain are connected, as their status channels show."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from itertools import chain, repeat
from typing import Any, cast

import pvaccess as pva

# A channel that is not there yet is searched for at growing intervals: it is soonest found by who
# begins anew. Later tries are more patient, as the network may be slow.
_GET_TIMEOUTS = (0.3, 0.3, 0.5, 1.0)  # s; the last one from then on
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
    patience = chain(_GET_TIMEOUTS, repeat(_GET_TIMEOUTS[-1]))
    while waiting:
        try_for = next(patience)
        waiting = [name for name in waiting if not _receives(name, try_for)]
        if time.monotonic() >= end or (waiting and stop.wait(_POLL)):
            break
    return waiting


def _receives(channel: str, timeout: float) -> bool:
    connection = pva.Channel(channel)
    connection.setTimeout(timeout)
    try:
        status = cast("dict[str, Any]", connection.get("field()").toDict())
    except pva.PvaException:
        return False
    counters = [status[name][_RECEIVER] for name in status if name.startswith("producerStats_")]
    counters = counters or [status.get(_RECEIVER, {})]
    counters += [status[name]["queueStats"] for name in status if name.startswith("metadataStats_")]
    return all(counter.get("nReceived", 0) > 0 for counter in counters)
