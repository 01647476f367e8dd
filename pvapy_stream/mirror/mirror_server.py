"""The mirror server: mirrors channels until it is stopped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from pvapy_stream.accounting.keeper import LedgerKeeper
from pvapy_stream.mirror.mirror_channel import HOSTED, MirrorChannel
from pvapy_stream.pva.clients import ClientCounter, listening_ports
from pvapy_stream.pva.search import TwinWatch
from pvapy_stream.pva.serving import new_server
from pvapy_stream.settings import MirrorSettings
from pvapy_stream.settings.channel_map import parse_channel_map
from pvapy_stream.status.snapshot import Snapshot
from pvapy_stream.transport import registry
from pvapy_stream.transport.own_server import host

_TICK = 0.25  # s; interval between checks of connections
_LEDGER_PERIOD = 0.25  # s; what a killed mirror may lose of its account
_LAST_UPDATES = 0.2  # s; how long the last updates stay before the server goes

_log = logging.getLogger(__name__)


class MirrorServer:
    """Mirrors the channels of a map until it is stopped.

    Args:
        settings: settings of the command.
        report: called with lines of counters.
        hosted: output mode of the channels.

    Raises:
        SettingsError: the channel map is wrong.
    """

    def __init__(
        self,
        settings: MirrorSettings,
        report: Callable[[str], None] | None = None,
        hosted: str = HOSTED,
    ) -> None:
        self.settings = settings
        self.entries = parse_channel_map(settings.channel_map)
        self._report = report or (lambda _: None)
        self._too_few = ""
        registry.output_mode(hosted).prepare(settings)
        self._on_pva = registry.output_mode(hosted).hosts
        before = listening_ports()
        self._twin = ""
        self._server = new_server()
        self._ports = listening_ports() - before
        try:
            self.channels = [
                MirrorChannel(entry, number, settings, self._server, hosted, self._announce)
                for number, entry in enumerate(self.entries, 1)
            ]
        except BaseException:
            # It serves from its beginning, not from its start.
            self._server.stop()
            raise
        for channel in self.channels:
            channel.ledger.begin(settings.incarnation)
        self._keeper = LedgerKeeper(
            settings.ledger,
            lambda: [one for channel in self.channels for one in channel.ledgers()],
            _LEDGER_PERIOD,
        )

    def run(self, stop: threading.Event) -> int:
        """Mirror until `stop` is set or the runtime is over.

        Returns:
            Exit code: 1 if a source was never found or there were errors; see `problems`.
        """
        self._server.start()
        if self.settings.wait_for_consumers:
            # If clients of the mirrors are known, connections are not needed.
            known = all(channel.output.knows_clients for channel in self.channels)
            others = host.clients if self._on_pva else self._subscribers
            counter = ClientCounter(frozenset() if known else self._ports, others)
            wait = partial(self._wait_for_consumers, counter, stop)
            threading.Thread(target=wait, name="consumers", daemon=True).start()
        mirrors = [entry.mirror for entry in self.entries] if self._on_pva else []
        shown = self.settings.status_names("mirror", len(self.entries))
        twins = TwinWatch(mirrors or shown, self._report_twin)
        # What is received is in no account if the mirror is killed before there is one.
        self._keeper.keep()
        try:
            for channel in self.channels:
                channel.start()
            self._follow(stop)
        finally:
            twins.stop()
            for channel in self.channels:
                channel.stop()
            # Clients may not have taken the last updates yet.
            time.sleep(_LAST_UPDATES)
            for channel in self.channels:
                channel.output.finish(_LAST_UPDATES)
            self._show()
            self._server.stop()
            self._keeper.close()
        return 1 if self.problems() else 0

    def _announce(self, name: str) -> None:
        host.point_to(self._ports, [name])

    def _wait_for_consumers(self, counter: ClientCounter, stop: threading.Event) -> None:
        wanted, timeout = self.settings.wait_for_consumers, self.settings.wait_timeout
        came = counter.wait(wanted, timeout, stop)
        if came < wanted and not stop.is_set():
            self._too_few = (
                f"{came} of {wanted} consumers connected within {timeout:g} s, and objects have"
                " been passed on since then; start the others, or give more time with"
                " --wait-timeout"
            )
            _log.error("%s", self._too_few)
        for channel in self.channels:
            channel.let_through()

    def _subscribers(self) -> int:
        return sum(channel.output.subscribers for channel in self.channels)

    def _report_twin(self, message: str) -> None:
        self._twin = message
        _log.error("%s", message)

    def _follow(self, stop: threading.Event) -> None:
        period = self.settings.report_period
        start = time.monotonic()
        end = start + self.settings.runtime if self.settings.runtime > 0 else float("inf")
        report_due = start + period
        while (now := time.monotonic()) < end:
            self._keeper.keep()
            if 0 < period and report_due <= now:
                report_due = now + period
                self._show()
            for channel in self.channels:
                channel.keep_up()
            if stop.wait(min(_TICK, end - now, period or _TICK)):
                return

    def _show(self) -> None:
        now = time.time()
        for channel in self.channels:
            self._report(f"Channel {channel.entry.mirror} @ {now:.3f}: {channel.counters()}")

    def snapshots(self) -> list[Snapshot]:
        """The status of each channel."""
        troubles = next(filter(None, (self._too_few, self._keeper.problem, self._twin)), "")
        found = [channel.snapshot() for channel in self.channels]
        return [replace(one, message=one.message or troubles) for one in found]

    def problems(self) -> list[str]:
        """Why the run has failed, a line for each channel concerned."""
        found = [channel.problem() for channel in self.channels]
        return list(filter(None, [*found, self._too_few, self._keeper.problem, self._twin]))
