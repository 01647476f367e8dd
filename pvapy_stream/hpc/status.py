"""The status channel, and the statistics that stand in it."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pvaccess as pva

from pvapy_stream.hpc.fates import StageCounts
from pvapy_stream.hpc.inbox import InboxCounts
from pvapy_stream.pva.records import bounded, time_fields
from pvapy_stream.pva.serving import host_readonly
from pvapy_stream.transport.ports import PublisherCounts, ReceiverCounts

_log = logging.getLogger(__name__)

Stats = dict[str, Any]


def receiver_stats(counts: ReceiverCounts, rejected: int, seconds: float) -> Stats:
    """`receiverStats` of the status channel; rates over `seconds`."""
    rejected += counts.rejected
    return {
        "nReceived": counts.received,
        "receivedRate": rate(counts.received, seconds),
        "nRejected": rejected,
        "rejectedRate": rate(rejected, seconds),
        "nErrors": counts.errors,
        "errorRate": rate(counts.errors, seconds),
        "nOverruns": counts.overruns,
        "overrunRate": rate(counts.overruns, seconds),
    }


def drop_types(counts: ReceiverCounts) -> dict[str, Any]:
    """Structure of `dropStats`, which receivers have that may drop what came."""
    return {"dropStats": dict.fromkeys(_drop_names(counts), pva.ULONG)} if counts.drops else {}


def drop_stats(counts: ReceiverCounts) -> Stats:
    """`dropStats` of the status channel: what was dropped, by policy."""
    values = dict(zip(_drop_names(counts), counts.drops.values(), strict=True))
    return {"dropStats": values} if values else {}


def _drop_names(counts: ReceiverCounts) -> list[str]:
    return ["n" + policy.title().replace("_", "") for policy in counts.drops]


def publisher_stats(counts: PublisherCounts, seconds: float) -> Stats:
    """`publisherStats` of the status channel."""
    return {
        "nPublished": counts.published,
        "publishedRate": rate(counts.published, seconds),
        "nErrors": counts.errors,
        "errorRate": rate(counts.errors, seconds),
        "nRejected": counts.rejected,
        "rejectedRate": rate(counts.rejected, seconds),
    }


def queue_stats(counts: InboxCounts) -> Stats:
    """`queueStats` of the status channel; what was rejected did not enter the queue."""
    return {
        "nReceived": counts.received - counts.rejected,
        "nRejected": counts.rejected,
        "nDelivered": counts.delivered,
        "nQueued": counts.queued,
    }


def processor_stats(
    counts: StageCounts, missed: int, now: float, unknown: int = 0, epochs: int = 1
) -> Stats:
    """`processorStats` of the status channel.

    Args:
        counts: what the stage counted.
        missed: ids that should have come and did not.
        now: s since 1970.
        unknown: ids that were jumped over.
        epochs: how often ids began, the first time included.
    """
    seconds = counts.receiving_time
    return {
        "runtime": (counts.end_time or now) - counts.start_time,
        "startTime": counts.start_time,
        "endTime": counts.end_time,
        "receivingTime": seconds,
        "firstObjectTime": counts.first_time,
        "lastObjectTime": counts.last_time,
        "firstObjectId": counts.first_id or 0,
        "lastObjectId": counts.last_id or 0,
        "nProcessed": counts.processed,
        "processedRate": rate(counts.processed, seconds),
        "nErrors": counts.errors,
        "errorRate": rate(counts.errors, seconds),
        "nMissed": missed,
        "missedRate": rate(missed, seconds),
        "nFiltered": counts.filtered,
        "nSkipped": counts.skipped,
        "nDuplicates": counts.duplicates,
        "nUnknown": unknown,
        "nEpochs": epochs,
    }


def rate(count: int, seconds: float) -> float:
    """Count per second; 0 when no time has passed."""
    return count / seconds if seconds > 0 else 0.0


class StatusChannel:
    """Hosts a status channel on a server; any thread may publish."""

    def __init__(self, server: pva.PvaServer, name: str, structure: dict[str, Any]) -> None:
        self.name = name
        self._server = server
        self._structure = structure
        self._lock = threading.Lock()
        self._told: set[str] = set()
        host_readonly(server, name, pva.PvObject(structure))

    def restructure(self, structure: dict[str, Any]) -> None:
        """Change the structure, if it differs; clients then connect anew."""
        with self._lock:
            if structure == self._structure:
                return
            self._server.removeRecord(self.name)
            self._structure = structure
            host_readonly(self._server, self.name, pva.PvObject(structure))

    def publish(self, stats: Stats) -> None:
        """Write statistics; what the structure does not have is left out, with one warning."""
        with self._lock:
            known = self._known(stats, self._structure, "")
            known["message"] = bounded(known.get("message", ""))
            status = pva.PvObject(self._structure)
            try:
                status.set({**known, **time_fields()})
            except Exception as error:
                # One user value of a wrong type must not hide all the others.
                self._tell(
                    "userStats",
                    f"statistics do not fit their types ({error}); userStats is left out",
                )
                known.pop("userStats", None)
                status.set({**known, **time_fields()})
            self._server.update(self.name, status)

    def _known(self, stats: Stats, structure: dict[str, Any], path: str) -> Stats:
        known: Stats = {}
        for name, value in stats.items():
            if name not in structure:
                if path:
                    self._tell(
                        path + name,
                        f"{path + name} has no type in getStatsPvaTypes(); it is left out",
                    )
            elif isinstance(value, dict) and isinstance(structure[name], dict):
                known[name] = self._known(value, structure[name], f"{path}{name}.")
            else:
                known[name] = value
        return known

    def _tell(self, key: str, message: str) -> None:
        if key not in self._told:
            self._told.add(key)
            _log.warning("status channel %s: %s", self.name, message)
