"""Channels of a server, and puts on their way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pvapy_stream.pva.wire.status import OK, Status
from pvapy_stream.pva.wire.types import AnyValue, Structure

if TYPE_CHECKING:
    from pvapy_stream.pva.net.requests import MonitorRequest

Value = dict[str, object]

PATIENCE = 4.0  # s


class Put:
    """A put that a client waits for.

    It belongs to the server until it is claimed, and may be withdrawn until then: the client has
    gone, or waits no longer. Who has claimed it must call `finish`.

    Attributes:
        value: the whole structure with what was put; nobody else has it.
        bits: bit set of the fields that were put.
        since: when it came, and then when it was claimed, s of `time.monotonic`.
        claimed: whether somebody has it.
    """

    def __init__(self, value: Value, bits: int, done: Callable[[Put, Status], None]) -> None:
        self.value = value
        self.bits = bits
        self.since = time.monotonic()
        self.claimed = False
        self._done = done
        self._lock = threading.Lock()
        self._finished = False

    def claim(self) -> bool:
        """Take it; False if it was withdrawn, or somebody else has it."""
        with self._lock:
            if self.claimed:
                return False
            self.claimed = True
            self.since = time.monotonic()
            return True

    def withdraw(self) -> bool:
        """Take it back; False if somebody has it."""
        return self.claim()

    def finish(self, status: Status = OK) -> None:
        """Say what became of it; the client is told. Only the first call counts."""
        with self._lock:
            if self._finished:
                return
            self.claimed = self._finished = True
        self._done(self, status)


class Call(Put):
    """A call that a client waits for: as a put, and `answer` gives what it returns.

    Attributes:
        argument: of the call; nobody else has it.
        returned: what is returned; None while that is not known.
    """

    def __init__(self, argument: AnyValue, done: Callable[[Put, Status], None]) -> None:
        super().__init__({}, 0, done)
        self.argument = argument
        self.returned: AnyValue | None = None

    def answer(self, value: AnyValue) -> None:
        """It was done; the client is told. Only the first call of this and `finish` counts."""
        self.returned = value
        self.finish()


class Channel:
    """A structure that clients get and monitor, and may put to. Used by the server's thread alone.

    Args:
        name: of the channel.
        kind: type of the structure.
        value: the structure at first.
        on_put: called with each put, in the server's thread: it must not wait. None: clients may
            not put.
        may_put: whether a client may put, by its user name and address.
        patience: how long a put waits to be claimed, s; then it is withdrawn, and refused.

    Attributes:
        late: how many puts were withdrawn because nobody claimed them in time.
    """

    def __init__(
        self,
        name: str,
        kind: Structure,
        value: Value,
        on_put: Callable[[Put], None] | None = None,
        may_put: Callable[[str, str], bool] = lambda user, host: True,
        patience: float = PATIENCE,
    ) -> None:
        self.name = name
        self.kind = kind
        self.value = value
        self.on_put = on_put
        self.may_put = may_put
        self.patience = patience
        self.late = 0
        self.monitors: set[MonitorRequest] = set()
        # What the puts under way will make of it: the next one may name some fields only.
        self._newest: Value | None = None

    @property
    def base(self) -> Value:
        """What a put of some fields changes."""
        return self.value if self._newest is None else self._newest

    def expect(self, put: Put) -> None:
        """A put has come."""
        self._newest = put.value

    def settle(self, put: Put, status: Status) -> None:
        """A put was done or refused."""
        if self._newest is put.value:
            self._newest = None
        if status.done:
            self.update(put.value, put.bits)

    def update(self, value: Value, bits: int = 1) -> None:
        """Replace the structure, and tell those who monitor it.

        Args:
            value: the structure; not changed by anybody from now on.
            bits: bit set of the fields that changed.
        """
        self.value = value
        for monitor in list(self.monitors):
            monitor.post(value, bits)


class ServiceChannel(Channel):
    """A service that clients call.

    Args:
        name: of the channel.
        on_call: called with each call, in the server's thread: it must not wait. Calls of one
            client come in its order.
    """

    def __init__(self, name: str, on_call: Callable[[Call], None]) -> None:
        super().__init__(name, Structure(), {})
        self.on_call = on_call
