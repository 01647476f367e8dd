"""Updates of a channel, encoded once for all clients that ask for the same fields.

An update holds each field of the structure as it is sent (a chunk, in parts: large arrays stay
where they are), or makes it from the value. What is sent to a client is put together from the
chunks of the fields that it asks for and that have changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, cast

from pvapy_stream.pva.wire import request, values
from pvapy_stream.pva.wire.buffers import Buffer, Reader, Writer
from pvapy_stream.pva.wire.changes import write_bits, write_changes
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.stream import Command, begin, lay_out
from pvapy_stream.pva.wire.types import Structure, Type

Chunk = Sequence[Buffer]
Value = dict[str, object]

_KEPT = 64  # encodings of one update, and bit sets of one selection
# Type descriptions inside (of variants) are sent whole: their numbers differ between clients.
_WHOLE_TYPES = Outgoing(0)
_START = 5  # bytes: number of the request, and flags
_JOINED = 256  # bytes
_MONITOR = int(Command.MONITOR)


class Selection:
    """The part of a channel's structure that clients ask for.

    Args:
        whole: the channel's structure.
        part: what is asked for.

    Attributes:
        part: as above.
        whole: whether all is asked for.
        places: numbers of the fields of the first level, if each is asked for as a whole; else
            None.
    """

    def __init__(self, whole: Structure, part: Structure) -> None:
        self.part = part
        self.whole = whole is part
        self._whole = whole
        self._narrowed: dict[int, int] = {}
        self._plans: dict[int, tuple[bytes, list[int] | None]] = {}
        found = {name: (number, kind) for number, (name, kind) in enumerate(whole.fields)}
        same = all(found[name][1] == kind for name, kind in part.fields)
        self.places = tuple(found[name][0] for name, _ in part.fields) if same else None
        # Bits of the structure, and of its fields as wholes.
        self._plain = 1 | sum(1 << start for start in part.starts)

    def narrowed(self, bits: int) -> int:
        """The bit set of the channel's structure, as one of this part."""
        if self.whole:
            return bits
        made = self._narrowed.get(bits)
        if made is None:
            if len(self._narrowed) >= _KEPT:
                self._narrowed.clear()
            made = self._narrowed[bits] = request.narrowed(self._whole, bits, self.part)
        return made

    def plan(self, bits: int) -> tuple[bytes, list[int] | None]:
        """A bit set of this part as it is sent, and numbers of the fields that it names.

        The numbers are None if it names parts of fields.
        """
        made = self._plans.get(bits)
        if made is None:
            if len(self._plans) >= _KEPT:
                self._plans.clear()
            writer = Writer()
            write_bits(bits, writer)
            made = self._plans[bits] = writer.joined(), self._numbers(bits)
        return made

    def _numbers(self, bits: int) -> list[int] | None:
        if self.places is None or bits & ~self._plain:
            return None
        if bits & 1:
            return list(self.places)
        pairs = zip(self.places, self.part.starts, strict=True)
        return [place for place, start in pairs if bits >> start & 1]


class Encoded(NamedTuple):
    """An update as it is sent, from its bit set on.

    Attributes:
        first: size of the payload of the first segment, or of the message.
        segmented: whether it has several segments.
        parts: all after number of the request and flags.
        size: bytes of all, header included.
    """

    first: int
    segmented: bool
    parts: list[Buffer]
    size: int

    def message(self, number: int) -> list[Buffer]:
        """The message for a request."""
        start = begin(_MONITOR, self.first, self.segmented, number, 0)
        first, *rest = self.parts
        # One part costs less than two, and a large one is not copied.
        return [start + first, *rest] if len(first) < _JOINED else [start, first, *rest]


class Passed(Protocol):
    """A message that is there as it is sent: one of another server, for instance."""

    @property
    def body(self) -> list[Buffer]:
        """The message from its bit set on, without overruns."""
        ...

    @property
    def fields(self) -> list[Chunk | None] | None:
        """The fields of the first level; never None."""
        ...


