"""A real sender of bsread messages for tests, and requests as programs send them."""

from __future__ import annotations

import itertools
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py

from pvapy_stream.bsread.sockets import BsreadSender
from pvapy_stream.errors import TransportError
from tests.bsread.messages import Stream, scalars

Make = Callable[[int], Sequence[Any]]


class Pulses:
    """Pushes pulses to whoever pulls, from a thread; times are those of the clock."""

    def __init__(self, period: float = 0.005, mode: Any = "push") -> None:
        self._sender = BsreadSender("tcp://127.0.0.1:0", mode, hwm=200, timeout=0.1)
        self.address = self._sender.address
        self.period = period
        self.stream = Stream(*scalars("A", "B"))
        self.sent: list[int] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def parts(self, pulse: int) -> Sequence[Any]:
        now = time.time_ns()
        values = {"A": pulse / 2, "B": -float(pulse)}
        return self.stream.encoder.encode(pulse, now, values, dict.fromkeys(values, now + pulse))

    def send(self, pulses: Iterable[int], make: Make | None = None) -> None:
        """Send from this thread, and wait until all is taken or `stop` is called."""
        for pulse in pulses:
            parts = (make or self.parts)(pulse)
            while not self._sender.offer(list(parts)):
                if self._stop.is_set():
                    return
            self.sent.append(pulse)
            if self._stop.wait(self.period):
                return

    def run(self, pulses: Iterable[int] | None = None, make: Make | None = None) -> Pulses:
        """Send from a thread; for ever when no pulses are given."""
        self._thread = threading.Thread(
            target=self.send, args=(pulses if pulses is not None else itertools.count(1), make)
        )
        self._thread.start()
        return self

    def wait(self, timeout: float = 20) -> None:
        """Wait until all is sent."""
        assert self._thread is not None
        self._thread.join(timeout)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        """Fall silent; the socket stays."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)
        self._stop.clear()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)
        self._sender.stop()


class Rest:
    """A REST interface, as curl sees it."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self.token = token

    def __call__(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body)
        given = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        request = urllib.request.Request(
            self.url + path,
            data.encode() if isinstance(data, str) else data,
            {**given, **(headers or {})},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def get(self, path: str) -> dict[str, Any]:
        code, reply = self("GET", path)
        assert code == 200, reply
        return reply

    def put(self, path: str, body: Any = None) -> dict[str, Any]:
        code, reply = self("PUT", path, body)
        assert code == 200, reply
        return reply


def rows(path: Path, channel: str = "A") -> list[int]:
    """Pulse ids of a file whose values are those that were sent."""
    with h5py.File(path) as file:
        group = file["data"][channel]
        pulses = group["pulse_id"][()].tolist()
        if channel == "A":
            assert group["data"][:, 0].tolist() == [pulse / 2 for pulse in pulses]
            assert all(group["is_data_present"][()])
    return pulses


def lost(path: Path) -> list[list[int]]:
    with h5py.File(path) as file:
        return file["acquisition/lost"][()].tolist()


__all__ = ["Pulses", "Rest", "TransportError", "lost", "rows"]
