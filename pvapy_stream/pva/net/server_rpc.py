"""The channel ``server``, which every PVAccess server has: what it is, and which channels it has.

``pvlist`` and others call it with ``op=channels`` or ``op=info``.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable, Iterable
from typing import cast

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net.server_channel import Call, ServiceChannel
from pvapy_stream.pva.wire.status import Status
from pvapy_stream.pva.wire.types import AnyValue, Array, Kind, Scalar, Structure

NAME = "server"
IMPLEMENTATION = "pvapy_stream"

_LIST = Structure("epics:nt/NTScalarArray:1.0", (("value", Array(Kind.STRING)),))
_TEXT = Structure("epics:nt/NTScalar:1.0", (("value", Scalar(Kind.STRING)),))
_INFO_FIELDS = ("process", "startTime", "version", "implLang", "host", "os", "arch", "program")
_INFO = Structure("", tuple((name, Scalar(Kind.STRING)) for name in _INFO_FIELDS))
_HELP = "op=channels: names of the channels; op=info: what this server is"


def server_channel(names: Callable[[], Iterable[str]], version: str) -> ServiceChannel:
    """The channel of a server.

    Args:
        names: gives the names of its channels.
        version: of this package.
    """
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")

    def answer(given: AnyValue) -> AnyValue:
        arguments = _fields(given.value)
        arguments = _fields(arguments.get("query")) or arguments
        if "help" in arguments:
            return AnyValue(_TEXT, {"value": _HELP})
        if arguments.get("op") == "channels":
            return AnyValue(_LIST, {"value": sorted(names())})
        if arguments.get("op") == "info":
            return AnyValue(_INFO, _info(started, version))
        raise WireError(f"op={arguments.get('op', '')} is unknown; {_HELP}")

    def on_call(call: Call) -> None:
        try:
            call.answer(answer(call.argument))
        except WireError as error:
            call.finish(Status.error(str(error)))

    return ServiceChannel(NAME, on_call)


def _fields(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _info(started: str, version: str) -> dict[str, object]:
    return {
        "process": str(os.getpid()),
        "startTime": started,
        "version": version,
        "implLang": "python",
        "host": socket.gethostname(),
        "os": platform.system(),
        "arch": platform.machine(),
        "program": IMPLEMENTATION,
    }
