"""A client's request for updates that were published before: a monitor that ends.

The request is that of a monitor, with the option ``past`` of `record`: the ids. The server accepts
it with the status text `kept_updates.OFFERED`, sends the updates that it has, whole, and ends the
monitor with a status whose text names the ids that it could not send: ``gone=5-9;several=12``.
Ids that it has neither sent nor named were not published.
"""

from __future__ import annotations

from collections import deque

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net.kept_updates import (
    GONE,
    NEVER,
    OFFERED,
    OPTION,
    SEVERAL,
    ids_text,
    parse_ids,
)
from pvapy_stream.pva.net.server_channel import Channel
from pvapy_stream.pva.net.server_monitor import TURN, MonitorClient, MonitorRequest
from pvapy_stream.pva.wire import operations, request
from pvapy_stream.pva.wire.status import Severity, Status
from pvapy_stream.pva.wire.types import AnyValue

_WHOLE = 1  # bit set


class PastRequest(MonitorRequest):
    """Sends kept updates in the order of the request, and ends.

    They are looked up when their turn comes: what waits for a slow client needs no memory.

    Raises:
        WireError: the channel keeps no updates, or it is not known which of them are asked for.
    """

    def __init__(
        self, client: MonitorClient, channel: Channel, number: int, asked: AnyValue
    ) -> None:
        super().__init__(client, channel, number, asked)
        kept = channel.kept
        if kept is None:
            raise WireError(f"channel {channel.name} keeps no past")
        if kept.laps > 1:
            raise WireError(
                f"the ids of channel {channel.name} have started again; which of them are asked"
                " for is not known"
            )
        self._kept = kept
        self._wanted = deque(parse_ids(request.options(asked)[OPTION]))
        self._absent: dict[str, list[int]] = {GONE: [], SEVERAL: [], NEVER: []}

    def set_up(self) -> None:
        status = Status(Severity.OK, OFFERED)
        self.reply(operations.INIT, status, lambda w: self.client.outgoing.write(w, self.kind))

    def _start(self) -> None:
        if not self.active and not self.ended:
            self.active = True
            self.channel.past_requests.add(self)

    def _stop(self) -> None:
        self.active = False
        self._wanted.clear()
        self.channel.past_requests.discard(self)

    @property
    def ready(self) -> bool:
        return self.active and bool(self._wanted) and self._window > 0

    def take_turn(self) -> None:
        size, wanted, client = 0, self._wanted, self.client
        while size < TURN and self.ready:
            value = wanted.popleft()
            # Of another lap, they would be others.
            update = self._kept.get(value) if self._kept.laps == 1 else None
            if update is None:
                why = self._kept.why_not(value) if self._kept.laps == 1 else GONE
                self._absent[why].append(value)
                continue
            if self.pipeline:
                self._window -= 1
            encoded = update.encoded(self._selection, _WHOLE)
            size += encoded.size
            client.keep(encoded.message(self.number), encoded.size)
        if self.active and not wanted:
            self._finish()
        self._ask()

    def _finish(self) -> None:
        self.end()
        absent = {why: ids_text(sorted(ids)) for why, ids in self._absent.items() if why != NEVER}
        text = ";".join(f"{why}={ids}" for why, ids in absent.items() if ids)
        self.reply(operations.DESTROY, Status(Severity.OK, text))


def make_monitor(
    client: MonitorClient, channel: Channel, number: int, asked: AnyValue
) -> MonitorRequest:
    """The request of a client for a monitor, or for updates of the past."""
    kind = PastRequest if OPTION in request.options(asked) else MonitorRequest
    return kind(client, channel, number, asked)
