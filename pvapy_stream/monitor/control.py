"""Commands to stages, over their control channels."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import cast

from pvapy_stream.errors import MonitorError, TransportError
from pvapy_stream.pva.net import client
from pvapy_stream.pva.net.client_channel import ClientChannel
from pvapy_stream.pva.net.client_errors import NoAnswerError, RefusedError

_POLL = 0.05  # s
_CONNECTED = 5.0  # s; a channel that is there is found by then
_PUT = "command,args"


def send_command(channel: str, command: str, args: str = "", timeout: float = 10.0) -> str:
    """Put a command on a control channel and wait for the reply.

    Args:
        channel: the control channel of a stage.
        command: such as ``get_stats``.
        args: JSON, for ``configure``.
        timeout: s.

    Returns:
        what the stage says; it begins with ``Error`` when the command failed.

    Raises:
        MonitorError: the channel is not there, or there is no reply in time.
    """
    # Not by the binding: its get waits without limit when a connection is cut meanwhile.
    pv = client.channel(channel)
    end = time.monotonic() + timeout
    begin = min(timeout, _CONNECTED)
    try:
        before = _held(pv, "objectTime", begin)["objectTime"]
        kind = pv.put_kind(begin, _PUT)
        with suppress(NoAnswerError):
            # It has been put; who is slow may still reply.
            pv.put(kind, {"command": command, "args": args}, begin, _left(end), _PUT)
        while _left(end) > 0:
            with suppress(NoAnswerError):
                reply = _held(pv, "objectTime,statusMessage", max(_left(end), _POLL))
                if reply["objectTime"] != before:
                    return str(reply["statusMessage"])
            time.sleep(_POLL)
    except RefusedError as error:
        if "is not allowed" in str(error):
            raise MonitorError(
                f"control channel {channel} takes no commands from this user and host; see"
                " --control-from or --access-security of the stage"
            ) from error
        raise MonitorError(f"{channel} is no control channel of a stage: {error}") from error
    except TransportError as error:
        raise MonitorError(f"control channel {channel} does not answer: {error}") from error
    finally:
        pv.close()
    raise MonitorError(f"control channel {channel}: no reply to {command} within {timeout:g} s")


def _left(end: float) -> float:
    return end - time.monotonic()


def _held(pv: ClientChannel, fields: str, limit: float) -> dict[str, object]:
    """What the channel holds; `limit` s for it to be there, and as long for its answer."""
    return cast("dict[str, object]", pv.get(fields, limit, limit).value)
