"""A channel of another program, as a client has it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, cast

from pvapy_stream.pva.net.client_errors import NotSentError
from pvapy_stream.pva.net.client_monitor import ClientMonitor, Follower
from pvapy_stream.pva.net.client_past import PastFollower, PastMonitor
from pvapy_stream.pva.net.client_requests import ClientRequest, FieldRequest
from pvapy_stream.pva.net.client_search import FIRST, LONGEST, RETURNS
from pvapy_stream.pva.net.server_link import ServerLink
from pvapy_stream.pva.net.sharing import ANSWERS, Sharing, sharing_of
from pvapy_stream.pva.wire import request, values
from pvapy_stream.pva.wire.buffers import Reader, Writer
from pvapy_stream.pva.wire.changes import read_changes, write_changes
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.status import Status
from pvapy_stream.pva.wire.stream import Command
from pvapy_stream.pva.wire.types import AnyValue, Structure, default

TIMEOUT = 5.0  # s
_CREATED = 5.0  # s; a server creates a channel within this


class Owner(Protocol):
    """What a channel needs of its client."""

    def call(self, function: Callable[[], None]) -> None:
        """Call the function in the client's thread."""
        ...

    def search(self, channel: ClientChannel, pause: float) -> None:
        """Search for the channel; `pause` s until it is asked for again."""
        ...

    def forget(self, channel: ClientChannel) -> None:
        """The channel is needed no more."""
        ...

    def ask(self, link: ServerLink, then: Callable[[], None]) -> None:
        """Find out `link.paces`, and call the function then, in the client's thread."""
        ...


