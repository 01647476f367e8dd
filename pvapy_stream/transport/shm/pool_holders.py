"""Who holds the slots of a payload pool: programs by their names, channels, and since when."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.shm.peer_directory import PeerDirectory
from pvapy_stream.transport.shm.peer_file import SUBSCRIBER, SubscriberInfo

_MAX_NAME = 200  # characters of a name in a peer file
_MAX_NAMED = 8  # holders in one text
_MAX_CHANNELS = 3


class Held(NamedTuple):
    """What a process holds of a pool.

    Attributes:
        n_slots: number of slots.
        since: when the oldest payload was first seen in its slot, s since 1970.
    """

    n_slots: int
    since: float


def names_for_others(channel: str) -> tuple[str, str]:
    """Names of this program and of a channel, for messages of other programs."""
    file, *words = sys.argv or [""]
    path = Path(file)
    name = "pvapy-stream" if "pvapy_stream" in path.parts else path.name
    command = words[0] if words and words[0].isidentifier() else ""
    return f"{name} {command}".strip()[:_MAX_NAME], channel[:_MAX_NAME]


def explain(n_slots: int, own: int, held: Mapping[int, Held], queued: Mapping[int, int]) -> str:
    """Why there is no free slot, and who holds them.

    Args:
        n_slots: slots of the pool.
        own: slots that this program itself holds.
        held: what other processes hold, by process id.
        queued: references in the queues of subscribers, by process id.
    """
    known = _subscribers()
    holders = sorted({*held, *queued}, key=lambda pid: -(held[pid].n_slots if pid in held else 0))
    texts = [
        _holder(known.get(pid, []), pid, held.get(pid), queued.get(pid, 0))
        for pid in holders[:_MAX_NAMED]
    ]
    if len(holders) > _MAX_NAMED:
        texts.append(f"{len(holders) - _MAX_NAMED} more processes")
    if own:
        texts.append(f"this program: {own}, for the queues of subscribers or to be written")
    return (
        f"all {n_slots} slots of the payload pool are in use, so objects are copied at each stage;"
        f" held by {'; '.join(texts)}"
    )


def _holder(infos: list[SubscriberInfo], pid: int, held: Held | None, queued: int) -> str:
    who = infos[0].who if infos else f"process {pid}"
    names = sorted({info.channel for info in infos} - {""})
    channels = f" on channel {', '.join(names[:_MAX_CHANNELS])}" if names else ""
    parts: list[str] = []
    if held is not None:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(held.since))
        parts.append(f"{held.n_slots}, the oldest since {since}")
    if queued:
        parts.append(f"{queued} in its queue")
    return f"{who}{channels}: {', '.join(parts)}"


def _subscribers() -> dict[int, list[SubscriberInfo]]:
    """The subscribers of all channels, by their process ids."""
    found: dict[int, list[SubscriberInfo]] = {}
    for info in _infos():
        found.setdefault(info.pid, []).append(info)
    return found


def _infos() -> Iterator[SubscriberInfo]:
    directory = PeerDirectory("")
    with contextlib.suppress(OSError):
        for folder in directory.path.parent.iterdir():
            directory.path = folder
            for name in directory.names(SUBSCRIBER.prefix):
                file = directory.open(SUBSCRIBER, name)
                if file is None:
                    continue
                try:
                    yield file.read_info()
                except TransportError:
                    # One of another version; its publisher reports it.
                    continue
                finally:
                    file.close(remove=False)
