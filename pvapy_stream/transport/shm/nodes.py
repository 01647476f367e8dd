"""The process's part in iceoryx2, and what dead processes left of theirs.

iceoryx2 gives back what a dead process held, but not what one left that was killed while it was
starting or cleaning up. So each process keeps a lock on the folder of its node: what lies beside
it without a lock has no owner. Nodes are made under a shared lock on the folder of all of them,
and taken away under an exclusive one; a lock that cannot be had in time, as its holder was stopped,
only puts off the cleaning.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import threading
from pathlib import Path
from typing import Any

import iceoryx2

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.shm import folder
from pvapy_stream.transport.shm.folder import (
    lock,
    locked,
    open_folder,
    skip,
    subfolder,
    why_foreign,
)

_SAMPLES = Path("/dev/shm")  # noqa: S108 - where iceoryx2 has them, always
PREFIX = f"pvs{os.getuid()}_"  # of all files of iceoryx2
_PATIENCE = 0.5  # s; of a cleaner, for a lock that is held for milliseconds
_LONG_PATIENCE = 10.0  # s; for a cleaner to end: one that was stopped may go on while we start
_SHORT_PATIENCE = 0.02  # s; while objects wait
_ATTEMPTS = 5
_ROOT, _NODES, _SERVICES = "iceoryx2", "nodes", "services"

# It has no types.
iox: Any = iceoryx2

iox.set_log_level(iox.LogLevel.Fatal)


class Node:
    """The process's part in iceoryx2, as long as anybody here needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._node: Any = None
        self._mark = -1

    def take(self) -> Any:
        """The node; it is made for the first who asks.

        Raises:
            TransportError: shared memory cannot be used.
        """
        with self._lock:
            if self._node is None:
                self._node, self._mark = _new_node()
            self._users += 1
            return self._node

    def release(self) -> None:
        """Say that one who took it needs it no more."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._node = None
                os.close(self._mark)


node = Node()


def _new_node() -> tuple[Any, int]:
    root = subfolder(_ROOT)
    try:
        for _ in range(_ATTEMPTS):
            with _locked(root, fcntl.LOCK_EX, _PATIENCE) as alone:
                if alone and not _living(root):
                    _wipe(root)
            with _locked(root, fcntl.LOCK_SH, _LONG_PATIENCE):
                made = _made(root)
                mark = open_folder(root / _NODES / str(made.id.value))
                # A cleaner that was stopped for long may have taken it for one of a dead process.
                if mark is not None:
                    if lock(mark, fcntl.LOCK_SH):
                        break
                    os.close(mark)
        else:
            raise TransportError("its files are removed again and again; is it another program?")
        sweep(made, _PATIENCE)
    except Exception as error:
        raise TransportError(
            f"shared memory cannot be used: {error}; look at the rights of {_SAMPLES} and {root}"
        ) from error
    for file in _SAMPLES.glob(f"{PREFIX}*global_mgmt"):
        with contextlib.suppress(OSError):
            _close_to_others(file)
    return made, mark


def _config(root: Path) -> Any:
    config = iox.config.default()
    # Of this user alone: in a folder that all share, the first user's files stop the others.
    config.global_cfg.root_path = iox.Path.new(str(root))
    config.global_cfg.prefix = iox.FileName.new(PREFIX)
    # Only under the lock.
    config.global_cfg.node.cleanup_dead_nodes_on_creation = False
    config.global_cfg.node.cleanup_dead_nodes_on_destruction = False
    config.global_cfg.service.cleanup_dead_nodes_on_open = False
    return config


def _made(root: Path) -> Any:
    return (
        iox.NodeBuilder.new()
        .config(_config(root))
        .signal_handling_mode(iox.SignalHandlingMode.Disabled)
        .create(iox.ServiceType.Ipc)
    )


@contextlib.contextmanager
def _locked(root: Path, how: int, patience: float) -> Any:
    file = open_folder(root)
    if file is None:
        yield False
        return
    try:
        with locked(file, how, patience) as has_lock:
            yield has_lock
    finally:
        os.close(file)


def _close_to_others(path: Path) -> None:
    """Take the rights of others away from a file; everybody may put links where it lies."""
    if why_foreign(path.lstat(), stat.S_IFREG):
        return
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not why_foreign(os.fstat(file), stat.S_IFREG):
            os.fchmod(file, 0o600)
    finally:
        os.close(file)


# -- what the dead left --------------------------------------------------------------------------


def sweep(of: Any, patience: float = _SHORT_PATIENCE) -> None:
    """Give back what killed processes held."""
    root = folder.path() / _ROOT
    with contextlib.suppress(Exception), _locked(root, fcntl.LOCK_EX, patience) as alone:
        if alone and not of.try_cleanup_dead_nodes().failed_cleanups:
            _remove_rests(root)


def _living(root: Path) -> set[str]:
    """Ids of the nodes of living processes."""
    found = _alive(root)
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(root / _NODES):
            if name.isdecimal() and not _without_owner(root / _NODES / name):
                found.add(name)
    return found


def _alive(root: Path) -> set[str]:
    """Ids of nodes that iceoryx2 says are alive."""
    states = iox.Node.list(iox.ServiceType.Ipc, _config(root))
    return {str(one[0].id.value) for one in states if isinstance(one, iox.NodeState.Alive)}


def _without_owner(path: Path) -> bool:
    file = open_folder(path)
    if file is None:
        return True
    try:
        return lock(file, fcntl.LOCK_EX)
    finally:
        os.close(file)


def _remove_rests(root: Path) -> None:
    """Remove what is left of nodes that iceoryx2 has done with, or was never finished."""
    nodes = root / _NODES
    found = re.compile(rf"(?:{re.escape(PREFIX)})?(\d+)(?:\.node_monitor.*)?")
    names = [(name, match[1]) for name in os.listdir(nodes) if (match := found.fullmatch(name))]
    left = {key for _, key in names if _without_owner(nodes / key)}
    if left:
        left -= _alive(root)
    for name, key in names:
        if key in left:
            _remove(nodes / name)


def _wipe(root: Path) -> None:
    """Remove everything; nobody lives."""
    for part in (_NODES, _SERVICES):
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(root / part):
                _remove(root / part / name)
    for path in _SAMPLES.glob(f"{PREFIX}*"):
        _remove(path)


def _remove(path: Path) -> None:
    """Remove a file of ours, or a folder with such files in it; all else is left alone."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and path.name.isdecimal():
            why = why_foreign(found, stat.S_IFDIR)
            if not why:
                for name in os.listdir(path):
                    _remove(path / name)
                with contextlib.suppress(OSError):
                    path.rmdir()
        else:
            why = why_foreign(found, stat.S_IFREG)
            if not why and not path.name.startswith(PREFIX):
                why = "its name is none of ours"
            if not why:
                path.unlink()
        if why:
            skip(path, why)
