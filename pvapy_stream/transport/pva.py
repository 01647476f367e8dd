"""Receiver: a monitor of a PVA or CA channel."""

from __future__ import annotations

import ctypes
import logging
import queue
import threading
import time

import pvaccess as pva

from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.transport.ports import Deliver, DeliverAgain, ReceiverCounts, Return

_PROVIDERS = {"pva": pva.PVA, "ca": pva.CA}

# The client library searches for an absent channel at growing intervals, up to minutes. A new
# search begins with short intervals again.
_SEARCH_AGAIN_AFTER = 1.0
# A monitor begins with an object, but after a quick restart of the source it may send nothing
# although it is connected. The time limit is long, since the first object may be large and the
# network slow.
_SILENT_AFTER = 3.0
# How long `stop` waits for an object that is being delivered.
_LAST_DELIVERY = 5.0
# A channel is released this long after its monitor was stopped: the binding may still be in the
# callback, and returns into the channel from it.
_RETIREMENT = 0.5
# From the end of our callback until the binding's thread has left the channel: it has nothing more
# to do, but the machine may be busy.
_LEAVING = 0.2

# Interval between checks of channels: a source that reconnects within it is not detected.
_WATCH_PERIOD = 0.02  # s

# How long a channel may deliver objects and report that it is not connected.
_SAYS_SO_AFTER = 5.0  # s

# Receivers whose callback never returned, with their channels.
_stuck: list[object] = []

_log = logging.getLogger(__name__)


class _Watch:
    """One thread that checks whether channels are connected, as long as any are in use."""

    def __init__(self) -> None:
        self._followed: set[MonitorReceiver] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, receiver: MonitorReceiver) -> None:
        with self._lock:
            self._followed.add(receiver)
            if self._thread is None:
                self._wake = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._wake,), name="pva-watch", daemon=True
                )
                self._thread.start()

    def remove(self, receiver: MonitorReceiver) -> None:
        with self._lock:
            self._followed.discard(receiver)
            thread = self._thread
            if self._followed or thread is None:
                return
            self._thread = None
            self._wake.set()
        if thread is not threading.current_thread():
            thread.join(5)

    def _run(self, wake: threading.Event) -> None:
        while not wake.wait(_WATCH_PERIOD):
            with self._lock:
                followed = list(self._followed)
            for receiver in followed:
                receiver.look()


