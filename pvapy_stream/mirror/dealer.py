"""A dealer: a mirror in a separate process that distributes a stream to consumers of this host.

Consumers request a share from the source's server. If it has no distributor, the command that
started them starts a dealer, which receives the stream once and publishes it in shared memory,
where consumers of a group share it.
"""

from __future__ import annotations

import logging
import signal
import time
import uuid
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.launch.child import Child, SupervisedChild, words_of
from pvapy_stream.launch.entry import HURRY, STOP, Orders, enter
from pvapy_stream.launch.supervisor import Death, RestartPolicy, Restarts
from pvapy_stream.logs import configure_logging
from pvapy_stream.pva.monitor_request import monitor_request
from pvapy_stream.settings import ConsumerSettings
from pvapy_stream.settings.common import LoggingSettings
from pvapy_stream.signals import Stop, run_until_signal

if TYPE_CHECKING:
    from pvapy_stream.settings import MirrorSettings

_PERIOD = 0.25  # s; the last time that may be missing in the ledger of a killed dealer
_QUEUE = 4  # objects for each consumer that asks for none
_END_LIMIT = 15.0  # s; from the word to the end, consumers with full queues included
_HURRY_LIMIT = 3.0  # s

Ledgers = list[dict[str, object]]

_log = logging.getLogger(__name__)


class _DealerProcess(Child):
    """A dealer's process."""

    def __init__(self, settings: MirrorSettings, accounts: bool) -> None:
        self.ledgers: Ledgers = []
        self.problem = ""
        self.final = False
        super().__init__("dealer", _run, settings, accounts)

    def take(self, message: Any) -> None:
        self.ledgers, self.problem, self.final = message


class _Dealer(SupervisedChild[_DealerProcess]):
    """The dealer, over all its processes."""

    past: Ledgers

    def judge(self, process: _DealerProcess, code: int) -> str | None:
        return process.problem if process.final else None

    def bury(self, process: _DealerProcess, died: bool) -> None:
        # The ledger of a process that died is not closed.
        self.past += [{**one, "closed": False} if died else one for one in process.ledgers]


