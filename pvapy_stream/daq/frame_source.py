"""Images of PVA or of shared memory: as messages for the buffer, unchanged for a file."""

from __future__ import annotations

import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from typing import Any

import zmq

from pvapy_stream.bsread.codec import Encoder
from pvapy_stream.bsread.image_messages import ImageChannels, ImageMessage
from pvapy_stream.daq.id_watch import IdWatch
from pvapy_stream.errors import ObjectError, PvapyStreamError
from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import StreamObject, frame_of
from pvapy_stream.pva.objects import IdReader, id_reader, is_marked
from pvapy_stream.transport.mode import ReceiverOptions
from pvapy_stream.transport.ports import Return
from pvapy_stream.transport.registry import find, make_receiver

_TICK = 0.5  # s
_MOST_WAITING = 1000  # images
_LOG_EVERY = 1000

_log = logging.getLogger(__name__)


class FrameEncoder:
    """Makes bsread messages of frames: the image under its channel's name, then its attributes.

    Images that bsread can carry compressed stay compressed. Not locked.

    Args:
        channel: name of the image's channel.
    """

    def __init__(self, channel: str) -> None:
        self._channels = ImageChannels(channel)
        self._encoder = Encoder(())

    def encode(self, frame: Frame, pulse_id: int) -> list[Any]:
        """The parts of a message.

        Raises:
            PvapyStreamError: the frame has no image, or one that cannot be sent.
        """
        sent = dict(self._channels.of(frame))
        if tuple(sent) != self._encoder.channels:
            self._encoder = Encoder(tuple(sent))
        values = {header.name: value for header, value in sent.items()}
        return self._encoder.encode(pulse_id, frame.time_ns or None, values)


class ImageFollower(ABC):
    """Receives the images of a channel, in the thread of its receiver.

    Args:
        stream: ``MODE://CHANNEL``, such as ``shm://CHANNEL`` for shared memory.
        id_field: field that becomes the pulse id.
        queue_size: objects that the server of a PVA channel keeps for us; 0: its default.

    Attributes:
        channel: its name.
        lost: images that were not taken in time.
        errors: objects that are not images, or cannot be sent.
        last_error: what was wrong with the last of them.
    """

    def __init__(self, stream: str, id_field: str, queue_size: int = 0) -> None:
        mode, _, self.channel = stream.partition("://")
        self._id_field = id_field
        self._channels = ImageChannels(self.channel)
        self._receiver = make_receiver(mode, ReceiverOptions(self.channel, queue_size=queue_size))
        found = find(mode).input
        # An opening object that comes from the source shows that it is there.
        self._opens = found is not None and found.opens
        self._read_id: IdReader | None = None
        self._last: int | None = None
        self.lost = self.errors = 0
        self.last_error = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="frame-source", daemon=True)

    def start(self) -> None:
        """Begin to follow the channel."""
        self._receiver.start(self._deliver, self._deliver_again)
        self._thread.start()

    @abstractmethod
    def _take(self, obj: StreamObject, pulse_id: int) -> bool:
        """Take an object, which may be reused after that; whether there was room for it.

        Raises:
            PvapyStreamError: it is no image, or cannot be sent.
        """

    def message(self, obj: StreamObject, pulse_id: int) -> ImageMessage:
        """An image that may be kept.

        Raises:
            ObjectError: it is none.
        """
        frame = frame_of(obj.copy())
        if not frame.has_image:
            raise ObjectError(f"object {pulse_id} has no image")
        return ImageMessage(self._channels, frame, pulse_id)

    def _keep_up(self) -> None:
        while not self._stop.wait(_TICK):
            self._receiver.keep_up()

    def _deliver_again(self, obj: StreamObject, how: Return) -> None:
        # The current object of a source at a reconnection may be one that was already received.
        self._deliver(obj, again=how.shown)

    def _deliver(self, obj: StreamObject, again: bool = False) -> None:
        try:
            if self._read_id is None:
                self._read_id = id_reader(self._id_field, obj)
            pulse_id = self._read_id(obj)
            if self._opens and is_marked(obj):
                return
            if again and pulse_id == self._last:
                return
            taken = self._take(obj, pulse_id)
        except PvapyStreamError as error:
            self._note(error)
            return
        self._last = pulse_id
        if not taken:
            self.lost += 1

    def _note(self, error: Exception) -> None:
        self.errors += 1
        self.last_error = str(error)
        if self.errors == 1 or self.errors % _LOG_EVERY == 0:
            _log.error("channel %s: %s (%d errors so far)", self.channel, error, self.errors)

    @property
    def all_lost(self) -> int:
        """Images that did not arrive: lost here, refused, or replaced at the source."""
        return self.lost + self.errors + self._receiver.counts().overruns

    def stop(self) -> None:
        """Close the channel."""
        self._stop.set()
        self._receiver.stop()
        if self._thread.is_alive():
            self._thread.join(_TICK * 4)


class FrameSender(ImageFollower):
    """Passes images on as messages, through a socket in this process, for the buffer.

    Attributes:
        address: where the messages are to be pulled.
    """

    def __init__(self, stream: str, id_field: str, queue_size: int = 0) -> None:
        super().__init__(stream, id_field, queue_size)
        self._encoder = FrameEncoder(self.channel)
        self.address = f"inproc://frames-{id(self):x}"
        self._socket: Any = zmq.Context.instance().socket(zmq.PUSH)
        self._socket.linger = 0
        self._socket.sndhwm = _MOST_WAITING
        self._socket.bind(self.address)

    def _take(self, obj: StreamObject, pulse_id: int) -> bool:
        parts = self._encoder.encode(frame_of(obj), pulse_id)
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def stop(self) -> None:
        super().stop()
        self._socket.close(0)


class FrameFeed(ImageFollower):
    """Passes images on unchanged, to be written: a `Feed`."""

    def __init__(self, address: str, id_field: str) -> None:
        super().__init__(address, id_field)
        self.address = address
        self.finished = False
        self._watch = IdWatch()
        self._heard = float("-inf")
        self._waiting: queue.Queue[ImageMessage] = queue.Queue(_MOST_WAITING)
        self.start()

    def _take(self, obj: StreamObject, pulse_id: int) -> bool:
        if self._waiting.full():
            return False
        self._waiting.put_nowait(self.message(obj, pulse_id))
        return True

    @property
    def n_errors(self) -> int:
        return self.errors

    @property
    def newest(self) -> int | None:
        return self._watch.newest

    @property
    def silent(self) -> float:
        return time.monotonic() - self._heard

    def read(self, timeout: float) -> ImageMessage | None:
        try:
            message = self._waiting.get(timeout=timeout)
        except queue.Empty:
            return None
        self._heard = time.monotonic()
        self._watch.see(message.pulse_id)
        return message

    def stop_at(self, pulse_id: int) -> None:
        pass

    def close(self) -> None:
        self.stop()
