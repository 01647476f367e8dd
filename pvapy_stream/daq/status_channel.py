"""The status of a buffer or a writer as a PVA channel; monitors read it as that of a consumer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pvaccess as pva

from pvapy_stream.hpc.status import Stats, StatusChannel
from pvapy_stream.pva.records import program_status_type

_PERIOD = 0.5  # s
_LAST_STATUS = 0.3  # s; how long the final status stays before the server goes
_END_LIMIT = 10.0  # s

_log = logging.getLogger(__name__)


@contextmanager
def shown_on(
    name: str,
    id_field: str,
    own: dict[str, Any],
    collect: Callable[[], Stats],
    last: Callable[[], Stats] | None = None,
) -> Iterator[None]:
    """Show a program's status on a channel, from a thread, while the block runs.

    Args:
        name: of the channel.
        id_field: bufferId or writerId.
        own: fields it has beside those that all programs have.
        collect: gives all values; called from the thread.
        last: gives them at the end; `collect` when there is none.
    """
    server = pva.PvaServer()
    channel = StatusChannel(server, name, program_status_type(id_field, own))
    stop = threading.Event()

    def publish(values: Callable[[], Stats]) -> None:
        try:
            channel.publish({id_field: 1, **values()})
        except Exception:
            # Who only looks must not end the program.
            _log.exception("status channel %s", name)

    def run() -> None:
        while not stop.wait(_PERIOD):
            publish(collect)

    publish(collect)
    server.start()
    thread = threading.Thread(target=run, name="status-channel", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_END_LIMIT)
        publish(last or collect)
        time.sleep(_LAST_STATUS)
        server.stop()
