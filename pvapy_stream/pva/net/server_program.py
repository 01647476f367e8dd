"""Which program a server is, asked of its channel ``server``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import cast

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.net.client_channel import ClientChannel
from pvapy_stream.pva.net.client_errors import RefusedError
from pvapy_stream.pva.net.server_link import ServerLink
from pvapy_stream.pva.net.server_rpc import IMPLEMENTATION, NAME
from pvapy_stream.pva.wire.types import AnyValue, Kind, Scalar, Structure

_ANSWERS = 2.0  # s; a server that does not say within this what it is, is unknown
_TEXT = Scalar(Kind.STRING)
_QUESTION = Structure(
    "epics:nt/NTURI:1.0",
    (("scheme", _TEXT), ("path", _TEXT), ("query", Structure("", (("op", _TEXT),)))),
)
_ASKED: dict[str, object] = {"scheme": "pva", "path": NAME, "query": {"op": "info"}}

_log = logging.getLogger(__name__)


class ServerPrograms:
    """Finds out which servers wait for clients that acknowledge updates (pipeline).

    Our own servers do. Others are not asked: pvDatabaseCPP, which serves pvapy's programs and most
    IOCs, sends each update many times instead; PVXS 1.5 merges updates all the same once the queue
    is full, and keeps the last one back until the next is posted.

    Args:
        call: calls a function in the client's thread.
    """

    def __init__(self, call: Callable[[Callable[[], None]], None]) -> None:
        self._call = call

    def call(self, function: Callable[[], None]) -> None:
        """Call the function in the client's thread."""
        self._call(function)

    # -- the client's thread ---------------------------------------------------------------------

    def ask(self, link: ServerLink, then: Callable[[], None]) -> None:
        """Set `link.paces`, and call `then` in the client's thread."""
        link.callbacks.append(then)
        if len(link.callbacks) > 1:
            return
        channel = ClientChannel(self, NAME, 0)
        channel.open(link, b"")
        # The question waits for its answer; the client's thread must not.
        threading.Thread(
            target=self._find_out, args=(link, channel), name="pva-server-info", daemon=True
        ).start()

    def search(self, channel: ClientChannel, pause: float) -> None:
        """It is on this connection or nowhere."""

    def forget(self, channel: ClientChannel) -> None:
        """It is not kept."""

    # -- a thread of its own ---------------------------------------------------------------------

    def _find_out(self, link: ServerLink, channel: ClientChannel) -> None:
        paces = False
        try:
            found = channel.call_with(AnyValue(_QUESTION, _ASKED), _ANSWERS, _ANSWERS).value
            paces = _paces(cast("dict[str, object]", found) if isinstance(found, dict) else {})
        except RefusedError as error:
            _log.debug("%s does not say what it is: %s", link.peer, error)
        except TransportError as error:
            _log.warning(
                "%s does not say what it is (%s): it is not asked to wait for us, and merges what"
                " we are too slow for",
                link.peer,
                error,
            )

        def call_waiting() -> None:
            if link.callbacks:
                link.paces = paces
                callbacks, link.callbacks = link.callbacks, []
                for one in callbacks:
                    one()

        self.call(call_waiting)
        channel.close()


def _paces(info: dict[str, object]) -> bool:
    return info.get("program") == IMPLEMENTATION
