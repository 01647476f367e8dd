"""Ending a program by signal, in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def run_until_signal(
    run: Callable[[threading.Event], T],
    stop_on: Iterable[int] = (signal.SIGINT, signal.SIGTERM),
    ignore: Iterable[int] = (),
) -> T:
    """Run a function in a thread of its own; signals set the event it is given.

    A second signal ends the program at once. The main thread does nothing but take signals: a
    handler that sets an event on which its own thread waits can block for ever.

    Returns:
        what the function returns; what it raises is raised here.
    """
    stop = threading.Event()
    outcome: list[T] = []
    errors: list[BaseException] = []

    def on_signal(number: int, _: Any) -> None:
        if stop.is_set():
            # The first one asked for an orderly end that did not come.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    def body() -> None:
        try:
            outcome.append(run(stop))
        except BaseException as error:
            errors.append(error)

    for number in stop_on:
        signal.signal(number, on_signal)
    for number in ignore:
        signal.signal(number, signal.SIG_IGN)
    thread = threading.Thread(target=body, name="main-work")
    thread.start()
    while thread.is_alive():
        thread.join(1.0)
    if errors:
        raise errors[0]
    return outcome[0]
