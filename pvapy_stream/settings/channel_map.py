"""The mirror server's channel map: channels, their sources and requests."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from pvapy_stream.errors import SettingsError
from pvapy_stream.transport import registry

_OPTIONS = re.compile(r"\[([^\]]*)\]")
_PAIRS = {")": "(", "]": "["}


class MirrorEntry(Struct, frozen=True):
    """One mirrored channel.

    Attributes:
        mirror: name of the channel on the mirror.
        source: name of the channel on the source's server.
        provider: ``pva``, ``ca``, or another mode that needs only the name of a channel.
        queue: objects the source's server keeps for each monitor; 0 for its default.
        n_monitors: monitors that share the stream, by the distributor named in the request.
        request: fields and their options, ``a,b[…]`` or ``field(a,b[…])``; all fields when empty.
    """

    mirror: str
    source: str
    provider: str = "pva"
    queue: int = 0
    n_monitors: int = 1
    request: str = ""

    @property
    def pv_request(self) -> str:
        """The request that the monitors make."""
        fields = self.request or registry.input_mode(self.provider).default_fields
        whole = fields if fields.startswith(("field(", "record[")) else f"field({fields})"
        return f"record[queueSize={self.queue}]{whole}" if self.queue else whole

    @property
    def distribution(self) -> dict[str, str] | None:
        """What the request asks of the distributor, such as group and set; None if nothing."""
        for options in _OPTIONS.findall(self.request):
            plugin, equals, values = options.partition("=")
            if equals and plugin.strip() != "queueSize":
                pairs = (part.partition(":") for part in values.split(";"))
                return {key.strip(): value.strip() for key, _, value in pairs}
        return None


def parse_channel_map(text: str) -> tuple[MirrorEntry, ...]:
    """Read ``(mirror,source[,pva|ca[,queue[,n_monitors,request]]]),(…)``.

    Raises:
        SettingsError: naming the entry that is wrong.
    """
    entries = tuple(_parse_entry(part) for part in _split_entries(text))
    if not entries:
        raise SettingsError(f"--channel-map: {text!r} has no entry; {_form()}")
    seen: set[str] = set()
    for entry in entries:
        if entry.mirror in seen:
            raise SettingsError(
                f"--channel-map: two entries have the channel {entry.mirror!r}; give them"
                " different names"
            )
        seen.add(entry.mirror)
    return entries


def _form() -> str:
    providers = "|".join(registry.providers())
    return f"write (mirror,source[,{providers}[,queue[,n_monitors,request]]]),(…)"


def _can_be_mirrored(provider: str) -> bool:
    end = registry.find(provider).input if registry.is_known(provider) else None
    return end is not None and (end.monitors or end.images)


def _split_entries(text: str) -> Iterator[str]:
    """The text in the outermost parentheses; requests may contain brackets.

    As with PvaPy, parentheses and commas around entries may be left out: ``mirror,source``.
    """
    open_brackets: list[str] = []
    start = 0
    for position, char in enumerate(text):
        if not open_brackets and char != "(":
            if char.isspace() or char in ",)":
                continue
            open_brackets.append("(")
            start = position
        elif char in "([":
            if not open_brackets:
                start = position + 1
            open_brackets.append(char)
        elif char in ")]":
            if open_brackets.pop() != _PAIRS[char]:
                raise SettingsError(
                    f"--channel-map: brackets do not match in {text[start - 1 : position + 1]!r}"
                )
            if not open_brackets:
                yield text[start:position]
    if open_brackets == ["("]:
        yield text[start:]
    elif open_brackets:
        raise SettingsError(f"--channel-map: entry {text[start - 1 :]!r} is not closed; {_form()}")


def _parse_entry(text: str) -> MirrorEntry:
    def wrong(why: str) -> SettingsError:
        return SettingsError(f"--channel-map: entry ({text}) {why}; {_form()}")

    # The request is the last part; commas in it are its own.
    parts = [part.strip() for part in text.split(",", 5)]
    if len(parts) < 2 or not parts[0] or not parts[1]:
        raise wrong("needs a mirror and a source channel")
    mirror, source, provider, queue, monitors, request = (
        parts + ["pva", "0", "1", ""][len(parts) - 2 :]
    )
    if not _can_be_mirrored(provider.lower()):
        raise wrong(f"has the unknown provider {provider!r}")
    if not queue.removeprefix("+").isdecimal():
        raise wrong(f"has the queue {queue!r}, which is not a whole number from 0 on")
    if not monitors.isdecimal() or int(monitors) < 1:
        raise wrong(f"has {monitors!r} monitors, which is not a whole number from 1 on")
    if mirror == source:
        raise wrong("mirrors a channel under its own name")
    if int(queue) and request.startswith("record["):
        raise wrong("gives a queue and a record[…] in the request; give one of them")
    return MirrorEntry(mirror, source, provider.lower(), int(queue), int(monitors), request)