class Dealing:
    """The dealer of the consumers of one command, if they need one.

    Args:
        settings: of the consumers.

    Attributes:
        channel: channel in shared memory; "" for consumers that cannot have a dealer.
    """

    def __init__(self, settings: ConsumerSettings) -> None:
        self._settings = settings
        self.channel = (
            f"{settings.input_channel}:dealt:{uuid.uuid4().hex[:8]}" if settings.can_deal else ""
        )
        self._dealer: _Dealer | None = None
        self._consumers = 0
        self._began = time.monotonic()
        self._end_by: float | None = None

    def start(self, reason: str, level: int = logging.WARNING) -> None:
        """Start the dealer for this reason, which is logged; further calls have no effect."""
        if self._dealer is not None or not self.channel or self._end_by is not None:
            return
        settings = self._settings
        _log.log(
            level,
            "channel %s: %s; a process of this command receives the stream once and distributes"
            " it to the %d consumers (status on %s)",
            settings.input_channel,
            reason,
            len(settings.ids),
            self.status_channel,
        )
        self._dealer = _Dealer(
            f"dealer of {settings.input_channel}",
            self._make_process,
            Restarts(RestartPolicy(settings.max_restarts)),
            lambda line: _log.error("%s", line),
        )
        self._dealer.past = []
        self._dealer.start()

    @property
    def status_channel(self) -> str:
        """Its status, and by its name a second dealer for the same group is noticed."""
        settings = self._settings
        return f"{settings.input_channel}:dealer:{settings.distributor_group or 'default'}"

    def _make_process(self, incarnation: int) -> _DealerProcess:
        # Imported late: most consumers need no dealer.
        from pvapy_stream.settings import MirrorSettings

        settings = self._settings
        queue = max(_QUEUE, settings.server_queue_size) * len(settings.ids)
        # No pipeline: PVXS 1.5 holds the last update of a burst once its queue was full.
        request = monitor_request(
            settings.field_request, id_field=settings.oid_field, queue_size=queue
        )
        left = settings.runtime - (time.monotonic() - self._began)
        return _DealerProcess(
            MirrorSettings.of(
                **{name: getattr(settings, name) for name in LoggingSettings.model_fields},
                channel_map=f"({self.channel},{settings.input_channel},pva,0,1,{request})",
                runtime=max(0.1, left) if settings.runtime > 0 else 0.0,
                wait_for_consumers=self._consumers,
                report_period=_PERIOD,
                oid_field=settings.oid_field,
                status_channel=self.status_channel,
                pva_library=settings.pva_library,
                incarnation=incarnation,
            ),
            settings.ledger is not None,
        )

    @property
    def active(self) -> bool:
        """Whether the dealer has been started."""
        return self._dealer is not None

    @property
    def gave_up(self) -> bool:
        """Whether it has ended with an error: consumers receive nothing more."""
        return self._dealer is not None and self._dealer.gave_up

    def poll(self, consumers: int) -> bool:
        """Check it; returns whether its state has changed.

        Args:
            consumers: number of consumers.
        """
        self._consumers = consumers
        dealer = self._dealer
        if dealer is None or dealer.ended:
            return False
        if self._end_by is not None and time.monotonic() > self._end_by:
            dealer.kill()
        return dealer.poll()

    def end(self, word: str) -> bool:
        """Request it to end; whether it has ended, its objects being in the consumers' queues."""
        dealer = self._dealer
        if self._end_by is None or word == HURRY:
            limit = _HURRY_LIMIT if word == HURRY else _END_LIMIT
            end_by = time.monotonic() + limit
            if self._end_by is None and dealer is not None and not dealer.ended:
                dealer.stop(STOP)
            self._end_by = min(end_by, self._end_by or end_by)
        return dealer is None or dealer.ended or word == HURRY

    def close(self) -> None:
        """End it, within limits."""
        while not self.end(STOP):
            self.poll(0)
            time.sleep(0.01)

    @property
    def deaths(self) -> list[Death]:
        """How and when its processes died."""
        return self._dealer.deaths if self._dealer is not None else []

    @property
    def problem(self) -> str:
        """Why the run has failed, or ""."""
        return self._dealer.problem if self._dealer is not None else ""

    @property
    def ledgers(self) -> Ledgers:
        """The ledgers of all its processes."""
        dealer = self._dealer
        if dealer is None:
            return []
        return dealer.past + (dealer.process.ledgers if dealer.process is not None else [])


def _run(pipe: Connection, settings: MirrorSettings, accounts: bool) -> None:
    """Body of a dealer's process."""
    enter()
    configure_logging(settings)
    Orders(_END_LIMIT).follow(words_of(pipe))

    def report(ledgers: Ledgers, problem: str = "", final: bool = False) -> None:
        # Without a parent it is not read, and `Orders` is stopping this process.
        try:
            pipe.send((ledgers if accounts else [], problem, final))
        except OSError:
            return

    # Ctrl-C reaches the whole process group; only the parent decides.
    try:
        ledgers, problem = run_until_signal(
            lambda stop: _deal(settings, report, stop), [signal.SIGTERM], [signal.SIGINT]
        )
    except PvapyStreamError as error:
        ledgers, problem = [], f"the dealer does not distribute objects: {error}"
    report(ledgers, problem, True)


def _deal(settings: MirrorSettings, report: Callable[..., None], stop: Stop) -> tuple[Ledgers, str]:
    """Distribute until the end; returns the ledgers, and why the run has failed, or ""."""
    from pvapy_stream.mirror.mirror_server import MirrorServer
    from pvapy_stream.status.shown import shown_on

    server = MirrorServer(settings, lambda line: report(accounts(False)), "shm")

    def accounts(closed: bool) -> Ledgers:
        return [
            {**one.to_dict(), "closed": closed}
            for channel in server.channels
            for one in channel.ledgers()
        ]

    names = [settings.status_channel or ""]
    with shown_on(names, server.snapshots, incarnation=settings.incarnation, beside=True):
        server.run(stop)
    return accounts(True), "; ".join(server.problems())
