"""Status channels of programs that are not stages, on a separate server.

All servers of the binding in one process serve the same channels, and a client of a status channel
must not count as a client of a simulator or a mirror. So this is a server of this package.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from pvapy_stream.pva.channel_structures import bounded
from pvapy_stream.pva.net.environment import ServerSettings
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.server_channel import Channel, Value
from pvapy_stream.pva.search import NameCheck, TwinWatch
from pvapy_stream.pva.wire.types import Kind, Scalar, Structure
from pvapy_stream.status.fields import Field, fields_of
from pvapy_stream.status.snapshot import Snapshot

_PERIOD = 0.5  # s
_LAST_STATUS = 0.3  # s; how long the final status stays before the server goes
_END_LIMIT = 10.0  # s
_TIME = Structure(
    "time_t",
    (
        ("secondsPastEpoch", Scalar(Kind.LONG)),
        ("nanoseconds", Scalar(Kind.INT)),
        ("userTag", Scalar(Kind.INT)),
    ),
)

_log = logging.getLogger(__name__)

Collect = Callable[[], Sequence[Snapshot]]


@contextmanager
def shown_on(
    names: Sequence[str],
    collect: Collect,
    last: Collect | None = None,
    incarnation: int = 1,
    beside: bool = False,
) -> Iterator[None]:
    """Publish the status of a program on channels, from a thread, while the block runs.

    Args:
        names: names of the channels; without any, no server is started.
        collect: returns a snapshot for each, always with the same fields; called from the thread.
        last: returns the final ones; default: `collect`.
        incarnation: how often the program was started, this time included.
        beside: whether the program has another server, which uses the port of the environment.

    Raises:
        TransportError: another program serves one of the channels, or no port is free.
    """
    if not names:
        yield
        return
    NameCheck(names).refuse(incarnation)
    environment = ServerSettings.of()
    server = Server(replace(environment, port=0) if beside else environment)
    channels = [
        Channel(name, _type(fields_of(one)), _value(fields_of(one)))
        for name, one in zip(names, collect(), strict=True)
    ]
    for channel in channels:
        server.add(channel)
    stop = threading.Event()
    twin = ""

    def report(message: str) -> None:
        nonlocal twin
        twin = message
        _log.error("%s", message)

    def publish(snapshots: Collect) -> None:
        try:
            for channel, one in zip(channels, snapshots(), strict=True):
                message = bounded(one.message or twin)
                stamped = replace(one, object_time=time.time(), message=message)
                server.update(channel, _value(fields_of(stamped)))
        except Exception:
            # A failure of the status must not end the program.
            _log.exception("status channels %s", ", ".join(names))

    def run() -> None:
        while not stop.wait(_PERIOD):
            publish(collect)

    publish(collect)
    server.start()
    twins = TwinWatch(names, report)
    thread = threading.Thread(target=run, name="status-channel", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        twins.stop()
        thread.join(_END_LIMIT)
        publish(last or collect)
        time.sleep(_LAST_STATUS)
        server.stop()


def _type(found: Iterable[Field]) -> Structure:
    return Structure("", tuple((one.name, _kind(one)) for one in found))


def _kind(one: Field) -> Scalar | Structure:
    if one.kind == "TIME":
        return _TIME
    return Scalar(Kind[one.kind]) if one.kind else _type(one.value)


def _value(found: Iterable[Field]) -> Value:
    return {one.name: _plain(one) for one in found}


def _plain(one: Field) -> object:
    if one.kind == "TIME":
        seconds, part = divmod(one.value, 1)
        return {"secondsPastEpoch": int(seconds), "nanoseconds": int(part * 1e9), "userTag": 0}
    return one.value if one.kind else _value(one.value)
