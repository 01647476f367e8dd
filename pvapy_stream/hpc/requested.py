"""Whether a source has the fields that are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.monitor_request import field_names
from pvapy_stream.settings import StageSettings
from pvapy_stream.transport.ports import Deliver


def checking(
    settings: StageSettings, channel: str, deliver: Deliver, report: Callable[[Exception], None]
) -> Deliver:
    """A `deliver` that looks at the first object for the fields that are asked for.

    A server leaves out a field that it does not have, and sends the others.

    Args:
        settings: of the stage; without a field request, `deliver` itself comes back.
        channel: the source, for the message.
        deliver: gets each object.
        report: gets an error that names the fields that are missing.
    """
    wanted = field_names(settings.field_request)
    if not wanted:
        return deliver
    checked = False

    def check_first(obj: StreamObject) -> bool | None:
        nonlocal checked
        if not checked:
            checked = True
            missing = [
                name for name in wanted if isinstance(obj, pva.PvObject) and not _has(obj, name)
            ]
            if missing:
                report(
                    TransportError(
                        f"channel {channel} has no field {', '.join(missing)}; correct"
                        f" --field-request {settings.field_request} (pvinfo {channel} lists all)"
                    )
                )
        return deliver(obj)

    return check_first


def _has(obj: StreamObject, path: str) -> bool:
    kind: Any = obj.getStructureDict()
    for part in path.split("."):
        # A union can hold any field.
        if not isinstance(kind, dict):
            return True
        if part not in kind:
            return False
        kind = kind[part]
    return True
