"""Receiver of a share, from the source or from a dealer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pvapy_stream.transport import shm_mode
from pvapy_stream.transport.mode import ReceiverOptions
from pvapy_stream.transport.ports import (
    Deliver,
    DeliverAgain,
    Receiver,
    ReceiverCounts,
    Return,
    Troubled,
)
from pvapy_stream.transport.shm import has_publisher

if TYPE_CHECKING:
    from pvapy_stream.pva.lazy import StreamObject

_log = logging.getLogger(__name__)


class DealtReceiver:
    """Receives its share from the source, or from the dealer if the source has no distributor.

    It then stays with the dealer, whatever server the source has later, since the dealer receives
    the whole stream from any server. A receiver that has not yet asked the source uses the dealer
    if it exists, so that no object arrives twice.

    Args:
        what: options of the receiver.
        make: creates the receiver of the source.
    """

    def __init__(self, what: ReceiverOptions, make: Callable[[ReceiverOptions], Receiver]) -> None:
        self._what = what
        self._direct = make(replace(what, dealer="", unshared=self._unshared))
        self._now = self._direct
        self._leaves = what.dealt  # the source, at the next check
        self._dealt = False
        self._deliver: Deliver | None = None
        self._again: DeliverAgain | None = None

    def start(self, deliver: Deliver, deliver_again: DeliverAgain | None = None) -> None:
        self._deliver, self._again = deliver, deliver_again
        if self._leaves:
            self._go_over()
        else:
            self._direct.start(deliver, deliver_again)

    def _unshared(self, reason: str) -> None:
        if not self._leaves:
            self._leaves = True
            if self._what.unshared is not None:
                self._what.unshared(reason)

    def keep_up(self) -> None:
        if not self._dealt and (self._leaves or has_publisher(self._what.dealer)):
            self._unshared("another command already has a dealer for this group")
            self._direct.stop()
            self._go_over()
        self._now.keep_up()

    def _go_over(self) -> None:
        deliver = self._deliver
        if deliver is None:
            return
        first, returns = True, self._direct.was_connected

        def deliver_dealt(obj: StreamObject) -> None:
            nonlocal first
            if first and returns and self._again is not None:
                # Another program publishes now; its ids show whether they start again.
                self._again(obj, Return(anew=None))
            else:
                deliver(obj)
            first = False

        receiver = shm_mode.receiver(replace(self._what, channel=self._what.dealer))
        receiver.start(deliver_dealt, self._again)
        self._now, self._dealt = receiver, True
        _log.info(
            "channel %s: the dealer of this command distributes its objects", self._what.channel
        )

    def stop(self, patience: float = 0.0) -> Sequence[StreamObject]:
        self._deliver = None
        return self._now.stop(patience)

    def counts(self) -> ReceiverCounts:
        now, direct = self._now, self._direct.counts()
        return direct if now is self._direct else direct.plus(now.counts())

    @property
    def connected(self) -> bool:
        return self._now.connected

    @property
    def was_connected(self) -> bool:
        return self._now.was_connected or self._direct.was_connected

    @property
    def problem(self) -> str:
        """Why no objects arrive; "" if it is not known."""
        return self._now.problem if isinstance(self._now, Troubled) else ""

    def newest(self, timeout: float) -> StreamObject | None:
        return self._now.newest(timeout)
