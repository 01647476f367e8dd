"""Ending a program by signal, in order.

The first signal asks for an end in order, the second for an end without draining; the third ends
the program at once.
"""

from __future__ import annotations

import atexit
import ctypes
import math
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_HURRY_LIMIT = 10.0  # s; from the second signal to the end by force
_LEAVE_LIMIT = 10.0  # s; from the last report of a stage that hangs to the end of its program
_TICK = 0.5  # s
# A real-time signal of its own; also how many seconds a process has that has lost its parent, at
# least: real-time signals begin with 34.
_ORPHAN_SIGNAL = 40
_PR_SET_PDEATHSIG = 1


class Stop(threading.Event):
    """Set when a program is asked to end in order.

    Attributes:
        hurry: set when it is asked a second time: what waits is left, files are closed.
        calls: what the main thread is to call; None: nothing more will come.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hurry = threading.Event()
        self.calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()


def hurry_of(stop: threading.Event) -> threading.Event:
    """The event that is set when a program is asked to end a second time."""
    return stop.hurry if isinstance(stop, Stop) else threading.Event()


# Programs of this process that run until a signal, and whether they are asked to end.
_running: list[Stop] = []
_asked = threading.Event()
_last_words: list[Callable[[], None]] = []


def request_stop(hurry: bool = False) -> None:
    """Ask this process to end in order; a signal that comes later still counts as the first.

    It may be asked before `run_until_signal` is called: the program then ends when it has begun.

    Args:
        hurry: without draining.
    """
    _asked.set()
    stop_running(hurry)


def stop_running(hurry: bool = False) -> None:
    """Ask what runs in this process now to end in order; what is run later is not asked."""
    for stop in _running:
        stop.set()
        if hurry:
            stop.hurry.set()


def in_main_thread(function: Callable[[], T]) -> T:
    """Call a function in the main thread while it waits in `run_until_signal`; else in this one.

    User code may set signal handlers, which Python allows in the main thread alone.
    """
    if not _running or threading.current_thread() is threading.main_thread():
        return function()
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    _running[-1].calls.put(call)
    return future.result()


@contextmanager
def held_back() -> Iterator[None]:
    """Start a process that gets the signals that ask for its end only when it is ready for them.

    `accept` in the new process, or `run_until_signal`, lets those through that came meanwhile.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def accept() -> None:
    """Let signals through that `held_back` kept from this process."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def stop_early() -> None:
    """Take signals before `run_until_signal` does, and in programs that never call it.

    The first asks for a stop. The next ends a program that has not begun to run until a signal.
    """

    def on_signal(number: int, _: object) -> None:
        if _asked.is_set() and not _running:
            _end_by_signal(number)
        request_stop()

    for number in STOP_SIGNALS:
        signal.signal(number, on_signal)
    accept()


def runs_until_signal() -> bool:
    """Whether a program of this process reacts to a stop."""
    return bool(_running)


def run_until_signal(
    run: Callable[[Stop], T],
    stop_on: Iterable[int] = STOP_SIGNALS,
    ignore: Iterable[int] = (),
) -> T:
    """Run a function in a thread of its own; signals set the event it is given.

    The first signal always asks for an end in order, even when the function is already ending. The
    second sets `Stop.hurry`, and ends the program by force after a limit; the third does at once.
    The main thread takes signals, and makes the calls of `in_main_thread`: a handler that sets an
    event on which its own thread waits can block for ever.

    Returns:
        what the function returns; what it raises is raised here.
    """
    stop = Stop()
    outcome: list[T] = []
    errors: list[BaseException] = []
    came: list[tuple[int, float]] = []

    def on_signal(number: int, _: object) -> None:
        came.append((number, time.monotonic()))
        if len(came) == 1:
            stop.set()
        elif len(came) == 2:
            stop.set()
            stop.hurry.set()
        else:
            _end_by_signal(number)

    def body() -> None:
        try:
            outcome.append(run(stop))
        except BaseException as error:
            errors.append(error)
        finally:
            stop.calls.put(None)

    _running.append(stop)
    if _asked.is_set():
        stop.set()
    for number in stop_on:
        signal.signal(number, on_signal)
    for number in ignore:
        signal.signal(number, signal.SIG_IGN)
    with _heard_at_once(stop, frozenset(stop_on)):
        accept()
        thread = threading.Thread(target=body, name="main-work")
        thread.start()
        while thread.is_alive():
            with suppress(queue.Empty):
                call = stop.calls.get(timeout=_TICK)
                thread.join() if call is None else call()
            if len(came) > 1 and time.monotonic() - came[1][1] > _HURRY_LIMIT:
                _say(
                    f"not ended within {_HURRY_LIMIT:g} s after the second signal; ending by force"
                )
                _end_by_signal(came[1][0])
    _running.remove(stop)
    if errors:
        raise errors[0]
    return outcome[0]


@contextmanager
def _heard_at_once(stop: Stop, numbers: frozenset[int]) -> Iterator[None]:
    """Set `stop` at a signal though the main thread is in a call that lets no handler run."""
    reading, writing = socket.socketpair()
    writing.setblocking(False)

    def hear() -> None:
        with reading:
            while news := reading.recv(64):
                if numbers.intersection(news):
                    stop.set()

    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=hear, name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writing.close()


def _end_by_signal(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def leave_by_force_at_exit() -> None:
    """End this process with exit code 1, when it comes to its end, whatever threads still hang.

    Python, and the libraries below it, would wait for them for ever.
    """
    atexit.register(leave_by_force)
    # Threads that are waited for before that are waited for no longer than this.
    threading.Thread(target=_leave_later, name="leave", daemon=True).start()


def _leave_later() -> None:
    time.sleep(_LEAVE_LIMIT)
    leave_by_force()


def on_leaving(last_words: Callable[[], None]) -> None:
    """Have a function called before this process is ended by force."""
    _last_words.append(last_words)


def forget_last_words(last_words: Callable[[], None]) -> None:
    """Undo `on_leaving`."""
    with suppress(ValueError):
        _last_words.remove(last_words)


def leave_by_force(code: int = 1) -> None:
    """End this process now; what was printed is not lost."""
    while _last_words:
        with suppress(Exception):
            _last_words.pop()()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def end_with_parent() -> None:
    """End this process at last when its parent is gone, whatever its code does.

    To be called by what has another way to see that the parent is gone, and ends in order: code in
    C that holds the interpreter's lock lets no thread of Python do that. So the kernel sends a
    signal, whose handler is `alarm` of the C library itself: it is called with the number of the
    signal, and ends the process after so many seconds. `still_ending` gives more time.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal.restype = ctypes.c_void_p
    library.signal(_ORPHAN_SIGNAL, ctypes.cast(library.alarm, ctypes.c_void_p))
    library.prctl(_PR_SET_PDEATHSIG, _ORPHAN_SIGNAL, 0, 0, 0)


def still_ending(seconds: float) -> None:
    """Allow a process whose parent is gone so much time; call with 0 when the parent is there."""
    if sys.platform == "linux":
        signal.alarm(math.ceil(seconds))


def _say(line: str) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
