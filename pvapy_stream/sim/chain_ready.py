"""Whether the stages of a chain are connected, as their status channels show."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any, cast

from pvapy_stream.errors import ObjectError, TransportError
from pvapy_stream.pva.lazy import pv_object
from pvapy_stream.pva.newest import Newest

_GET_TIMEOUT = 0.5  # s; to connect, and to get an answer
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
    statuses = [Newest(name) for name in dict.fromkeys(channels)]
    try:
        waiting = statuses
        while waiting:
            waiting = [status for status in waiting if not _receives(status)]
            if time.monotonic() >= end or (waiting and stop.wait(_POLL)):
                break
        return [status.name for status in waiting]
    finally:
        for status in statuses:
            status.close()


def _receives(channel: Newest) -> bool:
    try:
        found = pv_object(channel.get(_GET_TIMEOUT))
    except (TransportError, ObjectError):
        # It is not there yet, or its program is busy.
        return False
    status = cast("dict[str, Any]", found.toDict())
    counters = [status[name][_RECEIVER] for name in status if name.startswith("producerStats_")]
    counters = counters or [status.get(_RECEIVER, {})]
    counters += [status[name]["queueStats"] for name in status if name.startswith("metadataStats_")]
    return all(counter.get("nReceived", 0) > 0 for counter in counters)