class MonitorReceiver:
    """Monitors a channel, which may start late, disconnect and reconnect.

    Args:
        channel: name of the channel.
        request: PV request, see `pva.monitor_request.monitor_request`.
        provider: ``pva`` or ``ca``.
        probe: request of `newest`; few fields are cheap.
        retry: whether to start new searches, at short intervals, for a channel that is not found.
    """

    def __init__(
        self,
        channel: str,
        request: str = "field()",
        provider: str = "pva",
        probe: str = "field()",
        retry: bool = True,
    ) -> None:
        self.channel = channel
        self._request = request
        self._probe = probe
        self._provider = _PROVIDERS[provider]
        self._retry = retry
        self._deliver: Deliver | None = None
        self._deliver_again: DeliverAgain | None = None
        self._came_back = False
        self.was_connected = False
        self._pv: pva.Channel | None = None
        # Asks for the newest object: not the monitored channel, as a get may never return.
        self._prober: pva.Channel | None = None
        self._connected = False
        self._silent = True
        self._absent_since = 0.0
        self._errors = 0
        # Counters of monitors that were replaced by a new search.
        self._past_overruns = 0
        self._received = 0
        # Number of objects received when the channel was last found absent; -1: it was connected.
        self._absent_at = -1
        # Whether the present channel was ever connected.
        self._seen = False
        self._busy = threading.Lock()
        self._retired: list[tuple[float, pva.Channel]] = []
        self._pinned = 0

    def start(self, deliver: Deliver, deliver_again: DeliverAgain | None = None) -> None:
        self._deliver = deliver
        self._deliver_again = deliver_again
        self._search()
        _watch.add(self)

    def _search(self) -> None:
        self._absent_since = time.monotonic()
        self._absent_at, self._seen = -1, False
        pv = self._pv = pva.Channel(self.channel, self._provider)
        # No connection callback: the binding calls it without a lock against the thread that sets
        # it or gives the channel up, which ended the process at start now and then. An update says
        # that the channel is there, and a watch asks whether it still is.
        pv.monitor(self._on_update, self._request)

    def _on_connection(self, connected: bool) -> None:
        if connected != self._connected:
            self._connected = connected
            self._silent = True
            self._absent_since = time.monotonic()
            self._came_back = connected and self.was_connected
            self.was_connected = self.was_connected or connected
            _log.info("channel %s is %s", self.channel, "connected" if connected else "gone")

    def _on_update(self, obj: StreamObject) -> None:
        if threading.get_ident() != self._pinned:
            self._pin_thread()
        with self._busy:
            deliver = self._deliver
            if deliver is None:
                return
            if not self._connected:
                # An object proves that it is connected.
                self._on_connection(True)
            self._silent = False
            self._received += 1
            try:
                if self._came_back and self._deliver_again is not None:
                    self._came_back = False
                    self._deliver_again(obj, Return())
                else:
                    deliver(obj)
            except Exception:
                # The binding would print it and continue; here it is counted.
                self._errors += 1
                _log.exception("channel %s: an object could not be delivered", self.channel)

    def _pin_thread(self) -> None:
        """Give the binding's thread a permanent Python state.

        Without one, Python creates and destroys a state for every update, at the cost of mapping
        and
        unmapping memory each time: measured at 128x128 pixels, a third of a consumer's whole time
        per frame. The state is not released: it exists as long as the thread.
        """
        self._pinned = threading.get_ident()
        ctypes.pythonapi.PyGILState_Ensure()

    def keep_up(self) -> None:
        if self._retired and not self._busy.locked():
            # A server still counts them as members of a group: keep that time short.
            now = time.monotonic()
            self._retired = [one for one in self._retired if now - one[0] < _RETIREMENT]
        pv = self._pv
        if self._deliver is None or pv is None:
            return
        if not (self._silent if self._connected else self._retry):
            return
        patience = _SILENT_AFTER if self._connected else _SEARCH_AGAIN_AFTER
        if time.monotonic() - self._absent_since < patience:
            return
        self._close()
        self._search()

    def look(self) -> None:
        """Check whether the channel is connected. A connected one may not report it yet."""
        pv = self._pv
        if pv is None or self._deliver is None:
            return
        if pv.isConnected():
            self._absent_at, self._seen = -1, True
            self._on_connection(True)
        elif not self._seen and time.monotonic() - self._absent_since < _SAYS_SO_AFTER:
            return
        elif self._absent_at == self._received:
            self._on_connection(False)
        else:
            self._absent_at = self._received

    def _close(self) -> None:
        pv = self._pv
        self._prober = None
        if pv is None:
            return
        overruns = pv.getMonitorCounters().get("nOverruns", 0)
        self._pv, self._past_overruns = None, self._past_overruns + overruns
        pv.stopMonitor()
        self._retired.append((time.monotonic(), pv))

    def stop(self, patience: float = 0.0) -> list[StreamObject]:
        _watch.remove(self)
        self._close()
        self._deliver = None
        self._connected = False
        was_busy = self._busy.locked()
        if self._busy.acquire(timeout=_LAST_DELIVERY):
            self._busy.release()
            # Release it before Python ends: a callback of the binding would not survive that. But
            # not before the binding's thread has left the callback.
            time.sleep(_LEAVING if was_busy else _LEAVING / 10)
            self._retired.clear()
        else:
            _log.error(
                "channel %s: an object is still being processed after %g s",
                self.channel,
                _LAST_DELIVERY,
            )
            _stuck.append(self)
        return []

    def counts(self) -> ReceiverCounts:
        # In this order: while a monitor is replaced, too few may show, but none twice.
        overruns, pv = self._past_overruns, self._pv
        if pv is not None:
            overruns += pv.getMonitorCounters().get("nOverruns", 0)
        return ReceiverCounts(self._received, overruns, self._errors)

    @property
    def connected(self) -> bool:
        return self._connected

    def newest(self, timeout: float) -> StreamObject | None:
        if not self._connected:
            return None
        answer: queue.SimpleQueue[pva.PvObject | None] = queue.SimpleQueue()
        # A separate thread: the binding's get never returns, whatever its time limit, if the source
        # disconnects between the connection of the channel and that of the get.
        threading.Thread(target=self._ask, args=(timeout, answer), daemon=True).start()
        try:
            newest = answer.get(timeout=2 * timeout)
        except queue.Empty:
            newest = None
        if newest is None:
            # The next request uses a new channel.
            self._prober = None
        return newest

    def _ask(self, timeout: float, answer: queue.SimpleQueue[pva.PvObject | None]) -> None:
        try:
            prober = self._prober
            if prober is None:
                prober = self._prober = pva.Channel(self.channel, self._provider)
                prober.setTimeout(timeout)
            answer.put(prober.get(self._probe))
        except pva.PvaException:
            answer.put(None)


_watch = _Watch()