class ClientChannel:
    """A channel, which is searched for from the beginning on, and again when it is lost.

    Its requests wait for it. `begin` limits how long a request may wait for the channel, and
    `answer` how long the answer may take then, both in s.

    Args:
        owner: the client.
        name: of the channel.
        number: of the channel, given by the client.

    Attributes:
        link: the connection, while the channel is there.
        why: why the channel is not there.
        identity: of the server that has it, or had it last.
        was_there: whether it has ever been there.
    """

    def __init__(self, owner: Owner, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.link: ServerLink | None = None
        self.server_id = 0
        self.identity = b""
        self.was_there = False
        self.why = "no server has answered the search for it"
        self.call = owner.call
        self._owner = owner
        self._there = threading.Event()
        self._closed = False
        self._pause = FIRST
        self._opening: ServerLink | None = None  # where it is being created
        self._opening_since = 0.0
        self._requests: dict[tuple[Command, str], ClientRequest] = {}
        self._monitors: list[ClientMonitor] = []
        self._retry_at = 0.0  # monitors are set up again; 0: when something happens

    # -- any thread ------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether it is there."""
        return self._there.is_set() and not self._closed

    def wait(self, timeout: float) -> bool:
        """Wait until it is there; False if it is not within `timeout` s, or is closed."""
        return self._there.wait(timeout) and not self._closed

    def introspect(self, begin: float = TIMEOUT, answer: float = TIMEOUT) -> Structure:
        """The type of the channel; errors as `call_with`."""

        def read(kind: Structure, reader: Reader, known: Incoming) -> object:
            return known.need(reader)

        made = self._request(Command.GET_FIELD).ask(0, _nothing, read, begin, answer)
        return cast("Structure", made)

    def get(self, fields: str = "", begin: float = TIMEOUT, answer: float = TIMEOUT) -> AnyValue:
        """The structure that the channel holds; errors as `call_with`.

        Args:
            fields: which, as text: ``value,timeStamp``, ``field(value)``; all if empty.
            begin: s.
            answer: s.
        """
        asked = self._request(Command.GET, fields)

        def read(kind: Structure, reader: Reader, known: Incoming) -> object:
            # Some servers send what has changed since the get before.
            held = asked.held or cast("dict[str, object]", default(kind))
            asked.held = read_changes(kind, reader, known, held)[1]
            return AnyValue(kind, asked.held)

        return cast("AnyValue", asked.ask(0, _nothing, read, begin, answer))

    def select(self, fields: str, timeout: float) -> None:
        """Set up a get of these fields, and do not make it.

        Raises:
            NotSentError: the channel is not there, or has not answered, within `timeout` s.
            RefusedError: the server has no such fields.
        """
        self._request(Command.GET, fields).set_up(timeout)

    def put_kind(self, begin: float = TIMEOUT, fields: str = "") -> Structure:
        """The type of what is put; it is asked for once for each connection.

        Args:
            begin: s.
            fields: those that are put; all if empty.

        Raises:
            NotSentError: the channel is not there within `begin` s.
            RefusedError: the server takes no puts.
        """
        return self._request(Command.PUT, fields).set_up(begin)

    def put(
        self,
        kind: Structure,
        value: dict[str, object],
        begin: float = TIMEOUT,
        answer: float = TIMEOUT,
        fields: str = "",
    ) -> None:
        """Put a structure; errors as `call_with`.

        Args:
            kind: its type, as `put_kind` gave it.
            value: the whole structure; its arrays must not change until this returns.
            begin: s.
            answer: s.
            fields: those that are put, as for `put_kind`.
        """

        def write(present: Structure, writer: Writer, known: Outgoing) -> None:
            if present != kind:
                raise NotSentError("its structure has changed")
            write_changes(kind, 1, value, writer, known)

        self._request(Command.PUT, fields).ask(0, write, _no_answer, begin, answer)

    def call_with(
        self, argument: AnyValue, begin: float = TIMEOUT, answer: float = TIMEOUT
    ) -> AnyValue:
        """Call the service with an argument, whose arrays must not change until this returns.

        Raises:
            NotSentError: it was never called, and may be called again.
            NoAnswerError: it was called and has not answered: whether it did it is not known.
            RefusedError: it has answered with an error.
        """

        def write(kind: Structure, writer: Writer, known: Outgoing) -> None:
            values.write_any(argument, writer, known)

        def read(kind: Structure, reader: Reader, known: Incoming) -> object:
            return values.read_any(reader, known)

        made = self._request(Command.RPC).ask(0, write, read, begin, answer)
        return cast("AnyValue", made)

    def monitor(self, asked: str, follower: Follower) -> None:
        """Follow it until it is closed; the follower is called in the client's thread.

        Args:
            asked: fields and options, as `wire.request.parse` reads them.
            follower: gets the updates.

        Raises:
            WireError: the text cannot be understood.
        """
        made = ClientMonitor(self, request.parse(asked), follower)

        def begin() -> None:
            self._monitors.append(made)
            made.step()

        self.call(begin)

    def read_past(self, asked: str, follower: PastFollower) -> Callable[[], None]:
        """Ask once for updates that were published before.

        Args:
            asked: as for `monitor`, with the option of `kept_updates`.
            follower: gets the updates.

        Returns:
            a function that ends the request; it must be called, also when it has ended by itself.

        Raises:
            WireError: the text cannot be understood.
        """

        def remove(one: PastMonitor) -> None:
            if one in self._monitors:
                self._monitors.remove(one)

        made = PastMonitor(self, request.parse(asked), follower, remove)

        def begin() -> None:
            self._monitors.append(made)
            made.step()

        def end() -> None:
            made.close("it is needed no more")
            remove(made)

        self.call(begin)
        return lambda: self.call(end)

    def close(self) -> None:
        """Close it; pending operations get an error."""
        self._closed = True
        self._there.set()
        self.call(self._close)

    def _request(self, command: Command, fields: str = "") -> ClientRequest:
        key = command, fields
        made = self._requests.get(key)
        if made is None:
            kind = FieldRequest if command == Command.GET_FIELD else ClientRequest
            # Of two threads that make it at the same time, both use the first.
            made = self._requests.setdefault(key, kind(self, command, request.parse(fields)))
        return made

    # -- the client's thread ---------------------------------------------------------------------

    def search(self) -> None:
        """Begin to search."""
        if not self._closed:
            self._owner.search(self, self._pause)

    def open(self, link: ServerLink, identity: bytes) -> None:
        """A server has it."""
        self.identity = identity
        self._opening, self._opening_since = link, time.monotonic()
        link.create(self)

    def created(self, link: ServerLink, server_id: int, status: Status) -> None:
        if not status.done:
            self._again(f"the server has not created it: {status.text}")
            return
        self.link, self.server_id, self._opening = link, server_id, None
        self._pause = FIRST
        self.was_there = True
        self._there.set()
        self._step()

    def _step(self) -> None:
        self._retry_at = 0.0
        for one in (*self._requests.values(), *self._monitors):
            one.step()

    def find_out(self, link: ServerLink) -> None:
        """Find out which program the server is, and go on then."""
        self._owner.ask(link, lambda: self._step() if self.link is link else None)

    def find_sharing(self, link: ServerLink, then: Callable[[Sharing], None]) -> None:
        """Find out whether the server shares updates out, and call the function then.

        Args:
            link: the connection; nothing is called if it is another one by then.
            then: gets what it has answered.
        """

        def find() -> None:
            found = sharing_of(self, ANSWERS)
            self.call(lambda: then(found) if self.link is link else None)

        # The question waits for its answer; the client's thread must not.
        threading.Thread(target=find, name="pva-sharing", daemon=True).start()

    def retry(self, seconds: float) -> None:
        """Set monitors up again after some time."""
        self._retry_at = time.monotonic() + seconds

    def lost(self, reason: str) -> None:
        link = self.link
        if link is not None:
            self.link = None
            if not self._closed:
                self._there.clear()
            for one in (*self._requests.values(), *self._monitors):
                one.lost(reason, link)
        self._again(reason)

    def _again(self, reason: str) -> None:
        if self._opening is not None:
            # Nothing came of it: more slowly from now on.
            self._opening = None
            longest = RETURNS if self.was_there else LONGEST
            self._pause = min(2 * self._pause, longest)
        self.why = reason
        self.search()

    def check(self, now: float) -> None:
        """Begin anew with what the server does not create, has refused, or does not set up."""
        if 0 < self._retry_at <= now:
            self._step()
        link = self._opening
        if link is not None and now - self._opening_since > _CREATED:
            link.end_channel(self, None)
            self._again("the server does not create it")
        for one in self._monitors:
            one.check(now)

    def _close(self) -> None:
        for one in (*self._requests.values(), *self._monitors):
            one.close("the channel is closed")
        link = self.link or self._opening
        if link is not None:
            link.end_channel(self, self.server_id if self.link else None)
            if link.idle:
                link.close("no channel needs it")
        self.link = self._opening = None
        self._owner.forget(self)


def _nothing(kind: Structure, writer: Writer, known: Outgoing) -> None:
    """Nothing belongs to the request."""


def _no_answer(kind: Structure, reader: Reader, known: Incoming) -> object:
    """Nothing belongs to the answer."""
    return None
