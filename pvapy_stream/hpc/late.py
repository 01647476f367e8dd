"""What becomes of objects after `process` has returned, in processors that finish them later."""

from __future__ import annotations

import logging
import threading

from pvapy_stream.accounting.idset import IdSet

_LOG_EVERY = 1000


class LateFailures:
    """Ids that failed after `process` had returned, by error, and ids that were finished then.

    Any thread may note. The first error of each kind is logged, then every thousandth. The stage
    takes what was noted into its account.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.by_kind: dict[str, IdSet] = {}
        self._new: dict[str, IdSet] = {}
        # In their order; ids that start again are in a set of their own.
        self._done: list[IdSet] = []
        self._rejected: dict[str, IdSet] = {}
        self.count = 0
        self.last = ""
        self._seen: dict[str, int] = {}
        self._logger = logger
        self._lock = threading.Lock()

    def note(self, object_id: int, kind: str, message: object) -> None:
        """An object failed; `kind` is one of few, without ids or other values."""
        with self._lock:
            self.count += 1
            self.last = f"object {object_id}: {kind}: {message}"
            self.by_kind.setdefault(kind, IdSet()).add(object_id)
            self._new.setdefault(kind, IdSet()).add(object_id)
            seen = self._seen[kind] = self._seen.get(kind, 0) + 1
        if seen == 1 or seen % _LOG_EVERY == 0:
            self._logger.error(
                "object %d failed, %s (%d of this kind so far): %s", object_id, kind, seen, message
            )

    def done(self, ids: IdSet) -> None:
        """Objects are processed for good: of a writer, they are on disk.

        Only for processors with ``confirms = True``; theirs count as processed by this alone.
        """
        with self._lock:
            last = self._done[-1].last if self._done else None
            if last is None or (ids.first is not None and ids.first <= last):
                self._done.append(IdSet())
            self._done[-1].update(ids)

    def reject(self, object_id: int, policy: str) -> None:
        """An object is dropped by a named policy, which is no failure.

        Only for processors with ``confirms = True``: other objects count as processed.
        """
        with self._lock:
            self._rejected.setdefault(policy, IdSet()).add(object_id)

    def take_rejected(self) -> dict[str, IdSet]:
        """What was rejected since this was last asked, by policy."""
        if not self._rejected:
            return {}
        with self._lock:
            rejected, self._rejected = self._rejected, {}
            return rejected

    def take(self) -> dict[str, IdSet]:
        """What failed since this was last asked, for the account."""
        if not self._new:
            return {}
        with self._lock:
            new, self._new = self._new, {}
            return new

    def take_done(self) -> list[IdSet]:
        """What was done since this was last asked; an id may be in several sets."""
        with self._lock:
            done, self._done = self._done, []
            return done
