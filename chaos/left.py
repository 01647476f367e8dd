"""What a run left in shared memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SHM = Path("/dev/shm")
_MANAGEMENT = "global_mgmt"  # of iceoryx2; one, which stays

# A program that comes and goes: what killed ones left is removed by those that start later.
_VISIT = """
import os
from pvapy_stream.settings import ShmSettings
from pvapy_stream.transport.shm import ShmPublisher
from pvapy_stream.pva.ntndarray import ObjectBuilder
publisher = ShmPublisher("chaos:visit", ShmSettings.of())
publisher.start()
publisher.open(ObjectBuilder().prototype)
publisher.stop()
"""


def shared_memory() -> list[str]:
    """Files that are left in shared memory after all, a sentence each."""
    if not _files():
        return []
    done = subprocess.run(
        [sys.executable, "-c", _VISIT], capture_output=True, text=True, timeout=60, check=False
    )
    wrong = [f"shared memory cannot be used after the run: {done.stderr[-200:]}"]
    return [f"left in shared memory: {path}" for path in _files()][:5] + (
        wrong if done.returncode else []
    )


def _files() -> list[str]:
    return [
        str(path.relative_to(_SHM))
        for path in sorted(_SHM.rglob("*"))
        if not path.is_dir() and not path.name.endswith(_MANAGEMENT)
    ]
