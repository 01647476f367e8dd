"""Commands to stages, over their control channels."""

from __future__ import annotations

import time

import pvaccess as pva

from pvapy_stream.errors import MonitorError

_POLL = 0.05  # s


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
    pv = pva.Channel(channel)
    pv.setTimeout(min(timeout, 5.0))
    deadline = time.monotonic() + timeout
    kind = {"command": pva.STRING, "args": pva.STRING}
    try:
        before = pv.get("field(objectTime)")["objectTime"]
        pv.put(pva.PvObject(kind, {"command": command, "args": args}), "field(command,args)")
        while time.monotonic() < deadline:
            reply = pv.get("field(objectTime,statusMessage)")
            if reply["objectTime"] != before:
                return reply["statusMessage"]
            time.sleep(_POLL)
    except pva.PvaException as error:
        if "is not allowed" in str(error):
            raise MonitorError(
                f"control channel {channel} takes no commands from this user and host; see"
                " --control-from or --access-security of the stage"
            ) from error
        raise MonitorError(f"control channel {channel} does not answer: {error}") from error
    raise MonitorError(f"control channel {channel}: no reply to {command} within {timeout:g} s")
