"""The name of the run that a process belongs to, so that it replaces no file of the run."""

from __future__ import annotations

import hashlib
import multiprocessing
import os

RUN = "PVAPY_STREAM_RUN"


def run_id() -> str:
    """The name of the run: the same for all of its processes, also for restarted ones.

    A program that restarts others, or continues an earlier run, sets the environment variable
    ``PVAPY_STREAM_RUN``.
    """
    if given := os.environ.get(RUN):
        return given
    # A random key that spawned processes inherit. It is secret, so only its hash is used.
    key = bytes(multiprocessing.current_process().authkey)
    return hashlib.sha256(b"pvapy_stream run" + key).hexdigest()[:24]
