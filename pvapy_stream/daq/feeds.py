"""Sources of messages: a bsread stream, or ranges of a buffer."""

from __future__ import annotations

import time

from pvapy_stream.bsread.codec import ControlMessage, Decoder, Message
from pvapy_stream.bsread.sockets import BsreadInput, Mode
from pvapy_stream.daq.id_watch import IdWatch
from pvapy_stream.daq.ranges import RangeReader, read_range
from pvapy_stream.errors import BsreadError, SettingsError
from pvapy_stream.settings.modes import image_forms
from pvapy_stream.transport.registry import image_stream

STREAM = "tcp://"
BUFFER = "buffer://"

_QUEUE = 1000  # messages that may wait in the socket
_BUFFER_TIMEOUT = 10.0  # s


class StreamFeed:
    """Messages of a bsread sender.

    Args:
        address: ``tcp://host:port``.
        mode: ``pull``, or ``sub`` for senders that publish.

    Raises:
        TransportError: the address is none.
    """

    def __init__(self, address: str, mode: Mode = "pull") -> None:
        self.address = address
        self.n_errors = 0
        self.last_error = ""
        self.finished = False
        self._watch = IdWatch()
        self._input = BsreadInput(address, mode, _QUEUE)
        self._decoder = Decoder()
        self._heard = float("-inf")

    @property
    def newest(self) -> int | None:
        return self._watch.newest

    @property
    def silent(self) -> float:
        return time.monotonic() - self._heard

    def read(self, timeout: float) -> Message | None:
        parts = self._input.receive()
        if parts is None:
            if not self._input.socket.poll(round(timeout * 1000)):
                return None
            parts = self._input.receive()
            if parts is None:
                return None
        self._heard = time.monotonic()
        try:
            message = self._decoder.decode(parts)
        except BsreadError as error:
            self.n_errors += 1
            self.last_error = str(error)
            return None
        if isinstance(message, ControlMessage):
            # A sender that stops, or moves, may return: the socket stays open.
            return None
        self._watch.see(message.pulse_id)
        return message

    def stop_at(self, pulse_id: int) -> None:
        pass

    def close(self) -> None:
        self._input.close()


class BufferFeed:
    """A range of a buffer, which may be in the past.

    Args:
        address: ``buffer://host:port`` of the buffer's range port.
        start: first pulse id, None for the next that comes.
        stop: the last one, None when it is not known yet.

    Raises:
        TransportError: the address is none.
    """

    def __init__(self, address: str, start: int | None, stop: int | None) -> None:
        self.address = address
        self.last_error = ""
        self._reader: RangeReader = read_range(
            address.replace(BUFFER, STREAM, 1), start, stop, timeout=_BUFFER_TIMEOUT
        )

    @property
    def n_errors(self) -> int:
        """Malformed messages in the range."""
        return sum(gone.reason == "malformed" for gone in self._reader.gone)

    @property
    def newest(self) -> int | None:
        return self._reader.newest

    @property
    def finished(self) -> bool:
        return self._reader.finished

    @property
    def silent(self) -> float:
        return self._reader.silent

    def read(self, timeout: float) -> Message | None:
        return self._reader.read(timeout)

    def stop_at(self, pulse_id: int) -> None:
        self._reader.stop_at(pulse_id)

    def close(self) -> None:
        self._reader.__exit__(None, None, None)


def check_stream(address: str) -> None:
    """Refuse an address that cannot be one.

    Raises:
        SettingsError: it is none.
    """
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    if f"{scheme}://" in (STREAM, BUFFER) and host and port.isdigit():
        return
    if image_stream(address) is None:
        raise SettingsError(
            f"{address!r} is not a stream; write tcp://host:port for a bsread stream,"
            f" buffer://host:port for the range port of a buffer, or {image_forms()}"
        )
