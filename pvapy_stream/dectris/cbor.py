"""CBOR of messages that may be damaged or hostile; tags are data here, and never executed."""

from __future__ import annotations

import functools
import io
from typing import Any

from pvapy_stream.errors import DectrisError
from pvapy_stream.plugins import require

_DEPTH = 16  # containers within containers; messages have 6
_CHUNK = 2**20  # bytes that are read at a time; measured: half the time of small pieces

# Tags that the library would turn into objects: dates, large numbers, patterns, addresses, shared
# references and others. Here they stay tags.
_KNOWN_TAGS = (
    *(0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100),
    *(256, 258, 260, 261, 1004, 43000, 55799),
)


@functools.cache
def _cbor2() -> Any:
    return require("cbor2", "dectris")


@functools.cache
def _left_alone() -> Any:
    """Decoders of the known tags, which leave them tags."""
    return {tag: lambda value, _immutable, tag=tag: tagged(tag, value) for tag in _KNOWN_TAGS}


def check_installed() -> None:
    """Import the library.

    Raises:
        MissingExtraError: it is not installed.
    """
    _cbor2()


def decode(message: bytes) -> Any:
    """The one item of a message; each tag is a `cbor2.CBORTag`.

    Raises:
        DectrisError: it is malformed, too deep, has an indefinite length or a key twice, or bytes
            follow the item.
    """
    library = _cbor2()
    try:
        decoder = library.CBORDecoder(
            io.BytesIO(message),
            semantic_decoders=_left_alone(),
            read_size=min(len(message), _CHUNK) or 1,
            max_depth=_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
        item = decoder.decode()
    except Exception as error:
        # The library lets some exceptions of Python itself through.
        raise DectrisError(f"the message is no CBOR that can be read: {error}") from error
    try:
        decoder.read(1)
    except library.CBORDecodeEOF:
        return item
    raise DectrisError("bytes follow the end of the message")


def tag_of(value: object) -> tuple[int, Any]:
    """Number and content of a tag; (-1, value) for a value without a tag."""
    if isinstance(value, _cbor2().CBORTag):
        tagged: Any = value
        return tagged.tag, tagged.value
    return -1, value


def tagged(tag: int, value: object) -> Any:
    """A value with a tag."""
    return _cbor2().CBORTag(tag, value)


def encode(item: object) -> bytes:
    """A message with this item."""
    return _cbor2().dumps(item)
