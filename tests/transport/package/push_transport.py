"""A transport of another package: objects over a ZeroMQ socket in a folder of this host."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from pydantic import Field

from pvapy_stream.base_settings import Settings
from pvapy_stream.errors import TransportError
from pvapy_stream.transport.hosted_receiver import ServingReceiver
from pvapy_stream.transport.mode import (
    InputMode,
    Mode,
    OutputMode,
    PublisherOptions,
    ReceiverOptions,
)
from pvapy_stream.transport.ports import Publisher, PublisherCounts

_TICK = 50  # ms


class PushSettings(Settings):
    """What ``--input-args`` and ``--output-args`` may hold."""

    limit: int = Field(1000, ge=1, description="objects that wait in the socket")


def _address(channel: str) -> str:
    return f"ipc://{Path(os.environ['PUSH_FOLDER'], channel.replace(':', '-'))}"


class PushReceiver(ServingReceiver):
    """Pulls objects."""

    def __init__(self, channel: str, limit: int) -> None:
        import zmq

        super().__init__(channel)
        self._socket: Any = zmq.Context.instance().socket(zmq.PULL)
        self._socket.rcvhwm = limit
        self._socket.connect(_address(channel))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="push", daemon=True)

    def _open(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        from pvapy_stream.pva.serial import loads

        while not self._ended.is_set():
            if self._socket.poll(_TICK):
                self._take(loads(self._socket.recv()))
        self._socket.close(0)

    def _close(self) -> None:
        self._ended.set()
        self._thread.join(5)


class PushPublisher(Publisher):
    """Pushes objects."""

    def __init__(self, channel: str, limit: int, timeout: float) -> None:
        import zmq

        self.channel = channel
        self._timeout = timeout
        self._published = 0
        self._socket: Any = zmq.Context.instance().socket(zmq.PUSH)
        self._socket.linger = round(timeout * 1000)
        self._socket.sndhwm = limit
        self._socket.sndtimeo = round(timeout * 1000)
        self._socket.bind(_address(channel))

    def open(self, prototype: Any) -> None:
        self._send(prototype)

    def publish(self, obj: Any) -> None:
        self._send(obj)
        self._published += 1

    def _send(self, obj: Any) -> None:
        import zmq

        from pvapy_stream.pva.lazy import pv_object
        from pvapy_stream.pva.serial import dumps

        try:
            self._socket.send(dumps(pv_object(obj)))
        except zmq.Again:
            raise TransportError(
                f"channel {self.channel}: nobody took an object within {self._timeout:g} s"
            ) from None

    def stop(self) -> None:
        self._socket.close()

    def counts(self) -> PublisherCounts:
        return PublisherCounts(self._published)


def _receiver(what: ReceiverOptions) -> PushReceiver:
    return PushReceiver(what.channel, PushSettings.of(**what.args).limit)


def _publisher(what: PublisherOptions) -> PushPublisher:
    return PushPublisher(what.channel, PushSettings.of(**what.args).limit, what.timeout)


MODE = Mode(
    "push",
    input=InputMode(_receiver, "a ZeroMQ socket", waits=True, images=True, args=PushSettings),
    output=OutputMode(_publisher, "a ZeroMQ socket", args=PushSettings),
    source=OutputMode(_publisher, "a ZeroMQ socket"),
    reach="host",
)
