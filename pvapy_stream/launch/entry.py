"""What a process does that was started by `launch`: it obeys its parent, and ends with it."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable

from pvapy_stream.signals import (
    end_with_parent,
    leave_by_force,
    request_stop,
    runs_until_signal,
    still_ending,
)

# Words from the parent: a source may begin; it publishes no more, but stays; end in order; end
# without draining.
GO, FINISH, STOP, HURRY = "go", "finish", "stop", "hurry"
# What begins with this is a remark of the parent, which the status shows.
REMARK = "remark: "

_HURRY_LIMIT = 10.0  # s; from the word hurry to our end
_BEGIN_LIMIT = 5.0  # s; for a program to begin, so that a stop reaches it
_PARENT_PERIOD = 10.0  # s

_log = logging.getLogger(__name__)


def enter(orphan_limit: float | None = None) -> None:
    """End this process with its parent; to be called first by every process that is started.

    Args:
        orphan_limit: s from the parent's end to ours, by force; None where `Orders` sees to that.
    """
    # What was imported is never garbage; to look through it takes a tenth of the CPU of a start.
    gc.freeze()
    end_with_parent()
    threading.Thread(target=_follow, args=(orphan_limit,), name="parent", daemon=True).start()


def _follow(orphan_limit: float | None) -> None:
    number, parent = os.getppid(), multiprocessing.parent_process()
    while os.getppid() == number:
        # The kernel's signal comes with the end of the thread that started us, too.
        still_ending(0)
        if parent is not None:
            parent.join(_PARENT_PERIOD)
        else:
            time.sleep(_PARENT_PERIOD)
    if orphan_limit is not None:
        time.sleep(orphan_limit)
        leave_by_force()


class Orders:
    """The words of the parent.

    Args:
        limit: s from the parent's end to ours, by force.

    Attributes:
        go: a source may begin.
        finish: a source publishes no more.
        remark: what the parent last said of what it does for this process, or "".
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self.go = threading.Event()
        self.finish = threading.Event()
        self.remark = ""

    def follow(self, words: Iterable[str]) -> None:
        """Obey in a thread, which may begin before the program runs until a signal."""
        threading.Thread(target=self._obey, args=(words,), name="orders", daemon=True).start()

    def _obey(self, words: Iterable[str]) -> None:
        for word in words:
            if word == GO:
                self.go.set()
            elif word == FINISH:
                self.finish.set()
            elif word.startswith(REMARK):
                self.remark = word.removeprefix(REMARK)
            elif word in (STOP, HURRY):
                # Who is there ends us by force first.
                self._stop(word == HURRY, self._limit + _BEGIN_LIMIT)
        _log.error("the parent process has ended; stopping")
        still_ending(self._limit + _BEGIN_LIMIT)
        self._stop(False, self._limit)

    def _stop(self, hurry: bool, limit: float) -> None:
        request_stop(hurry)
        limit = _HURRY_LIMIT if hurry else limit
        threading.Thread(target=_end_after, args=(limit,), name="end", daemon=True).start()


def _end_after(limit: float) -> None:
    time.sleep(min(limit, _BEGIN_LIMIT))
    if not runs_until_signal():
        # It knows no orderly end.
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(max(0.0, limit - _BEGIN_LIMIT))
    _log.error("not ended within %g s; ending by force", limit)
    leave_by_force()
