"""Images, of PVA or of shared memory, as bsread messages: they are buffered as those are."""

from __future__ import annotations

import logging
import math
import threading
from typing import Any

import numpy as np
import zmq

from pvapy_stream.bsread.codec import ChannelHeader, Encoder, Packed
from pvapy_stream.bsread.packing import BITSHUFFLE_HEADER
from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.pva.objects import IdReader, id_reader
from pvapy_stream.transport.mode import ReceiverOptions
from pvapy_stream.transport.ports import Return
from pvapy_stream.transport.registry import make_receiver

_TICK = 0.5  # s
_HWM = 1000
_LOG_EVERY = 1000
_PREFIX = 4  # bytes of the size before an lz4 block

_log = logging.getLogger(__name__)


class FrameEncoder:
    """Makes bsread messages of frames: the image under its channel's name, then its attributes.

    Images that bsread can carry compressed stay compressed. Not locked.

    Args:
        channel: name of the image's channel.
    """

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._encoder = Encoder(())

    def encode(self, frame: Frame, pulse_id: int) -> list[Any]:
        """The parts of a message.

        Raises:
            PvapyStreamError: the frame has no image, or one that cannot be sent.
        """
        values = {
            f"{self._channel}:{name}": _plain(value) for name, value in frame.attributes.items()
        }
        sent: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        compressed = _compressed(frame)
        if compressed is None:
            shape, compression, image = frame.image.shape, "none", frame.image
        else:
            shape, compression, image = frame.stored_shape, compressed[0], Packed(compressed[1])
        order = "big" if frame.dtype.byteorder == ">" else "little"
        channels = (
            ChannelHeader(self._channel, frame.dtype.name, shape[::-1], order, compression),
            *(_header(name, value) for name, value in sent.items()),
        )
        if channels != self._encoder.channels:
            self._encoder = Encoder(channels)
        sent[self._channel] = image
        return self._encoder.encode(pulse_id, frame.time_ns or None, sent)


def _compressed(frame: Frame) -> tuple[str, bytes] | None:
    """The payload as bsread has it; None when it must be decoded first."""
    size = math.prod(frame.stored_shape) * frame.dtype.itemsize
    if frame.codec == "bslz4":
        payload = frame.payload.tobytes()
        if len(payload) >= 8 and int.from_bytes(payload[:8], "big") == size:
            return "bitshuffle_lz4", payload
        return "bitshuffle_lz4", BITSHUFFLE_HEADER.pack(size, 0) + payload
    if frame.codec == "lz4":
        payload = frame.payload.tobytes()
        if len(payload) < 8 or int.from_bytes(payload[:8], "big") != size:
            return "lz4", size.to_bytes(_PREFIX, "little") + payload
    return None


def _plain(value: Any) -> Any:
    """An attribute as bsread can carry it; None when it cannot."""
    if isinstance(value, (bool, int, float, str)):
        return value
    array = np.asarray(value)
    return array if array.dtype.kind in "biuf" and array.size else None


def _header(name: str, value: Any) -> ChannelHeader:
    if isinstance(value, str):
        return ChannelHeader(name, "string")
    if isinstance(value, bool):
        return ChannelHeader(name, "bool")
    if isinstance(value, int):
        return ChannelHeader(name, "int64" if value < 2**63 else "uint64")
    if isinstance(value, float):
        return ChannelHeader(name, "float64")
    return ChannelHeader(name, value.dtype.name, value.shape[::-1] or (1,))


class FrameSource:
    """Follows a channel and hands its images on as messages, through a socket in this process.

    Args:
        stream: ``MODE://CHANNEL``, such as ``shm://CHANNEL`` for shared memory.
        id_field: field that becomes the pulse id.
        queue_size: objects that the server of a PVA channel keeps for us; 0: its default.

    Attributes:
        address: where the messages are to be pulled.
        lost: images that nobody took in time.
        errors: objects that are no images, or cannot be sent.
    """

    def __init__(self, stream: str, id_field: str, queue_size: int = 0) -> None:
        mode, _, channel = stream.partition("://")
        self._channel = channel
        self._id_field = id_field
        self._encoder = FrameEncoder(channel)
        self._receiver = make_receiver(mode, ReceiverOptions(channel, queue_size=queue_size))
        self._read_id: IdReader | None = None
        self._last: int | None = None
        self.lost = self.errors = 0
        self.last_error = ""
        self.address = f"inproc://frames-{id(self):x}"
        self._socket: Any = zmq.Context.instance().socket(zmq.PUSH)
        self._socket.linger = 0
        self._socket.sndhwm = _HWM
        self._socket.bind(self.address)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="frame-source", daemon=True)

    def start(self) -> None:
        """Begin to follow the channel."""
        self._receiver.start(self._deliver, self._deliver_again)
        self._thread.start()

    def _keep_up(self) -> None:
        while not self._stop.wait(_TICK):
            self._receiver.keep_up()

    def _deliver_again(self, obj: Any, how: Return) -> None:
        # What a source shows when it comes back may be what it showed before it went.
        self._deliver(obj, again=how.shown)

    def _deliver(self, obj: Any, again: bool = False) -> None:
        try:
            if self._read_id is None:
                self._read_id = id_reader(self._id_field, obj)
            pulse_id = self._read_id(obj)
            if again and pulse_id == self._last:
                return
            parts = self._encoder.encode(frame_of(obj), pulse_id)
        except PvapyStreamError as error:
            self._note(error)
            return
        self._last = pulse_id
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            self.lost += 1

    def _note(self, error: Exception) -> None:
        self.errors += 1
        self.last_error = str(error)
        if self.errors == 1 or self.errors % _LOG_EVERY == 0:
            _log.error("channel %s: %s (%d errors so far)", self._channel, error, self.errors)

    @property
    def all_lost(self) -> int:
        """Images that did not come through: lost here, refused, or replaced before they came."""
        return self.lost + self.errors + self._receiver.counts().overruns

    def stop(self) -> None:
        """Let the channel go."""
        self._stop.set()
        self._receiver.stop()
        if self._thread.is_alive():
            self._thread.join(_TICK * 4)
        self._socket.close(0)
