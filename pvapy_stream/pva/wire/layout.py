"""Recognises updates of a stream that differ only in their data, so that fields are read once.

Most updates of a detector have the same fields, the same lengths of arrays and strings, and the
same types of values; only numbers, characters and pixels change. The first of them is read field by
field, and the places of its data are recorded. A message whose other bytes are the same has the
same layout: its fields are at the same places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pvapy_stream.pva.wire.buffers import Buffer, Reader
from pvapy_stream.pva.wire.changes import Rests, read_bits, read_changes
from pvapy_stream.pva.wire.descriptions import Incoming
from pvapy_stream.pva.wire.types import Structure

_LARGE = 256  # bytes; longer data are left out, shorter ones are masked

Span = tuple[int, int]  # first byte of the payload, and the one after the last


class NotingReader(Reader):
    """A reader that records the places of data.

    Attributes:
        data: their spans, in ascending order.
    """

    __slots__ = ("_in_text", "data", "length")

    def __init__(self, chunks: Sequence[Buffer], big: bool) -> None:
        super().__init__(chunks, big)
        self.length = self.rest
        self.data: list[Span] = []
        self._in_text = False

    @property
    def at(self) -> int:
        """Bytes that were read."""
        return self.length - self.rest

    def datum(self, code: str) -> float:
        found = super().datum(code)
        self._note(self._codecs[code].size)
        return found

    def elements(self, count: int) -> memoryview:
        found = super().elements(count)
        self._note(count)
        return found

    def text(self) -> str:
        self._in_text = True
        found = super().text()
        self._in_text = False
        return found

    def characters(self, count: int) -> memoryview:
        found = super().characters(count)
        if self._in_text:
            self._note(count)
        return found

    def _note(self, size: int) -> None:
        if size:
            self.data.append((self.at - size, self.at))


class Layout:
    """Where the fields of an update are.

    Args:
        kind: type of the structure.
        payload: of the message, in chunks.
        start: where the bit set begins.
        big: whether the message is big-endian.
        known: types that the peer has numbered.
        held: the structure before.
        fixed: fields whose data are part of the layout, too, such as ``dimension``.

    Attributes:
        changed: bit set of the fields that are in the message.
        overrun: bit set of the fields that changed more than once; None if the message has none.
        value: the structure after.
        spans: where each field of the message is, by its path.
        numbered: whether types in it are given by numbers, which mean nothing on other connections.

    Raises:
        WireError: the message is malformed.
    """

    __slots__ = ("_lengths", "_pieces", "changed", "numbered", "overrun", "spans", "value")

    def __init__(
        self,
        kind: Structure,
        payload: Sequence[Buffer],
        start: int,
        big: bool,
        known: Incoming,
        held: Mapping[str, object],
        fixed: Sequence[str] = (),
    ) -> None:
        reader = NotingReader(payload, big)
        reader.take(start)
        rests: Rests = {}
        numbers = known.numbers
        self.changed, self.value = read_changes(kind, reader, known, held, rests)
        self.spans: dict[str, Span] = {
            path: (reader.length - before, reader.length - after)
            for path, (before, after) in rests.items()
        }
        self.numbered = known.numbers != numbers
        # Some servers leave the overruns out.
        self.overrun = read_bits(reader) if reader.rest else None
        reader.end()
        kept = [self.spans[path] for path in fixed if path in self.spans]
        data = [
            (first, end)
            for first, end in reader.data
            if not any(low <= first and end <= high for low, high in kept)
        ]
        self._lengths = tuple(map(len, payload))
        self._pieces = _pieces(payload, start, data)

    def fits(self, payload: Sequence[Buffer]) -> bool:
        """Whether a message has this layout.

        Args:
            payload: of the message, in chunks.
        """
        if tuple(map(len, payload)) != self._lengths:
            return False
        from_bytes = int.from_bytes
        for number, first, end, mask, wanted in self._pieces:
            if from_bytes(payload[number][first:end], "little") & mask != wanted:
                return False
        return True


_Piece = tuple[int, int, int, int, int]  # chunk, first byte, end, mask, bytes under the mask


def _pieces(payload: Sequence[Buffer], start: int, data: Sequence[Span]) -> list[_Piece]:
    """The parts of a payload to compare, with a mask that excludes data.

    Args:
        payload: in chunks.
        start: first byte that is compared.
        data: spans of the data in the payload.
    """
    pieces: list[_Piece] = []
    chunk_at = 0
    for number, chunk in enumerate(payload):
        length = len(chunk)
        inside = [
            (max(first - chunk_at, 0), min(end - chunk_at, length))
            for first, end in data
            if first < chunk_at + length and end > chunk_at
        ]
        at = max(start - chunk_at, 0)
        for first, end in [*(one for one in inside if one[1] - one[0] >= _LARGE), (length, length)]:
            if first > at:
                pieces.append(_piece(number, chunk, at, first, inside))
            at = end
        chunk_at += length
    return [piece for piece in pieces if piece[3]]


def _piece(number: int, chunk: Buffer, first: int, end: int, data: Sequence[Span]) -> _Piece:
    mask = bytearray(b"\xff" * (end - first))
    for low, high in data:
        low, high = max(low, first), min(high, end)
        if low < high:
            mask[low - first : high - first] = bytes(high - low)
    whole = int.from_bytes(mask, "little")
    return number, first, end, whole, int.from_bytes(chunk[first:end], "little") & whole
