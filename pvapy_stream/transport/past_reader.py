"""Gets objects that a channel's server published before and keeps, see `pva.net.past_request`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pvapy_stream.errors import WireError
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.client_channel import ClientChannel
from pvapy_stream.pva.net.client_past import NOT_OFFERED
from pvapy_stream.pva.net.kept_updates import OPTION, ids_text, parse_ids
from pvapy_stream.pva.updates import UpdateReader
from pvapy_stream.pva.wire.buffers import Buffer
from pvapy_stream.pva.wire.descriptions import Incoming
from pvapy_stream.pva.wire.types import Structure

_QUEUE = 8  # objects that are under way
_TICK = 0.1  # s; between two looks whether the request is still wanted
_SILENT = 5.0  # s without an object, after which the request is given up

_log = logging.getLogger(__name__)

# Takes an object; False: no more of them can be taken now.
Take = Callable[[StreamObject], bool]


@dataclass(frozen=True, slots=True)
class PastAnswer:
    """What became of a request.

    Attributes:
        complete: whether the server has answered all of it.
        absent: ids that it named as absent, by reason.
        problem: why it can answer no such request; "" if it can.
    """

    complete: bool = False
    absent: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    problem: str = ""


class PastReader:
    """Asks the server of a channel. Used by one thread at a time.

    Args:
        channel: name of the channel.
        fields: what is asked for of each object, as ``field(a,b)``.
    """

    def __init__(self, channel: str, fields: str) -> None:
        self.channel = channel
        self._fields = fields
        self._client: Client | None = None
        self._asked: ClientChannel | None = None

    def read(
        self, ids: Sequence[int], source: str, take: Take, wanted: Callable[[], bool]
    ) -> PastAnswer:
        """Ask for ids, in ascending order, and wait for the answer.

        Args:
            ids: at most `kept_updates.MOST_ASKED`.
            source: the program that published them, as `Identified.source` names it; another one
                is not asked.
            take: gets the objects, in a thread of this reader.
            wanted: whether to go on; asked every now and then.
        """
        if self._asked is None:
            # Not the client of the receiver, whose thread may be busy with an object.
            self._client = Client()
            self._asked = self._client.channel(self.channel)
        made = _Reading(source, take)
        request = f"record[{OPTION}={ids_text([*ids])},queueSize={_QUEUE},pipeline=true]"
        end = self._asked.read_past(request + self._fields, made)
        try:
            while not made.over.wait(_TICK):
                if not wanted() or time.monotonic() - made.heard_at > _SILENT:
                    made.stop()
        finally:
            end()
        return made.answer

    def close(self) -> None:
        """End it; it connects again if it is used again."""
        client, self._client, self._asked = self._client, None, None
        if client is not None:
            client.stop()


class _Reading:
    """One request."""

    def __init__(self, source: str, take: Take) -> None:
        self.over = threading.Event()
        self.answer = PastAnswer()
        self.heard_at = time.monotonic()
        self._source = source
        self._take = take
        self._reader: UpdateReader | None = None

    def stop(self) -> None:
        """Take nothing more."""
        self.over.set()

    # -- the client's thread ---------------------------------------------------------------------

    def began(self, kind: Structure, known: Incoming, identity: bytes) -> None:
        """The server has it."""
        self.heard_at = time.monotonic()
        if not identity or f"pva {identity.hex()}" != self._source:
            # Its ids may be others. Whoever asks learns it from its receiver.
            self.stop()
        else:
            self._reader = UpdateReader(kind, known)

    def update(self, payload: Sequence[Buffer], big: bool) -> None:
        """An object has come."""
        self.heard_at = time.monotonic()
        if self._reader is None or self.over.is_set():
            return
        try:
            if not self._take(self._reader.read(payload, big)):
                self.stop()
        except WireError:
            self.stop()
            raise
        except Exception:
            _log.exception("an object of the past could not be taken")
            self.stop()

    def ended(self, text: str) -> None:
        """The server has sent all that it has."""
        if self.over.is_set():
            return
        try:
            absent = {
                why: parse_ids(ids)
                for why, _, ids in (part.partition("=") for part in text.split(";") if part)
            }
        except WireError as error:
            self.answer = PastAnswer(problem=str(error))
        else:
            self.answer = PastAnswer(complete=True, absent=absent)
        self.over.set()

    def refused(self, reason: str) -> None:
        """The server gives nothing."""
        if not self.over.is_set():
            self.answer = PastAnswer(problem=reason or NOT_OFFERED)
            self.over.set()

    def unshared(self, reason: str) -> None:
        """It is not asked for a share."""

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        self.over.set()
