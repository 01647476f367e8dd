"""How a writer does, as its status channel shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pvaccess as pva

from pvapy_stream.daq.accounts import channel_of
from pvapy_stream.daq.progress import Progress
from pvapy_stream.daq.states import Phase
from pvapy_stream.daq.writer import Writer
from pvapy_stream.hpc.status import Stats

_RUNNING = (Phase.ARMED.value, Phase.WRITING.value, Phase.FINISHING.value)
_NOTHING = -1  # pulse ids, lags and times that are not there
_LOST_SHOWN = 20  # ranges

# Fields that a writer's status channel has beside those of all programs; of the newest acquisition.
STATUS_FIELDS: dict[str, Any] = {
    "acquisition": pva.UINT,
    **dict.fromkeys(("phase", "status", "source", "file", "lost"), pva.STRING),
    **dict.fromkeys(
        ("startPulseId", "stopPulseId", "firstPulseId", "lastPulseId", "newestPulseId"), pva.LONG
    ),
    **dict.fromkeys(("rows", "bytes", "nLost", "duplicates", "late", "malformed"), pva.ULONG),
    **dict.fromkeys(("rate", "byteRate", "lag", "timeLeft"), pva.DOUBLE),
}


def writer_stats(writer: Writer) -> Stats:
    """All that the status channel of a writer shows.

    Counts are those of all its acquisitions; ``state`` is that of the newest, but a service that
    has none under way waits for the next.
    """
    found = [one.progress() for one in writer.acquisitions]
    newest = found[-1]
    return {
        **_own(newest),
        **_counts(found),
        "state": _state(writer, newest),
        "message": newest.problem or newest.last_error,
        "inputChannel": channel_of(writer.settings.stream),
        "objectId": _plain(newest.last_pulse_id),
    }


def _state(writer: Writer, newest: Progress) -> str:
    if not writer.settings.service or newest.phase in _RUNNING:
        return newest.phase
    return "stopped" if writer.ended.is_set() else Phase.WAITING.value


def _plain(value: Any) -> Any:
    return _NOTHING if value is None else value


def _own(newest: Progress) -> Stats:
    return {
        "acquisition": newest.number,
        "phase": newest.phase,
        "status": newest.status,
        "source": newest.source,
        "file": newest.file,
        "lost": " ".join(
            f"{first}-{last}" if last > first else str(first)
            for first, last in newest.lost[-_LOST_SHOWN:]
        ),
        "startPulseId": _plain(newest.start_pulse_id),
        "stopPulseId": _plain(newest.stop_pulse_id),
        "firstPulseId": _plain(newest.first_pulse_id),
        "lastPulseId": _plain(newest.last_pulse_id),
        "newestPulseId": _plain(newest.newest_pulse_id),
        "rows": newest.rows,
        "bytes": newest.n_bytes,
        "nLost": newest.n_lost,
        "duplicates": newest.duplicates,
        "late": newest.late,
        "malformed": newest.malformed,
        "rate": newest.rate,
        "byteRate": newest.byte_rate,
        "lag": _plain(newest.lag),
        "timeLeft": _plain(newest.time_left),
    }


def _counts(found: Sequence[Progress]) -> Stats:
    newest = found[-1]

    def total(name: str) -> int:
        return sum(getattr(one, name) for one in found)

    rows, malformed, missed = total("rows"), total("malformed"), total("n_lost")
    damaged = sum(sum(one.damaged.values()) for one in found)
    failed = sum(one.phase == Phase.ERROR.value for one in found)
    # The newest message tells for all: there is one queue, and one order.
    lag = newest.lag if newest.phase in _RUNNING else None
    return {
        "receiverStats": {"nReceived": rows + total("skipped"), "nErrors": malformed},
        "processorStats": {
            "nProcessed": rows, "processedRate": newest.rate, "nErrors": damaged + failed,
            "nMissed": missed, "nSkipped": total("skipped"),
            "firstObjectId": _plain(newest.first_pulse_id),
            "lastObjectId": _plain(newest.last_pulse_id),
        },
        "latencyStats": (
            dict.fromkeys(("sum", "p50", "p90", "p99", "max"), lag) | {"n": 1}
            if lag is not None
            else {}
        ),
    }  # fmt: skip
