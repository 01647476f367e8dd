"""The subscribers of a publisher: those that connect, take part in the distribution, and leave."""

from __future__ import annotations

import logging
from collections.abc import Callable

import iceoryx2 as iox

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.shm import nodes, pool_file
from pvapy_stream.transport.shm.peer_directory import PeerDirectory, has_subscribers
from pvapy_stream.transport.shm.peer_file import SUBSCRIBER, SubscriberInfo, SubscriberState
from pvapy_stream.transport.shm.set_service import SetService, Subscriber
from pvapy_stream.transport.shm.set_turns import RoundRobin, turns_of
from pvapy_stream.transport.shm.wakeup import WakeupWriter

_REFRESH_PERIOD = 0.05  # s; how soon a subscriber that connects or leaves is noticed
_SWEEP_PERIOD = 1.0  # s

_log = logging.getLogger(__name__)


class SubscriberTable:
    """Keeps track of subscribers by their peer files. Not locked.

    Args:
        directory: the peer directory of the channel.
        publisher: key of the publisher.
        create_service: creates the service of a set, for its first subscriber.
        greet: connects a subscriber to its service, and sends it the current object.

    Attributes:
        services: services by the names of group and set.
        groups: the sets of each distributor group, with its policy.
        refresh_due: time of the next refresh, by `time.monotonic`.
        rejected: samples that dead subscribers had not taken.
        problem: why a subscriber cannot be connected; "" if all can.
    """

    def __init__(
        self,
        directory: PeerDirectory,
        publisher: str,
        create_service: Callable[[SubscriberInfo], SetService],
        greet: Callable[[Subscriber], None],
    ) -> None:
        self._directory = directory
        self._prefix = f"{SUBSCRIBER.prefix}{publisher}"
        self._create_service = create_service
        self._greet = greet
        self.services: dict[tuple[str, str], SetService] = {}
        self.groups: dict[str, RoundRobin] = {}
        self.refresh_due = self._sweep_due = 0.0
        self.rejected = 0
        self.problem = ""
        self._subscribers: dict[str, Subscriber] = {}
        # Peer files that were written by another version; each is reported once.
        self._refused: set[str] = set()
        self._last_error = ""

    @property
    def n_active(self) -> int:
        """Number of subscribers that take part in the distribution."""
        return sum(one.active for one in self.subscribers())

    def subscribers(self) -> list[Subscriber]:
        """Those that are connected or connecting. For any thread."""
        return [*self._subscribers.values()]

    def queued(self) -> dict[int, int]:
        """References that subscribers have not secured, by process id."""
        found: dict[int, int] = {}
        for one in self._subscribers.values():
            if n := len(one.in_flight):
                found[one.info.pid] = found.get(one.info.pid, 0) + n
        return found

    def all_taken(self) -> bool:
        """Whether all queues are empty."""
        return not any(one.active and one.waiting > 0 for one in self._subscribers.values())

    def refresh(self, now: float, node: iox.Node) -> None:
        """Connect new subscribers and remove those that have disconnected.

        Errors are logged, not raised: publishing continues.
        """
        self.refresh_due = now + _REFRESH_PERIOD
        try:
            self._refresh(now, node)
        except Exception as error:
            if str(error) != self._last_error:
                self._last_error = str(error)
                _log.exception(
                    "channel %s: its subscribers cannot be updated", self._directory.channel
                )

    def _refresh(self, now: float, node: iox.Node) -> None:
        if now >= self._sweep_due:
            self._sweep_due = now + _SWEEP_PERIOD
            nodes.sweep(node)
            pool_file.sweep(has_subscribers)
        names = self._directory.names(self._prefix)
        for name in names:
            if name not in self._subscribers and name not in self._refused:
                self._register(name)
        existing = set(names)
        self._refused &= existing
        for name, one in [*self._subscribers.items()]:
            state = one.counters.state
            one.in_flight.prune(one.counters.secured)
            if name not in existing or not one.file.has_owner():
                self._remove(name, one)
                nodes.sweep(node)
            elif state == SubscriberState.LEAVING and one.active:
                self._deactivate(one)
                one.release()
            elif (
                state == SubscriberState.READY
                and not one.active
                and now >= one.activate_due
                and one.has_emptied(now)
            ):
                self._activate(one)

    def _register(self, name: str) -> None:
        """Add a subscriber, and create its service if it is the first of its set."""
        file = self._directory.open(SUBSCRIBER, name)
        if file is None:
            return
        try:
            info = file.read_info()
        except TransportError as error:
            self._refused.add(name)
            file.close(remove=False)
            _log.error(
                "channel %s: subscriber %s is not understood: %s; both sides must run compatible"
                " versions of pvapy_stream",
                self._directory.channel,
                file.path,
                error,
            )
            return
        if problem := self._other_policy(info):
            self._refused.add(name)
            file.close(remove=False)
            _log.error("channel %s: %s", self._directory.channel, problem)
            return
        key = (info.group, info.client_set)
        try:
            service = self.services.get(key)
            if service is None:
                service = self.services[key] = self._create_service(info)
        except TransportError as error:
            self._note_problem(str(error))
            file.close(remove=False)
            return
        self.problem = ""
        service.members += 1
        wakeup = WakeupWriter(self._directory.wakeup_path(info.key))
        self._subscribers[name] = Subscriber(file, info, service, wakeup)

    def _other_policy(self, info: SubscriberInfo) -> str:
        """Why a subscriber does not fit into its group, or ""."""
        for one in self._subscribers.values():
            if one.info.group == info.group and one.info.policy != info.policy:
                return (
                    f"{info.who} gets nothing: its --distributor-policy is {info.policy}, and its"
                    f" group {info.group!r} has {one.info.policy}; give all consumers of a group"
                    " the same policy"
                )
        return ""

    def _activate(self, one: Subscriber) -> None:
        """Send a subscriber the current object, and then its share of those that follow."""
        one.active = True
        try:
            self._greet(one)
        except TransportError as error:
            # The next refresh tries again.
            self._deactivate(one)
            self._note_problem(str(error))
            return
        self.problem = ""
        group = self.groups.get(one.info.group)
        if group is None or group.policy != one.info.policy:
            # Those with another policy have left.
            group = self.groups[one.info.group] = turns_of(one.info.policy)
        group.add(one.service)
        _log.info("channel %s: %s is connected", self._directory.channel, one.info.who)

    def _deactivate(self, one: Subscriber) -> None:
        one.active = False
        service = one.service
        if one in service.subscribers:
            service.subscribers.remove(one)
        if not service.subscribers and one.info.group in self.groups:
            self.groups[one.info.group].remove(service)

    def _remove(self, name: str, one: Subscriber) -> None:
        """Remove a subscriber; samples it had not taken before it died were rejected."""
        if one.active:
            lost = max(0, one.waiting)
            self.rejected += lost
            _log.warning(
                "channel %s: %s has disconnected; it had not taken %d objects",
                self._directory.channel,
                one.info.who,
                lost,
            )
        self._deactivate(one)
        del self._subscribers[name]
        one.in_flight.end()
        one.close(remove=True)
        service = one.service
        service.members -= 1
        if not service.members:
            service.close()
            self.services.pop(service.key, None)

    def _note_problem(self, problem: str) -> None:
        """Keep a problem: publishing fails with it, so that it is noticed."""
        if problem != self.problem:
            self.problem = problem
            _log.error("channel %s: %s", self._directory.channel, problem)

    def close(self) -> None:
        """Release all subscribers, and free the memory."""
        for one in self._subscribers.values():
            # What is not secured yet stays held: it may still be taken.
            one.in_flight.prune(one.counters.secured)
            one.release()
            one.close(remove=False)
        for service in self.services.values():
            service.close()
            service.subscribers.clear()
        self._subscribers.clear()
        self.services.clear()
        self.groups.clear()
