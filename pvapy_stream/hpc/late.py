"""Objects that fail after `process` has returned, in processors that finish them later."""

from __future__ import annotations

import logging
import threading

from pvapy_stream.errors import ProcessorError
from pvapy_stream.idset import IdSet

_LOG_EVERY = 1000


class LateFailures:
    """Ids by the error they met after the stage had counted them as processed. Any thread may note.

    The first of each kind is logged, then every thousandth; `raise_any` at the end of the
    processor's `stop` makes the run no success.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.by_kind: dict[str, IdSet] = {}
        self.count = 0
        self.last = ""
        self._seen: dict[str, int] = {}
        self._logger = logger
        self._lock = threading.Lock()

    def note(self, object_id: int, kind: str, message: object) -> None:
        """An object failed."""
        with self._lock:
            self.count += 1
            self.last = f"object {object_id}: {kind}: {message}"
            self.by_kind.setdefault(kind, IdSet()).add(object_id)
            seen = self._seen[kind] = self._seen.get(kind, 0) + 1
        if seen == 1 or seen % _LOG_EVERY == 0:
            self._logger.error(
                "object %d failed, %s (%d of this kind so far): %s", object_id, kind, seen, message
            )

    def raise_any(self) -> None:
        """Say what failed in the whole run.

        Raises:
            ProcessorError: something did.
        """
        if self.by_kind:
            kinds = "; ".join(f"{kind}: ids {ids}" for kind, ids in self.by_kind.items())
            raise ProcessorError(
                f"objects failed after they were taken: {kinds}; the last: {self.last}"
            )
