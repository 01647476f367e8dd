"""Objects of a stream as samples of shared memory."""

from __future__ import annotations

from collections.abc import Callable

import pvaccess as pva

from pvapy_stream.errors import ObjectError
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.pva.ntndarray import to_frame
from pvapy_stream.pva.objects import IdReader, id_reader
from pvapy_stream.pva.serial import ObjectWriter
from pvapy_stream.transport.shm.attributes import wire_of_object
from pvapy_stream.transport.shm.frames import OBJECT, Parts, Sendable, parts_of_frame

_NANO = 1_000_000_000


class SampleEncoder:
    """Prepares the objects of one stream for writing. Not locked.

    Args:
        id_field: field with the id of objects that are not images.
    """

    _IMAGE_FIELDS = tuple(pva.NtNdArray().keys())

    def __init__(self, id_field: str) -> None:
        self._id_field = id_field
        self._writer = ObjectWriter()
        self._read_id: IdReader | None = None

    def parts(self, obj: pva.PvObject | LazyObject) -> Sendable:
        """An object, ready to be written.

        Raises:
            ObjectError: it cannot be converted to bytes.
        """
        if isinstance(obj, LazyObject):
            # Looked up in the class: an object without it would build a PvObject to look there.
            sendable: Callable[[LazyObject], Sendable] | None = getattr(type(obj), "parts", None)
            if sendable is not None:
                return sendable(obj)
            if obj.id is not None:
                return parts_of_frame(obj.frame)
            return self._parts_of(obj.pv_object())
        return self._parts_of(obj)

    def _parts_of(self, obj: pva.PvObject) -> Parts:
        if tuple(obj.keys()) == self._IMAGE_FIELDS:
            found = self._image(obj)
            if found is not None:
                return found
        return self._general(obj)

    def _image(self, obj: pva.PvObject) -> Parts | None:
        try:
            frame = to_frame(obj)
            wire = wire_of_object(obj)
            if wire is None:
                return None
            stamp = obj.getLong("timeStamp.secondsPastEpoch") * _NANO
            return parts_of_frame(frame, wire, stamp + obj.getInt("timeStamp.nanoseconds"))
        except ObjectError:
            # An NTNDArray without an image, or with one that a frame cannot describe.
            return None

    def _general(self, obj: pva.PvObject) -> Parts:
        payload = self._writer.parts(obj)
        value = 0
        if obj.hasField(self._id_field):
            if self._read_id is None:
                self._read_id = id_reader(self._id_field, obj)
            value = self._read_id(obj)
        return Parts(OBJECT, value, payload=payload, nbytes=sum(len(part) for part in payload))
