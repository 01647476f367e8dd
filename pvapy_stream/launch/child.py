"""A spawned process of this program, and the pipe to it."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

from pvapy_stream.launch.supervisor import Supervised
from pvapy_stream.signals import held_back

_KILL_LIMIT = 5.0  # s; from the kill to the end of the process


class _Work:
    """The body of a child. Its modules are imported when it is called.

    Args:
        target: the function.
        args: its arguments after the pipe.
    """

    def __init__(self, target: Callable[..., None], args: tuple[object, ...]) -> None:
        self._work = target, args
        self._packed = b""

    def __getstate__(self) -> bytes:
        return bytes(ForkingPickler.dumps(self._work))

    def __setstate__(self, packed: bytes) -> None:
        self._packed = packed

    def __call__(self, pipe: Connection) -> None:
        # Importing makes hundreds of thousands of objects and no garbage.
        gc.disable()
        try:
            target, args = pickle.loads(self._packed)  # noqa: S301 - from our parent
        finally:
            gc.enable()
        target(pipe, *args)


class Child:
    """One spawned process.

    Args:
        name: of the process.
        target: its body, a function at the top level of a module; gets its end of the pipe, then
            the other arguments.
        daemon: whether it is killed when this program ends.
    """

    def __init__(
        self, name: str, target: Callable[..., None], *args: object, daemon: bool = False
    ) -> None:
        # EPICS has threads as soon as it is used: a forked child would inherit their locks.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_Work(target, args), args=(theirs,), name=name, daemon=daemon
        )
        self._send_lock = threading.Lock()
        with held_back():
            self.process.start()
        # Only the child may hold its end, or its death would not close the pipe.
        theirs.close()

    @property
    def pid(self) -> int | None:
        return self.process.pid

    @property
    def sources(self) -> tuple[object, ...]:
        """What `multiprocessing.connection.wait` finds ready when there is news of it."""
        return self.pipe, self.process.sentinel

    def send(self, *message: object) -> bool:
        """Send it a message; False when it is gone."""
        try:
            with self._send_lock:
                self.pipe.send(message)
        except OSError:
            return False
        return True

    def send_word(self, word: str) -> None:
        # That it is gone shows in its end.
        self.send(word)

    def take(self, message: Any) -> None:
        """Called with each message that it sent."""

    def receive(self) -> bool:
        """Take its messages; whether there were any."""
        news = False
        try:
            while self.pipe.poll():
                self.take(self.pipe.recv())
                news = True
        except (EOFError, OSError):
            pass
        return news

    def poll(self) -> int | None:
        """Its exit code, once all that it sent is taken; None while it runs."""
        if self.process.is_alive():
            return None
        self.process.join()
        self.receive()
        self.pipe.close()
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()
        self.process.join(_KILL_LIMIT)


def words_of(pipe: Connection) -> Iterator[str]:
    """The words of the parent, for a child at the other end of the pipe."""
    with suppress(EOFError, OSError):
        while True:
            (word,) = pipe.recv()
            yield word


C = TypeVar("C", bound=Child)


class SupervisedChild(Supervised[C]):
    """Spawned processes under supervision, one after the other."""

    @property
    def sources(self) -> tuple[object, ...]:
        return self.process.sources if self.process is not None else ()

    def receive(self) -> bool:
        return self.process is not None and self.process.receive()
