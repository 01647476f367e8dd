"""Gets the current object of a channel."""

from __future__ import annotations

from pvapy_stream.errors import ObjectError
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.net.client import channel
from pvapy_stream.pva.put_objects import PutReader
from pvapy_stream.pva.wire.types import Structure


class Newest:
    """Gets the current object of a channel, with a time limit, which the binding does not keep.

    Args:
        name: of the channel; the search for it begins at once.
        fields: the fields to get, such as ``field(uniqueId)``; all if empty.
    """

    def __init__(self, name: str, fields: str = "") -> None:
        self.name = name
        self._fields = fields
        self._channel = channel(name)
        self._reader: PutReader | None = None

    def get(self, timeout: float) -> StreamObject:
        """The object: a `LazyObject` if it is an image, else a PvObject.

        Args:
            timeout: s; for the connection, and the same time again for the answer.

        Raises:
            TransportError: it is not found, does not answer or refuses.
            ObjectError: the binding cannot hold its structure.
        """
        found = self._channel.get(self._fields, timeout, timeout)
        if not isinstance(found.type, Structure) or not isinstance(found.value, dict):
            raise ObjectError(f"channel {self.name} is no structure")
        if self._reader is None or self._reader.kind != found.type:
            self._reader = PutReader(found.type)
        return self._reader.read(found.value)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
