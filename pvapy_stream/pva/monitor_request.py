"""PV request strings for monitors."""

from __future__ import annotations

import re

from msgspec import Struct


class Distributor(Struct, frozen=True):
    """Options for the distributor plugin of a server."""

    plugin: str = "pydistributor"
    group: str | None = None
    client_set: str | None = None
    trigger: str | None = None
    updates: int | None = None
    mode: str | None = None

    def option(self) -> str:
        """``plugin=key:value;…``, or "" if no option is set."""
        keys = {
            "group": self.group,
            "set": self.client_set,
            "trigger": self.trigger,
            "updates": self.updates,
            "mode": self.mode,
        }
        parts = [f"{key}:{value}" for key, value in keys.items() if value]
        return f"{self.plugin}={';'.join(parts)}" if parts else ""


def field_names(fields: str) -> list[str]:
    """Names in ``a,b[option]`` or ``field(a,b)``, without their options."""
    return [re.split(r"[\[{]", part)[0] for part in _fields(fields)]


def _fields(fields: str) -> list[str]:
    inner = fields.strip().removeprefix("field(").removesuffix(")")
    return [part for part in map(str.strip, inner.split(",")) if part]


def monitor_request(
    fields: str = "",
    *,
    id_field: str = "",
    queue_size: int = 0,
    distributor: Distributor | None = None,
    pipeline: bool = False,
) -> str:
    """Make a monitor request.

    Args:
        fields: fields to receive, ``a,b`` or ``field(a,b)``; all when empty.
        id_field: added to the fields when it is not among them.
        queue_size: objects the server keeps for this monitor; 0 for its default.
        distributor: options for the distributor plugin.
        pipeline: whether the server is to wait for updates to be acknowledged.
    """
    names = _fields(fields)
    option = distributor.option() if distributor else ""
    if names:
        # The id field is first and has the options of the plugin: given for the whole structure
        # (_), they make the server send all fields, whatever else is requested.
        first = id_field.split(".")[0] or names[0]
        rest = [name for name in names if name != first]
        names = [f"{first}[{option}]" if option else first, *rest]
    elif option:
        names = [f"_[{option}]"]
    options = [f"queueSize={queue_size}"] if queue_size > 0 else []
    options += ["pipeline=true"] if pipeline else []
    record = f"record[{','.join(options)}]" if options else ""
    return f"{record}field({','.join(names)})"
