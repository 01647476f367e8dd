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
from pvapy_stream.pva.search import NameCheck, TwinWatch

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
    incarnation: int = 1,
) -> Iterator[None]:
    """Show a program's status on a channel, from a thread, while the block runs.

    Args:
        name: of the channel.
        id_field: bufferId or writerId.
        own: fields it has beside those that all programs have.
        collect: gives all values; called from the thread.
        last: gives them at the end; `collect` when there is none.
        incarnation: how often the program was started, this time included.

    Raises:
        TransportError: another program serves the channel.
    """
    NameCheck([name]).refuse(incarnation)
    server = pva.PvaServer()
    channel = StatusChannel(server, name, program_status_type(id_field, own))
    stop = threading.Event()
    twin = ""

    def tell(told: str) -> None:
        nonlocal twin
        twin = told
        _log.error("%s", told)

    def publish(values: Callable[[], Stats]) -> None:
        try:
            stats = {id_field: 1, **values()}
            channel.publish({**stats, "message": stats.get("message") or twin})
        except Exception:
            # Who only looks must not end the program.
            _log.exception("status channel %s", name)

    def run() -> None:
        while not stop.wait(_PERIOD):
            publish(collect)

    publish(collect)
    server.start()
    twins = TwinWatch([name], tell)
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
