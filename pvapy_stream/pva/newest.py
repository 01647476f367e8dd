"""The object that a channel holds, whenever somebody asks."""

from __future__ import annotations

from pvapy_stream.errors import ObjectError
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.net.client import channel
from pvapy_stream.pva.put_objects import PutReader
from pvapy_stream.pva.wire.types import Structure


class Newest:
    """Asks a channel for its object. Every question has a time limit, which the binding's has not.

    Args:
        name: of the channel, which is searched for from now on.
        fields: which are asked for, such as ``field(uniqueId)``; all if empty.
    """

    def __init__(self, name: str, fields: str = "") -> None:
        self.name = name
        self._fields = fields
        self._channel = channel(name)
        self._reader: PutReader | None = None

    def get(self, timeout: float) -> StreamObject:
        """The object: a `LazyObject` if it is an image, else a PvObject.

        Args:
            timeout: s; for the channel to be there, and as long again for its answer.

        Raises:
            TransportError: it is not there, does not answer or refuses.
            ObjectError: its structure cannot be held.
        """
        found = self._channel.get(self._fields, timeout, timeout)
        if not isinstance(found.type, Structure) or not isinstance(found.value, dict):
            raise ObjectError(f"channel {self.name} is no structure")
        if self._reader is None or self._reader.kind != found.type:
            self._reader = PutReader(found.type)
        return self._reader.read(found.value)

    def close(self) -> None:
        """Let the channel go."""
        self._channel.close()
