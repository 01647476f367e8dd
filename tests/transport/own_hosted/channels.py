"""Channels of our own and of the binding, and their clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pvaccess as pva

from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.transport.own_server import host
from pvapy_stream.transport.ports import Publisher
from tests.pva.net.served import Monitor
from tests.support import image, wait_until

BUILDER = ObjectBuilder()
Make = Callable[..., Publisher]
P4P = """
import queue, sys
from p4p.client.thread import Context
context = Context("pva", nt=False)
"""

followed: list[Monitor] = []


def follow(channel: str, asked: str, window: int = 0) -> Monitor:
    """A monitor, on the bytes."""
    followed.append(Monitor(host.port, channel, asked, window))
    return followed[-1].start()


def frame(number: int, side: int = 8, **more: Any) -> Frame:
    return Frame.of(number, image(number, side, side), time_ns=10**18 + number, **more)


def lazy(number: int, side: int = 8, **more: Any) -> LazyObject:
    return LazyObject(frame(number, side, **more), BUILDER.build)


class Client:
    """A client of pvapy that keeps ids."""

    def __init__(self, channel: str, asked: str = "record[queueSize=1000]field()") -> None:
        self.ids: list[int] = []
        self.objects: list[Any] = []
        self.keeps = False
        self._channel = pva.Channel(channel)
        self._channel.subscribe("keep", self._keep)
        self._channel.startMonitor(asked)
        wait_until(lambda: self.ids)

    def _keep(self, obj: Any) -> None:
        if self.keeps:
            self.objects.append(obj.copy())
        self.ids.append(obj.getInt("uniqueId"))

    def close(self) -> None:
        self._channel.stopMonitor()
        self._channel.unsubscribe("keep")
