"""What consumers and collectors share: their life, their account, the commands."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.ledger import Ledger, merged
from pvapy_stream.errors import ProcessorError
from pvapy_stream.files.run import run_id
from pvapy_stream.hpc.control import configured
from pvapy_stream.hpc.deadline import Deadline
from pvapy_stream.hpc.parts import StageParts
from pvapy_stream.hpc.stage_stats import processor_stats
from pvapy_stream.signals import in_main_thread
from pvapy_stream.status.counted import publisher_stats
from pvapy_stream.status.snapshot import Snapshot
from pvapy_stream.transport.filtered_ids import FilteredReceiver
from pvapy_stream.transport.ports import PublisherCounts, Receiver, Troubled

STOP_GRACE = 10.0  # s; beyond the time to drain, for the processor to close what it has
PROCESS_GRACE = 1.0  # s; beyond the time to drain, for the object that is being processed
_LAST_TAKEN = 0.5  # s; least time that subscribers get for what was published last
# Building the account takes at most this share of the time, however large it is.
_LEDGER_SHARE = 0.05
_STATS_PATIENCE = 0.5  # s; a processor that takes longer keeps its last statistics in the status

# Keys of a `configure` command that are ours, with their smallest value.
_SYSTEM_KEYS = {
    "receiverQueueSize": -1,
    "skipInitialUpdates": 0,
    "objectIdOffset": 1,
    "nSequentialUpdates": 1,
    "collectorCacheSize": -1,
}


class StageRunner(StageParts):
    """Receives objects, processes and publishes them, and accounts for it all.

    Attributes:
        calls_stop: whether the processor's `stop` was called.
    """

    calls_stop = False

    # -- what each kind has of its own -----------------------------------------------------------

    @abstractmethod
    def start_receiving(self) -> None:
        """Start the receivers."""

    @abstractmethod
    def keep_up(self) -> None:
        """Look after connections and overdue objects; called a few times a second."""

    @abstractmethod
    def stop_receiving(self, deadline: Deadline) -> None:
        """Note the source's newest id, take what is under way, and stop the receivers."""

    @abstractmethod
    def flush(self, deadline: Deadline) -> None:
        """Process what waits, until the deadline."""

    @abstractmethod
    def waiting(self) -> list[tuple[Account, Any]]:
        """Take what still waits after `flush`, with the account it belongs to."""

    @property
    @abstractmethod
    def accounts(self) -> list[Account]:
        """The accounts of the stage, one for each source."""

    def begin(self, incarnation: int) -> None:
        """Say which process of this stage it is: 1 for the first, one more for each restart."""
        for account in self.accounts:
            account.ledger.begin(incarnation)
        self._name_files()

    def _name_files(self) -> None:
        """Say in the ledgers where a writer's files are."""
        file = str(getattr(self.stage.processor, "output_files", ""))
        for account in self.accounts:
            account.ledger.file, account.ledger.run = file, run_id() if file else ""

    def ledgers(self, closed: bool = False, last: bool = False) -> list[dict[str, Any]]:
        """The account for files and pipes; nothing when nobody asked for one.

        It is that of now, or, where building it takes long, that of a while ago.

        Args:
            closed: whether this is the end, and in order.
            last: whether this is the end.
        """
        if not self.settings.ledger:
            return []
        if not (closed or last) and time.monotonic() < self._ledgers_due:
            return self._ledgers
        # A processor that hangs in process() holds the lock: its account is told all the same.
        locked = self.stage.lock.acquire(timeout=_STATS_PATIENCE)
        try:
            start = time.thread_time()
            plain = [one for account in self.accounts for one in account.plain(closed)]
            self._ledgers = self._with_missed(plain)
        finally:
            if locked:
                self.stage.lock.release()
        self._ledgers_due = time.monotonic() + (time.thread_time() - start) / _LEDGER_SHARE
        return self._ledgers

    def whole_account(self) -> Ledger:
        """All accounts as one ledger, with what is missed now."""
        with self.stage.lock:
            whole = merged([one for account in self.accounts for one in account.ledgers])
            whole.missed.update(self.stage.missed(self.newest))
            return whole

    def _with_missed(self, plain: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The ledgers with what is missed now, in that of the first source's present epoch."""
        account = self.accounts[0]
        present = plain[len(account.ledgers) - 1]
        ledger, tracker = account.ledger, self.stage.tracker
        present["missed"] = (ledger.missed | self.stage.missed(self.newest)).to_list()
        present["unknown"] = (ledger.unknown | tracker.unknown).to_list()
        return plain

    def count_missed(self, filters: Iterable[FilteredReceiver]) -> int:
        """Objects that did not come, without those that a source may yet say it filtered."""
        stage = self.stage
        open_yet = not stage.counts.end_time and any(one.follows for one in filters)
        after = self._settling.until if open_yet else None
        return stage.count_missed(self.newest, -1 if open_yet and after is None else after)

    @property
    def newest(self) -> int | None:
        """The source's newest id, where it is known."""
        return None

    @abstractmethod
    def own_stats(self, seconds: float) -> dict[str, Any]:
        """Those groups of a snapshot that the kind has of its own; rates over `seconds`."""

    @property
    @abstractmethod
    def missed(self) -> int:
        """How many objects did not come."""

    @property
    @abstractmethod
    def phase(self) -> str:
        """Waiting (for a channel), running, paused or disconnected."""

    @property
    @abstractmethod
    def heard(self) -> int:
        """How many of its channels have delivered an object."""

    @property
    def standing(self) -> tuple[str, int, str]:
        """What is told as soon as it changes: phase, channels that delivered, why no share."""
        return self.phase, self.heard + self.metadata.heard, self.unshared

    @abstractmethod
    def absent(self) -> list[str]:
        """Channels that never came."""

    @property
    def remark(self) -> str:
        """What the status says of channels from which nothing comes."""
        refused = [f"channel {channel}: {why}" for channel, why in self.troubled().items()]
        return "; ".join(filter(None, (*refused, self._awaited.remark, self.metadata.remark)))

    def look_for_absent(self) -> None:
        """Log which channels have not come; called a few times a second."""
        troubled = self.troubled()
        self._awaited.look([channel for channel in self.absent() if channel not in troubled])

    @abstractmethod
    def receivers(self) -> dict[str, Receiver]:
        """The receivers of objects, by their channels."""

    def troubled(self) -> dict[str, str]:
        """Why nothing comes from a channel that is there, such as a refusal; by channel."""
        able = {name: one for name, one in self.receivers().items() if isinstance(one, Troubled)}
        return {name: one.problem for name, one in able.items() if one.problem}

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the processor, then receive.

        Raises:
            ProcessorError: the processor does not start.
        """
        try:
            in_main_thread(self.stage.processor.start)
        except Exception as error:
            raise ProcessorError(
                f"processor {self.settings.processor_class} does not start:"
                f" {type(error).__name__}: {error}"
            ) from error
        if self.publisher is not None:
            self.publisher.start()
        # A source that waits for its clients begins with the first it sees: metadata come second.
        self.inbox.start()
        self.start_receiving()
        self.metadata.start()

    def stop(self, deadline: Deadline) -> None:
        """Take what is under way, process what waits, and close the account. Raises nothing.

        User code that does not return until the deadline keeps for ever what waits for it: the
        account is then closed without it, see `abandon`.
        """
        drained = self._drain(deadline)
        lock = self.stage.lock
        if not drained or not _has(lock, deadline):
            self.abandon(deadline)
            return
        try:
            self._leave(deadline)
            self.stage.finish(self._newest_at_end)
            self.snapshot()
            self.calls_stop = True
            self.stage.call("stop", self.stage.processor.stop)
            self.stage.settle(self.accounts)
        finally:
            lock.release()
        self.metadata.stop()
        if self.publisher is not None:
            self.publisher.finish(max(_LAST_TAKEN, deadline.left))

    def _drain(self, deadline: Deadline) -> bool:
        """Stop receiving and process what waits; False when user code does not return."""

        def run() -> None:
            self.stop_receiving(deadline)
            self.flush(deadline)

        thread = threading.Thread(target=run, name="drain", daemon=True)
        thread.start()
        if deadline.wait_for_end_of(thread):
            return True
        # What comes from now on gets no further than the account.
        self.stage.leaving = True
        if not _has(self.stage.lock, deadline):
            return False
        self.stage.lock.release()
        return deadline.wait_for_end_of(thread, PROCESS_GRACE + STOP_GRACE)

    def _leave(self, deadline: Deadline) -> None:
        """Note what still waits."""
        self.stage.leave(self.waiting())
        if self.stage.n_left:
            limit = f"{self.settings.drain_timeout:g} s"
            self.log.error(
                "%d objects were still waiting after %s and are left; see --drain-timeout",
                self.stage.n_left,
                "a second signal" if deadline.hurried else limit,
            )

    def abandon(self, deadline: Deadline) -> None:
        """Close the account though the processor does not return; its process must then end."""
        if not self.stage.abandoned:
            self.stage.abandoned = True
            self._leave(deadline)
            self.stage.abandon(self.accounts, self._newest_at_end)

    def problem(self) -> str:
        """Why the run must not count as a success, or ""."""
        who = f"{self.kind} {self.id}"
        if not self.stage.ok:
            return f"{who}: {self.stage.counts.errors} errors, the last: {self.stage.last_error}"
        troubled = self.troubled()
        problems = [f"channel {channel}: {why}" for channel, why in troubled.items()]
        if absent := [channel for channel in self.absent() if channel not in troubled]:
            told = self._awaited.to_check(absent)
            problems.append(f"channel {', '.join(absent)} never came; {told}")
        if not self.settings.metadata_optional:
            problems += [f"{one}, or give --metadata-optional" for one in self.metadata.absences()]
        return f"{who}: {'; '.join(problems)}" if problems else ""

    def note_request(self, error: Exception) -> None:
        """Note that a source has not all fields that are asked for."""
        self.stage.note_error("field request", error)

    # -- commands --------------------------------------------------------------------------------

    def configure(self, values: Any) -> str:
        """A `configure` command: our own keys, then the processor's `configure` with all."""
        own: dict[str, int] = {}
        if isinstance(values, dict):
            own = {k: _whole(k, values[k], low) for k, low in _SYSTEM_KEYS.items() if k in values}
            self.configure_own(own)
        ours = own.keys() if self.kind == "collector" else own.keys() - {"collectorCacheSize"}
        with self.stage.lock:
            return configured(self.stage.processor, values, ours)

    def configure_own(self, own: dict[str, int]) -> None:
        """Take our own keys of a `configure` command."""
        if "receiverQueueSize" in own:
            self.inbox.resize(own["receiverQueueSize"])
        tracker = self.stage.tracker
        with self.stage.lock:
            if "skipInitialUpdates" in own:
                self.stage.skip_next(own["skipInitialUpdates"])
            tracker.offset = own.get("objectIdOffset", tracker.offset)
            tracker.run = own.get("nSequentialUpdates", tracker.run)

    def reset_stats(self, _: Any = None) -> str:
        """Begin to count anew."""
        self.carried = self.inbox.reset_counts()
        self.metadata.reset_counts()
        self.stage.reset()
        return "Stats reset successful"

    def pause(self, _: Any = None) -> str:
        """Process nothing until `resume`; what arrives waits in the queue."""
        self.paused = True
        self.inbox.pause()
        return "Paused"

    def resume(self, _: Any = None) -> str:
        """Process what waited, then go on."""
        self.paused = False
        self.inbox.resume()
        return "Resumed"

    def reload(self, _: Any = None) -> str:
        """Load the processor's file again and change over between two objects."""
        if not self.settings.processor_class:
            raise ProcessorError("there is no processor to reload; start with --processor-class")
        new = self._make_processor()
        new.dataPublisher = self.stage.output
        try:
            in_main_thread(new.start)
        except Exception as error:
            raise ProcessorError(
                "the new processor does not start, the old one goes on:"
                f" {type(error).__name__}: {error}"
            ) from error
        with self.stage.lock:
            old = self.stage.processor
            self.stage.use(new)
        self._user_stats = {}
        self.stage.call("stop of the old processor", old.stop)
        self.stage.settle(self.accounts, old)
        return "Reload successful"

    # -- statistics ------------------------------------------------------------------------------

    def blank(self) -> Snapshot:
        """A snapshot with all its fields; asks the processor for the types of its statistics."""
        types = self.stage.call(
            "getStatsPvaTypes", self.stage.processor.getStatsPvaTypes, fallback={}
        )
        return Snapshot(
            self.kind,
            self.id,
            metadata_stats=self.metadata.stats(0.0, 0, {}),
            user_types=types or {},
            **self.own_stats(0.0),
        )

    def snapshot(self, patience: float = _STATS_PATIENCE) -> Snapshot:
        """All statistics; the processor gets `patience` s for its own."""
        stage = self.stage
        locked = stage.lock.acquire(timeout=patience)
        try:
            message = f"process() has not returned for {patience} s; userStats are old"
            if locked:
                found = stage.call("getStats", stage.processor.getStats, fallback={})
                self._user_stats = found or {}
                stage.settle(self.accounts)
                told = stage.processor.metadata_coverage
                self._coverage = stage.call("metadata_coverage", told, fallback={}) or {}
                message = stage.troubles.recent or stage.tracker.remark or self.remark
            counts, missed, tracker = replace(stage.counts), self.missed, stage.tracker
            unknown, epochs = len(tracker.unknown), 1 + tracker.n_restarts
        finally:
            if locked:
                stage.lock.release()
        # Against the stream, from here on: what came later may not seem to be more.
        seconds = counts.receiving_time
        published = stage.output.counts() if stage.output else PublisherCounts()
        own = self.own_stats(seconds)
        return Snapshot(
            self.kind,
            self.id,
            self.input_channel,
            message=message,
            object_id=counts.last_id or 0,
            output_channel=self.output_channel,
            publisher_stats=publisher_stats(published, seconds),
            metadata_stats=self.metadata.stats(seconds, counts.processed, self._coverage),
            processor_stats=processor_stats(counts, missed, unknown, epochs),
            user_stats=self._user_stats,
            **own,
        )


def _has(lock: Any, deadline: Deadline) -> bool:
    """Get the lock of a stage, as soon as the object that is being processed is done."""
    return deadline.wait_for(lambda seconds: lock.acquire(timeout=seconds), PROCESS_GRACE)


def _whole(key: str, value: Any, lowest: int) -> int:
    if not isinstance(value, bool) and isinstance(value, (int, str)):
        text = str(value)
        if text.lstrip("-").isdigit() and int(text) >= lowest:
            return int(text)
    raise ValueError(f"{key} must be a whole number from {lowest} on, not {value!r}")