class Update:
    """A structure, and which of its fields have changed. Never changed itself, but for its caches.

    Args:
        kind: type of the structure.
        bits: bit set of the fields that changed.
        chunks: each field of the first level, as it is sent; not changed from now on; or
        value: the structure; or
        passed: the message, with the bit set `bits`.
    """

    __slots__ = (
        "_chunks",
        "_encoded",
        "_nbytes",
        "_passed",
        "_value",
        "_whole",
        "bits",
        "kind",
    )

    def __init__(
        self,
        kind: Structure,
        bits: int,
        chunks: list[Chunk | None] | None = None,
        value: Value | None = None,
        passed: Passed | None = None,
    ) -> None:
        self.kind = kind
        self.bits = bits
        self._value = value
        self._passed = passed
        self._chunks = chunks
        # Of what is not sent as it is in `passed`.
        self._encoded: dict[tuple[Selection, int, int], Encoded] | None = None
        self._whole: Encoded | None = None
        self._nbytes = -1

    @property
    def value(self) -> Value:
        """The structure; arrays look into the chunks."""
        if self._value is None:
            parts = [part for number in range(len(self._known)) for part in self.chunk(number)]
            self._value = cast("Value", values.read(self.kind, Reader(parts), Incoming()))
        return self._value

    @property
    def _known(self) -> list[Chunk | None]:
        """The chunks that are there."""
        if self._chunks is None:
            passed = None if self._passed is None else self._passed.fields
            self._chunks = passed or [None for _ in self.kind.fields]
        return self._chunks

    def chunk(self, number: int) -> Chunk:
        """A field of the first level, as it is sent."""
        chunks = self._known
        found = chunks[number]
        if found is None:
            name, kind = self.kind.fields[number]
            found = chunks[number] = chunk_of(kind, self.value[name])
        return found

    @property
    def nbytes(self) -> int:
        """Size of the whole structure, as it is sent; of a message that is there, that of this."""
        if self._nbytes < 0 and self._passed is not None:
            self._nbytes = sum(map(len, self._passed.body))
        elif self._nbytes < 0:
            numbers = range(len(self._known))
            self._nbytes = sum(len(part) for n in numbers for part in self.chunk(n))
        return self._nbytes

    def encoded(self, selection: Selection, bits: int, overrun: int = 0) -> Encoded:
        """What is sent to those who ask for a part; made once.

        Args:
            selection: what they ask for.
            bits: bit set of that part.
            overrun: bit set of fields whose changes they have missed.

        Raises:
            WireError: a value does not fit its type.
        """
        passed = self._passed
        if passed is not None and bits == self.bits and not overrun and selection.whole:
            # Almost all that is sent: a key for each would cost more than to compare.
            if self._whole is None:
                self._whole = Encoded(*lay_out(_MONITOR, passed.body, _START))
            return self._whole
        key = (selection, bits, overrun)
        known = self._encoded
        if known is None:
            known = self._encoded = {}
        made = known.get(key)
        if made is None:
            if len(known) >= _KEPT:
                known.clear()
            made = known[key] = self._encode(selection, bits, overrun)
        return made

    def _encode(self, selection: Selection, bits: int, overrun: int) -> Encoded:
        named, numbers = selection.plan(bits)
        if numbers is None:
            writer = Writer()
            write_changes(selection.part, bits, self.value, writer, _WHOLE_TYPES)
            parts: list[Buffer] = writer.parts()
        else:
            parts = [named]
            for number in numbers:
                parts += self.chunk(number)
        parts.append(selection.plan(overrun)[0])
        return Encoded(*lay_out(_MONITOR, parts, _START))


def chunk_of(kind: Type, value: object) -> Chunk:
    """A value as it is sent.

    Raises:
        WireError: it is none of this type.
    """
    writer = Writer()
    values.write(kind, value, writer, _WHOLE_TYPES)
    return [bytes(part) if isinstance(part, bytearray) else part for part in writer.parts()]


def changed(
    kind: Structure, before: Sequence[Chunk | None] | None, after: Sequence[Chunk | None]
) -> int:
    """The bit set of the fields of the first level whose chunks differ.

    Large arrays are not looked into: another one counts as a change.
    """
    if before is None:
        return 1
    bits = 0
    for start, old, new in zip(kind.starts, before, after, strict=True):
        if old is not new and (new is None or len(new) > 1 or old != new):
            bits |= 1 << start
    return bits


def value_update(kind: Structure, value: Mapping[str, object], bits: int = 1) -> Update:
    """An update of a value that nobody changes from now on."""
    return Update(kind, bits, value=cast("Value", value))
