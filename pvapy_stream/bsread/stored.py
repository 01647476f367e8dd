"""A message as the buffer keeps it: few objects, and what messages share kept once."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from pvapy_stream.bsread.packing import Buffer
from pvapy_stream.bsread.sockets import LARGE

_KNOWN_HEADERS = 8
# What Python and the ring take for a message beside its bytes; measured by resident memory.
_OVERHEAD = 440
_BLOB_OVERHEAD = 50


@dataclass(slots=True)
class Stored:
    """One message.

    Attributes:
        pulse_id: its pulse id.
        timestamp_ns: global timestamp; when it has none, the time of its arrival.
        main: the main header.
        header: the data header; most messages share one.
        lengths: of the parts behind the headers, uint32 each; most messages share them.
        blobs: these parts in order, put together; a part is within one blob.
        cost: bytes of memory it takes.
    """

    pulse_id: int
    timestamp_ns: int
    main: Buffer
    header: bytes
    lengths: bytes
    blobs: Sequence[Buffer]
    cost: int

    @property
    def nbytes(self) -> int:
        """Bytes of the message without its data header."""
        return len(self.main) + sum(map(len, self.blobs))

    def parts(self) -> list[Buffer]:
        """The message as it was received."""
        return [self.main, self.header, *split(self.lengths, self.blobs)]


def split(lengths: Buffer, blobs: Sequence[Buffer]) -> list[Buffer]:
    """Parts from blobs.

    Raises:
        ValueError: the blobs have other lengths.
    """
    parts: list[Buffer] = []
    sizes = array("I", bytes(lengths))
    following = iter(blobs)
    view, at = memoryview(b""), 0
    for size in sizes:
        if size and at == len(view):
            view, at = memoryview(next(following, b"")), 0
        end = at + size
        if end > len(view):
            raise ValueError(f"a part of {size} bytes where {len(view) - at} are left")
        parts.append(view[at:end])
        at = end
    if at != len(view) or next(following, None) is not None:
        raise ValueError("more bytes than the parts have")
    return parts


class Packer:
    """Makes stored messages of one stream. Not locked.

    Parts up to `LARGE` are put together; larger ones are kept, and sent, without a copy.
    """

    def __init__(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._header = b""
        self._lengths = b""

    def pack(self, parts: Sequence[Buffer], pulse_id: int, timestamp_ns: int) -> Stored:
        """A message from its parts, which has a data header."""
        sizes = list(map(len, parts))
        header, new = self._shared(bytes(parts[1]))
        lengths = array("I", sizes[2:]).tobytes()
        if lengths == self._lengths:
            lengths = self._lengths
        else:
            self._lengths = lengths
            new += len(lengths)
        rest = parts[2:]
        if max(sizes[2:], default=0) <= LARGE:
            blobs: Sequence[Buffer] = (b"".join(rest),) if any(sizes[2:]) else ()
        else:
            blobs = _blobs(rest)
        cost = sum(sizes) - sizes[1] + new + _OVERHEAD + _BLOB_OVERHEAD * len(blobs)
        return Stored(pulse_id, timestamp_ns, parts[0], header, lengths, blobs, cost)

    def _shared(self, header: bytes) -> tuple[bytes, int]:
        """The data header, kept once, and its size when it is new."""
        if header == self._header:
            return self._header, 0
        known = self._headers.pop(header, None)
        self._header = self._headers[header] = header if known is None else known
        if len(self._headers) > _KNOWN_HEADERS:
            del self._headers[next(iter(self._headers))]
        return self._header, len(header) if known is None else 0


def _blobs(parts: Sequence[Buffer]) -> tuple[Buffer, ...]:
    blobs: list[Buffer] = []
    small: list[Buffer] = []
    for part in parts:
        if len(part) <= LARGE:
            small.append(part)
            continue
        blobs += (b"".join(small), part)
        small = []
    blobs.append(b"".join(small))
    return tuple(blob for blob in blobs if len(blob))
