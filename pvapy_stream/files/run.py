"""Names the run that a process belongs to, so that it does not replace what the run wrote."""

from __future__ import annotations

import hashlib
import multiprocessing
import os

RUN = "PVAPY_STREAM_RUN"


def run_id() -> str:
    """The same for all processes of a run, also for those that are started again.

    A program that starts others again, or goes on with an earlier run, gives the name in the
    environment variable ``PVAPY_STREAM_RUN``.
    """
    if given := os.environ.get(RUN):
        return given
    # A random key that a program hands to the processes it spawns; not to be told itself.
    key = bytes(multiprocessing.current_process().authkey)
    return hashlib.sha256(b"pvapy_stream run" + key).hexdigest()[:24]
