"""Sources for subscriptions, and what a closed one must not leave behind."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

import pvapy_stream
from pvapy_stream import AsyncPublication, Frame, Publication, Subscription
from tests.support import PATIENCE, image, wait_until

# Modes of the subscription and of the publication.
MODES = ("pva-pvas", "shm-shm", "auto-both", "pva-both", "pvas-pva", "rpc-rpc", "memory-memory")
# Those that meet at the first frame, so that nobody waits for subscribers.
SENT_TO = ("pvas-pva", "rpc-rpc", "memory-memory")

# Publishes frames until it is killed.
SOURCE = """
import sys, time
import numpy as np
import pvapy_stream
channel, mode, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
with pvapy_stream.publish(channel, mode, first_id=first) as out:
    print("up", flush=True)
    out.wait_for_subscribers()
    while True:
        number = out.send(np.full((4, 6), first, np.uint16))
        if number == first + 4:
            print("five", flush=True)
        time.sleep(0.005)
"""
# Prints the numbers that it receives, as they are in the pixels.
SINK = """
import sys
import pvapy_stream
channel, mode = sys.argv[1:]
with pvapy_stream.subscribe(channel, mode) as frames:
    print("up", flush=True)
    for frame in frames:
        print(frame.id, int(frame.image[0, 0]), flush=True)
        if frame.id == 20:
            break
print(frames.received, frames.missed, frames.dropped, flush=True)
"""


def check(frame: Frame) -> int:
    """The id of a frame, if its pixels say the same."""
    assert np.array_equal(frame.image, image(frame.id, *frame.image.shape))
    return frame.id


def send(out: Publication, *numbers: int, side: int = 8) -> None:
    for number in numbers:
        out.send(image(number, side, side), id=number)


async def asend(out: AsyncPublication, *numbers: int, side: int = 8) -> None:
    for number in numbers:
        await out.send(image(number, side, side), id=number)


def take(frames: Subscription, count: int) -> list[int]:
    return [check(next(frames)) for _ in range(count)]


async def atake(frames: Subscription, count: int) -> list[int]:
    return [check(await frames.__anext__()) for _ in range(count)]


def joined(
    channel: str, modes: str = "pva-pvas", **options: Any
) -> tuple[Publication, Subscription]:
    """Both ends, connected."""
    receives, sends = modes.split("-")
    out = pvapy_stream.publish(channel, sends, timeout=PATIENCE).open()
    frames = pvapy_stream.subscribe(channel, receives, **options).open()
    if modes not in SENT_TO:
        out.wait_for_subscribers()
        wait_until(lambda: frames.connected)
    return out, frames


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait for a condition in a thread, while the loop goes on."""

    await asyncio.to_thread(wait_until, condition)


class Left:
    """What a test leaves behind: threads and sockets that were not there before."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._sockets = _sockets()
        self._ports = {
            one.laddr.port
            for one in psutil.Process().net_connections("tcp")
            if one.status == psutil.CONN_LISTEN
        }

    def threads(self) -> list[str]:
        return [one.name for one in threading.enumerate() if one not in self._threads]

    def nothing(self) -> bool:
        return not self.threads() and not self._new()

    def __str__(self) -> str:
        return f"threads {self.threads()}, sockets {self._new()}"

    def _new(self) -> list[str]:
        # A connection to a server of this process that was there before stays as long as the two.
        return [
            f"{one.type.name} {one.laddr} {one.raddr} {one.status}" if one else "not connected"
            for inode, one in _sockets().items()
            if inode not in self._sockets
            and not (one and _ports(one.laddr, one.raddr) & self._ports)
        ]


def _ports(*addresses: Any) -> set[int]:
    return {one.port for one in addresses if hasattr(one, "port")}


def _sockets() -> dict[int, Any]:
    """What the sockets of this process are, by inode; None: not connected."""
    kinds = {one.fd: one for one in psutil.Process().net_connections("all")}
    found: dict[int, Any] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            kind, _, inode = os.readlink(f"/proc/self/fd/{name}").partition(":")
        except OSError:
            continue
        if kind == "socket":
            found[int(inode.strip("[]"))] = kinds.get(int(name))
    return found
