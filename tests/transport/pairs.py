"""Both ends of every mode, for the contract; `python -m tests.transport.pairs` is one end alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pvaccess as pva

from pvapy_stream.frame import Frame
from pvapy_stream.hpc.parts import make_publisher, make_receiver
from pvapy_stream.pva.lazy import frame_of, pv_object
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.settings import ConsumerSettings
from pvapy_stream.transport.memory_mode import MemoryPublisher, MemoryReceiver
from pvapy_stream.transport.ports import Deliver, Publisher, Receiver
from tests.ports import free_port
from tests.support import Ioc, image, wait_until

# Mode of the sender and of the receiver: every combination that is made to meet; then the library
# for PVAccess, where it is not the default.
MODES = (
    "pvas-pva", "pvas-pva:binding", "pva-pvas", "rpc-rpc", "shm-shm", "both-auto",
    "both-auto:binding", "ejfat-ejfat",
)  # fmt: skip
# Those whose senders send to a receiver that must be there, and whose channels hold no object.
SENT_TO = ("pva-pvas", "rpc-rpc", "ejfat-ejfat")
BUILDER = ObjectBuilder()

# The binding calls back for channels that are gone: what it calls must still be there.
_kept: list[Any] = []


def make_object(number: int, side: int = 0) -> Any:
    """An image that tells its number."""
    pixels = image(number, side, side) if side else image(number)
    return BUILDER.build(Frame.of(number, pixels, attributes={"number": number, "name": "x"}))


def channel_of(mode: str, prefix: str) -> str:
    """A channel name for a mode; of EJFAT, a URI with a free port."""
    if mode == "ejfat-ejfat":
        return f"ejfat://token@127.0.0.1:1/lb/1?data=127.0.0.1:{free_port()}"
    return f"{prefix}channel"


def ejfat_args(channel: str, **more: Any) -> dict[str, Any]:
    """Arguments of both ends of an EJFAT channel."""
    port = int(urlsplit(channel).query.rpartition(":")[2])
    received = {"useCP": 0, "ipAddress": "127.0.0.1", "port": port, **more}
    return {"input_args": received, "output_args": {"useCP": 0}}


class Pair:
    """A sender and a receiver of one channel, made from settings as stages make them."""

    def __init__(self, mode: str, channel: str, **options: Any) -> None:
        ends, _, library = mode.partition(":")
        sender, receiver = ends.split("-")
        if library:
            options = {**options, "pva_library": library}
        self.channel = channel
        # All servers of a process serve the channels of all.
        self._server = pva.PvaServer()
        self._server.start()
        if mode == "ejfat-ejfat":
            options = {**ejfat_args(channel), **options}
        self._ends: list[Receiver | Publisher] = []
        _kept.append(self._ends)
        self.settings = ConsumerSettings.of(
            input_channel=channel,
            input_mode=receiver,
            output_mode=sender,
            server_queue_size=100,
            remote_timeout=0.5,
            **options,
        )

    def sender(self) -> Publisher:
        made = make_publisher(self.settings, self.channel, self._server)
        self._ends.append(made)
        made.start()
        made.open(make_object(0))
        return made

    def receiver(
        self, deliver: Deliver, again: Deliver | None = None, **distribution: Any
    ) -> Receiver:
        settings = self.settings.replace(**distribution) if distribution else self.settings
        made = make_receiver(settings, self.channel, self._server)
        self._ends.append(made)
        made.start(deliver, again)
        return made

    def close(self) -> None:
        for end in self._ends:
            end.stop()
        self._server.stop()

    def join(self, receiver: Receiver, sender: Publisher) -> None:
        """Wait until what is sent arrives; what is sent meanwhile has id 0."""

        def connected() -> bool:
            receiver.keep_up()
            # The first object tells that all is set up.
            return receiver.counts().received > 0 or self._knock(sender)

        wait_until(connected, what=f"connection of {self.channel}")

    def _knock(self, sender: Publisher) -> bool:
        if self.settings.input_mode in ("pvas", "rpc", "ejfat"):
            # These meet at the first object.
            sender.publish(make_object(0))
        return False


class MemoryPair:
    """The same within a process."""

    class _Sender(MemoryPublisher):
        receiver: MemoryReceiver

        def publish(self, obj: Any) -> None:
            super().publish(obj)
            self.receiver.feed(obj)

    def __init__(self, mode: str, channel: str, **options: Any) -> None:
        self._sender = self._Sender()

    def sender(self) -> Publisher:
        return self._sender

    def receiver(self, deliver: Deliver, again: Deliver | None = None, **_: Any) -> Receiver:
        made = MemoryReceiver()
        made.start(deliver, again)
        self._sender.receiver = made
        return made

    def join(self, receiver: Receiver, sender: Publisher) -> None:
        pass

    def close(self) -> None:
        pass


class CaPair:
    """A CA record of a real IOC, whose value is the id."""

    def __init__(self, channel: str, folder: Path) -> None:
        self.channel = channel
        self._ioc = Ioc(folder, f'record(longout, "{channel}") {{ field(VAL, "0") }}\n')
        settings = ConsumerSettings.of(input_channel=channel, input_mode="ca", oid_field="value")
        self._receiver = make_receiver(settings, channel, pva.PvaServer())
        self._client = pva.Channel(channel, pva.CA)

    def receiver(self, deliver: Deliver) -> Receiver:
        self._receiver.start(deliver)
        return self._receiver

    def send(self, number: int) -> None:
        self._client.put(number)

    def close(self) -> None:
        self._receiver.stop()
        self._ioc.close()


class Ids:
    """Takes what a receiver delivers, and keeps the ids."""

    def __init__(self, read: Callable[[Any], int] | None = None) -> None:
        self.ids: list[int] = []
        self.objects: list[Any] = []
        self._read = read or (lambda obj: frame_of(obj).id)

    def __call__(self, obj: Any) -> None:
        self.ids.append(self._read(obj))
        self.objects.append(obj.copy())

    @property
    def new(self) -> list[int]:
        """Without what a channel holds at first."""
        return [number for number in self.ids if number]


class Peer:
    """One end in a process of its own, to be killed."""

    def __init__(self, end: str, mode: str, channel: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.transport.pairs", end, mode, channel],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _run_end(end: str, mode: str, channel: str) -> None:
    pair = Pair(mode, channel)
    if end == "sender":
        sender = pair.sender()
        _say("up")
        for number in range(1, 10**6):
            try:
                sender.publish(make_object(number))
            except Exception as error:
                sys.stderr.write(f"{error}\n")
            time.sleep(0.002)
    else:
        receiver = pair.receiver(pv_object)
        _say("up")
        while True:
            receiver.keep_up()
            time.sleep(0.2)


if __name__ == "__main__":
    _run_end(sys.argv[1], sys.argv[2], sys.argv[3])
