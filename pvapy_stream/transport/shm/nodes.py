"""The iceoryx2 node of this process, and the clean-up after killed processes.

iceoryx2 frees what a dead process held, except what a process left that was killed while it
started or cleaned up. Therefore each process keeps a lock on the folder of its node; a node folder
without a lock has no owner. Nodes are created under a shared lock on the folder of all nodes, and
removed under an exclusive one. A lock that is not available in time, because its holder is
suspended, only delays the clean-up.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import threading
from collections.abc import Generator
from pathlib import Path

import iceoryx2 as iox

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.shm import user_folder
from pvapy_stream.transport.shm.user_folder import (
    lock,
    locked,
    open_folder,
    subfolder,
    warn_skipped,
    why_foreign,
)

_SAMPLES = Path("/dev/shm")  # noqa: S108 - the only place where iceoryx2 puts them
PREFIX = f"pvs{os.getuid()}_"  # of all files of iceoryx2
# Time limits for locks, in s: of a clean-up at the start; of a start that waits for a clean-up
# (one that was suspended may continue meanwhile); of a clean-up while objects wait.
_CLEANUP_TIMEOUT, _START_TIMEOUT, _BUSY_CLEANUP_TIMEOUT = 0.5, 10.0, 0.02
_ATTEMPTS = 5
_ROOT, _NODES, _SERVICES = "iceoryx2", "nodes", "services"

iox.set_log_level(iox.LogLevel.Fatal)


class SharedNode:
    """The iceoryx2 node of this process; it exists as long as a publisher or receiver uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._node: iox.Node | None = None
        self._folder = -1

    def acquire(self) -> iox.Node:
        """The node; the first call creates it.

        Raises:
            TransportError: shared memory cannot be used.
        """
        with self._lock:
            if self._node is None:
                self._node, self._folder = _new_node()
            self._users += 1
            return self._node

    def release(self) -> None:
        """Undo one `acquire`; the last one removes the node."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._node = None
                os.close(self._folder)


node = SharedNode()


def _new_node() -> tuple[iox.Node, int]:
    """A new node, and the locked descriptor of its folder."""
    root = subfolder(_ROOT)
    try:
        for _ in range(_ATTEMPTS):
            with _locked(root, fcntl.LOCK_EX, _CLEANUP_TIMEOUT) as alone:
                if alone and not _living(root):
                    _remove_all(root)
            with _locked(root, fcntl.LOCK_SH, _START_TIMEOUT):
                created = _create_node(root)
                descriptor = open_folder(root / _NODES / str(created.id.value))
                # A clean-up that was suspended may have removed it as one of a dead process.
                if descriptor is not None:
                    if lock(descriptor, fcntl.LOCK_SH):
                        break
                    os.close(descriptor)
        else:
            raise TransportError(
                "its files are removed repeatedly; check whether another program does that"
            )
        sweep(created, _CLEANUP_TIMEOUT)
    except Exception as error:
        raise TransportError(
            f"shared memory cannot be used: {error}; check the access rights of {_SAMPLES}"
            f" and {root}"
        ) from error
    for file in _SAMPLES.glob(f"{PREFIX}*global_mgmt"):
        with contextlib.suppress(OSError):
            _make_private(file)
    return created, descriptor


def _config(root: Path) -> iox.Config:
    config = iox.config.default()
    # One folder for each user: in a common folder, the files of the first user block the others.
    config.global_cfg.root_path = iox.Path.new(str(root))
    config.global_cfg.prefix = iox.FileName.new(PREFIX)
    # Cleaned up only under the lock.
    config.global_cfg.node.cleanup_dead_nodes_on_creation = False
    config.global_cfg.node.cleanup_dead_nodes_on_destruction = False
    config.global_cfg.service.cleanup_dead_nodes_on_open = False
    return config


def _create_node(root: Path) -> iox.Node:
    return (
        iox.NodeBuilder.new()
        .config(_config(root))
        .signal_handling_mode(iox.SignalHandlingMode.Disabled)
        .create(iox.ServiceType.Ipc)
    )


@contextlib.contextmanager
def _locked(root: Path, how: int, timeout: float) -> Generator[bool, None, None]:
    file = open_folder(root)
    if file is None:
        yield False
        return
    try:
        with locked(file, how, timeout) as has_lock:
            yield has_lock
    finally:
        os.close(file)


def _make_private(path: Path) -> None:
    """Remove the access rights of other users; in its folder every user can create links."""
    if why_foreign(path.lstat(), stat.S_IFREG):
        return
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not why_foreign(os.fstat(file), stat.S_IFREG):
            os.fchmod(file, 0o600)
    finally:
        os.close(file)


# -- clean-up ------------------------------------------------------------------------------------


def sweep(of: iox.Node, timeout: float = _BUSY_CLEANUP_TIMEOUT) -> None:
    """Free what killed processes held."""
    root = user_folder.path() / _ROOT
    with contextlib.suppress(Exception), _locked(root, fcntl.LOCK_EX, timeout) as alone:
        if alone and not of.try_cleanup_dead_nodes().failed_cleanups:
            _remove_leftovers(root)


def _living(root: Path) -> set[str]:
    """Ids of the nodes of living processes."""
    found = _alive(root)
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(root / _NODES):
            if name.isdecimal() and not _is_unlocked(root / _NODES / name):
                found.add(name)
    return found


def _alive(root: Path) -> set[str]:
    """Ids of the nodes that iceoryx2 reports as alive."""
    states = iox.Node.list(iox.ServiceType.Ipc, _config(root))
    return {str(one[0].id.value) for one in states if isinstance(one, iox.NodeState.Alive)}


def _is_unlocked(path: Path) -> bool:
    file = open_folder(path)
    if file is None:
        return True
    try:
        return lock(file, fcntl.LOCK_EX)
    finally:
        os.close(file)


def _remove_leftovers(root: Path) -> None:
    """Remove files of nodes that iceoryx2 did not clean up or that were never completed."""
    nodes = root / _NODES
    found = re.compile(rf"(?:{re.escape(PREFIX)})?(\d+)(?:\.node_monitor.*)?")
    names = [(name, match[1]) for name in os.listdir(nodes) if (match := found.fullmatch(name))]
    left = {key for _, key in names if _is_unlocked(nodes / key)}
    if left:
        left -= _alive(root)
    for name, key in names:
        if key in left:
            _remove(nodes / name)


def _remove_all(root: Path) -> None:
    """Remove everything; only when no process of this user uses shared memory."""
    for part in (_NODES, _SERVICES):
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(root / part):
                _remove(root / part / name)
    for path in _SAMPLES.glob(f"{PREFIX}*"):
        _remove(path)


def _remove(path: Path) -> None:
    """Remove a file of iceoryx2, or a folder of such files; anything else is left unchanged."""
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
                why = "its name is not one of pvapy_stream"
            if not why:
                path.unlink()
        if why:
            warn_skipped(path, why)
