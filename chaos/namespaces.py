"""File systems that one run alone has."""

from __future__ import annotations

import subprocess


def namespaces() -> list[str]:
    """The command that gives a run file systems of its own; empty where it is not allowed."""
    for words in (["unshare", "-m"], ["unshare", "-rm"]):
        try:
            done = subprocess.run(
                [*words, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"],
                capture_output=True, timeout=10, check=False,
            )  # fmt: skip
        except OSError:
            continue
        if done.returncode == 0:
            return words
    return []
