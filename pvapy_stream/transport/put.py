"""Way out: puts to a channel on another's PVA server."""

from __future__ import annotations

import queue
from typing import Any

import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.backoff import REMOTE_ERRORS
from pvapy_stream.transport.remote import RemotePublisher

# s; one attempt. A stage answers within it, when it is slow too: what is put again after a time-out
# may come twice.
_PUT_TIMEOUT = 6.0


class PutPublisher(RemotePublisher):
    """Puts each object to a remote channel, such as the input of a ``pvas`` consumer.

    Args:
        channel: name of the channel.
        limit: how long an object is tried again when the other side fails, s.
    """

    def __init__(self, channel: str, limit: float) -> None:
        super().__init__(channel, f"cannot put to channel {channel}", limit)
        self._pv = pva.Channel(channel)
        self._timeout = min(_PUT_TIMEOUT, limit)
        self._pv.setTimeout(self._timeout)
        self._structure: dict[str, Any] | None = None

    def _send(self, obj: Any) -> None:
        # A server that has begun anew may have another structure.
        new = self._structure is None
        if new or not self._pv.isConnected():
            self._check(obj)
        try:
            if new:
                self._put_first(obj)
            else:
                self._pv.put(obj, "")
        except REMOTE_ERRORS:
            self._structure = None
            raise

    def _put_first(self, obj: Any) -> None:
        """Put in a thread of the binding.

        It sets the put up, asks the server, and must not be given the interpreter's lock meanwhile:
        the server may be in this process. Puts that follow use the same, and release the lock.
        """
        answer: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._pv.asyncPut(obj, lambda _: answer.put(""), lambda why: answer.put(str(why)), "")
        try:
            problem = answer.get(timeout=2 * self._timeout)
        except queue.Empty:
            problem = f"no answer within {2 * self._timeout:g} s"
        if problem:
            raise pva.PvaException(problem)

    def _check(self, obj: Any) -> None:
        """Look whether the structures agree: the binding ends the process when they do not."""
        theirs: dict[str, Any] = self._pv.getIntrospectionDict()
        ours: dict[str, Any] = obj.getStructureDict()
        wrong = [name for name, kind in ours.items() if theirs.get(name) != kind]
        wrong += [name for name in theirs if name not in ours]
        if wrong:
            self._attempts.errors += 1
            raise TransportError(
                f"cannot put to channel {self.channel}: its structure differs in"
                f" {', '.join(dict.fromkeys(wrong))}; the receiving processor's"
                " getInputPvObjectType must give the structure that is sent"
            )
        self._structure = theirs
