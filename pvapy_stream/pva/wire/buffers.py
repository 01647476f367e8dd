"""Numbers, sizes and strings of either byte order, from and to buffers that are not copied."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pvapy_stream.errors import WireError
from pvapy_stream.pva.wire.limits import DEFAULT, Limits

Buffer = bytes | bytearray | memoryview

NULL = -1  # the size of an array or string that is missing

_LONG = 254
_NONE = 255
_LONGEST = 2**31 - 1
# Arrays of fewer bytes are copied among the other values: one buffer costs more than such a copy.
_BY_REFERENCE = 4096

_FORMATS = "bBhHiIqQfd"
_CODECS = {
    big: {code: struct.Struct((">" if big else "<") + code) for code in _FORMATS}
    for big in (False, True)
}


class Reader:
    """Reads a message, which may consist of several chunks.

    Args:
        data: the message, or its chunks.
        big: whether numbers are big-endian.
        limits: of what is read.
    """

    __slots__ = ("_at", "_chunks", "_codecs", "_spent", "_view", "big", "depth", "limits", "rest")

    def __init__(
        self, data: Buffer | Sequence[Buffer], big: bool = False, limits: Limits = DEFAULT
    ) -> None:
        chunks = [data] if isinstance(data, (bytes, bytearray, memoryview)) else data
        views = [memoryview(chunk).toreadonly().cast("B") for chunk in chunks if len(chunk)]
        self.big = big
        self.limits = limits
        self.depth = 0
        self.rest = sum(map(len, views))  # bytes that were not read
        self._codecs = _CODECS[big]
        self._chunks = views[::-1]
        self._view = self._chunks.pop() if self._chunks else memoryview(b"")
        self._at = 0
        self._spent = 0

    def spend(self, count: int) -> None:
        """Count values.

        Raises:
            WireError: the message has more than it may.
        """
        self._spent += count
        if self._spent > self.limits.values:
            raise WireError(f"a message has more than {self.limits.values} values")

    def take(self, count: int) -> memoryview:
        """A view of the next bytes; a joined copy if they are in several chunks.

        Raises:
            WireError: there are not so many.
        """
        if not 0 <= count <= self.rest:
            raise WireError(f"a message ends {count - self.rest} bytes too early")
        at, view = self._at, self._view
        end = at + count
        if end <= len(view):
            self._at = end
            self.rest -= count
            return view[at:end]
        if at == len(view):
            self._view, self._at = self._chunks.pop(), 0
            return self.take(count)
        self.rest -= count
        joined = bytearray(view[at:])
        while len(joined) < count:
            self._view = self._chunks.pop()
            self._at = min(count - len(joined), len(self._view))
            joined += self._view[: self._at]
        return memoryview(joined).toreadonly()

    def number(self, code: str) -> int:
        """The next integer, by its code in `struct`."""
        codec = self._codecs[code]
        return codec.unpack(self.take(codec.size))[0]

    def peek(self, code: str) -> int:
        """The next integer, without reading it; it must be in the same chunk as the byte before.

        Raises:
            WireError: the message or the chunk ends before it.
        """
        codec = self._codecs[code]
        if self._at + codec.size > len(self._view):
            raise WireError("a message ends too early")
        return codec.unpack_from(self._view, self._at)[0]

    # Data: the parts of a message that may change without a change of its layout.

    def datum(self, code: str) -> float:
        """A number that is a value, by its code in `struct`."""
        codec = self._codecs[code]
        return codec.unpack(self.take(codec.size))[0]

    def elements(self, count: int) -> memoryview:
        """Bytes of an array of numbers that is a value."""
        return self.take(count)

    def text(self) -> str:
        """A string that is a value; bytes that are no UTF-8 become surrogates, as in file names.

        `Writer.string` writes the same bytes again: some programs send bytes as a string.
        """
        return self._characters().decode(errors="surrogateescape")

    def byte(self) -> int:
        """The next byte, 0 to 255."""
        return self.take(1)[0]

    def size(self) -> int:
        """A size: one byte up to 253; 254 and four bytes; or these 2**31 - 1 and eight bytes.

        Returns:
            the size, or `NULL` (255 is sent for it).
        """
        first = self.byte()
        if first < _LONG:
            return first
        if first == _NONE:
            return NULL
        size = self.number("i")
        if size == _LONGEST:
            size = self.number("q")
        if size < 0:
            raise WireError(f"a size is {size}")
        return size

    def count(self, least: int) -> int:
        """The size of an array whose elements have at least so many bytes; none counts as 0.

        Raises:
            WireError: the message is too short for it.
        """
        size = max(self.size(), 0)
        if size * least > self.rest:
            raise WireError(f"an array of {size} elements does not fit into {self.rest} bytes")
        return size

    def string(self) -> str:
        """A size and so many bytes of UTF-8, or else of Latin-1; none is the empty string."""
        return legible(self._characters())

    def _characters(self) -> bytes:
        size = self.size()
        if size > self.limits.string:
            raise WireError(f"a string of {size} bytes is longer than {self.limits.string}")
        return bytes(self.characters(max(size, 0)))

    def characters(self, count: int) -> memoryview:
        """Bytes of a string."""
        return self.take(count)

    def end(self) -> None:
        """Check that all was read.

        Raises:
            WireError: something is left.
        """
        if self.rest:
            raise WireError(f"a message has {self.rest} bytes too many")


def legible(raw: bytes) -> str:
    """Text to be read by people: UTF-8, or else Latin-1."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        # Other programs send what their users typed, in any encoding.
        return raw.decode("latin-1")


class Writer:
    """Writes a message; large arrays stay where they are.

    Args:
        big: whether numbers are big-endian.
    """

    __slots__ = ("_codecs", "_parts", "_tail", "big", "size_so_far")

    def __init__(self, big: bool = False) -> None:
        self.big = big
        self.size_so_far = 0  # bytes of the parts that are complete
        self._codecs = _CODECS[big]
        self._parts: list[Buffer] = []
        self._tail = bytearray()

    def number(self, code: str, value: float) -> None:
        """A number, by its code in `struct`.

        Raises:
            WireError: it does not fit.
        """
        try:
            self._tail += self._codecs[code].pack(value)
        except (struct.error, OverflowError) as error:
            raise WireError(f"{value!r} cannot be sent as a number of its type: {error}") from error

    def byte(self, value: int) -> None:
        """One byte, 0 to 255."""
        self._tail.append(value)

    def size(self, size: int) -> None:
        """A size, as `Reader.size` reads it."""
        if size == NULL:
            self._tail.append(_NONE)
        elif size < _LONG:
            self._tail.append(size)
        elif size < _LONGEST:
            self._tail.append(_LONG)
            self.number("i", size)
        else:
            self._tail.append(_LONG)
            self.number("i", _LONGEST)
            self.number("q", size)

    def string(self, text: str) -> None:
        """A size and so many bytes of UTF-8; surrogates are the bytes that they were made of."""
        raw = text.encode("utf-8", "surrogateescape")
        self.size(len(raw))
        self._tail += raw

    def raw(self, data: Buffer) -> None:
        """Bytes as they are; many of them are not copied."""
        if len(data) < _BY_REFERENCE:
            self._tail += data
            return
        self._parts += [self._tail, data]
        self.size_so_far += len(self._tail) + len(data)
        self._tail = bytearray()

    def __len__(self) -> int:
        return self.size_so_far + len(self._tail)

    def parts(self) -> list[Buffer]:
        """The message, in parts to be sent one after the other."""
        return [part for part in (*self._parts, self._tail) if len(part)]

    def joined(self) -> bytes:
        """The message in one piece."""
        return b"".join(self.parts())
