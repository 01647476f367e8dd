"""Way out: puts to a channel on another's PVA server."""

from __future__ import annotations

import contextlib
import ctypes
import queue
import threading
import time
from typing import Any

import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.backoff import REMOTE_ERRORS
from pvapy_stream.transport.remote import RemotePublisher

_TIMEOUT = 2.0  # s; to find the other side
# s; for an answer, which a slow stage gives within a few seconds. A put cannot be taken back, so
# what has not been answered is not put again.
_ANSWER = 10.0
_TICK = 0.05  # s; how soon a waiting publisher notices that it should end
_BROKEN = 0.3  # s; a channel that has not been there for so long gives no answer any more


class PutPublisher(RemotePublisher):
    """Puts each object to a remote channel, such as the input of a ``pvas`` consumer.

    Args:
        channel: name of the channel.
        limit: how long an object is tried again when the other side fails, s.
    """

    def __init__(self, channel: str, limit: float) -> None:
        super().__init__(channel, f"cannot put to channel {channel}", limit)
        self._timeout = min(_TIMEOUT, limit)
        self._pv = self._connect()
        self._ended = threading.Event()
        self._structure: dict[str, Any] | None = None
        self._searcher: threading.Thread | None = None

    def start(self) -> None:
        """Begin to search for the channel, so that it is there when the first object comes."""
        self._searcher = threading.Thread(target=self._search, name="put-search", daemon=True)
        self._searcher.start()

    def _search(self) -> None:
        # The binding searches from the first use on, however long this waits.
        with contextlib.suppress(*REMOTE_ERRORS):
            self._pv.get("field()")

    def _connect(self) -> pva.Channel:
        pv = pva.Channel(self.channel)
        pv.setTimeout(self._timeout)
        return pv

    def _send(self, obj: Any) -> None:
        if self._searcher is not None:
            # One thread at a time uses the channel; the binding returns within its time limit.
            self._searcher.join(2 * self._timeout)
            self._searcher = None
        # A server that has begun anew may have another structure.
        if self._structure is None or not self._pv.isConnected():
            self._check(obj)
        try:
            self._put(obj)
        except REMOTE_ERRORS:
            self._structure = None
            raise

    def _put(self, obj: Any) -> None:
        """Put in a thread of the binding, as `put` keeps the interpreter's lock while it asks.

        A slow server would stop all of this program, and one in the same process could not answer.
        """
        answer: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._pv.asyncPut(obj, lambda _: answer.put(""), lambda why: answer.put(str(why)), "")
        there = began = time.monotonic()
        while (now := time.monotonic()) - began < _ANSWER and not self._ended.is_set():
            try:
                problem = answer.get(timeout=_TICK)
            except queue.Empty:
                if self._pv.isConnected():
                    there = now
                elif now - there > _BROKEN:
                    self._abandon()
                    raise pva.PvaException("the connection broke before the answer") from None
                continue
            if problem:
                raise pva.PvaException(problem)
            return
        self._abandon()
        raise TransportError(
            f"cannot put to channel {self.channel}: it gave no answer, so whether it has the object"
            " is not known"
        )

    def _abandon(self) -> None:
        """Begin anew: a put whose connection breaks never returns in the binding.

        Its thread holds a lock that the end of the channel waits for, so the channel stays.
        """
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._pv))
        self._pv, self._structure = self._connect(), None

    def stop(self) -> None:
        self._ended.set()
        super().stop()

    def _check(self, obj: Any) -> None:
        """Look whether the structures agree: the binding ends the process when they do not."""
        # Not getIntrospectionDict, which keeps the interpreter's lock: the server may need it.
        theirs: dict[str, Any] = self._pv.get("field()").getStructureDict()
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
