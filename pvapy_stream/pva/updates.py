"""Objects of the updates of one monitor. Images of the same layout are not read field by field."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import Frame
from pvapy_stream.pva.convert import Value, plain_array
from pvapy_stream.pva.net.encoded_updates import Chunk, chunk_of
from pvapy_stream.pva.ntndarray import MARK, TAG
from pvapy_stream.pva.put_objects import (
    Origin,
    PutReader,
    ValueObject,
    attributes_of_value,
    frame_of_value,
)
from pvapy_stream.pva.wire.buffers import Buffer, Reader
from pvapy_stream.pva.wire.changes import read_bits, read_changes
from pvapy_stream.pva.wire.descriptions import Incoming
from pvapy_stream.pva.wire.layout import Layout
from pvapy_stream.pva.wire.types import Selected, Structure, default

START = 5  # bytes of a monitor's message before the bit set: number of the request, and flags

_NANO = 1_000_000_000
# Fields whose values are taken from the layout, not from the message.
_FIXED = ("dimension", "codec")
_ID, _PIXELS = "uniqueId", "value"
# The time of the data is preferred to the time at which the record was processed.
_TIMES = [
    (f"{stamp}.secondsPastEpoch", f"{stamp}.nanoseconds")
    for stamp in ("dataTimeStamp", "timeStamp")
]
_PLACES = [_ID, _PIXELS, TAG, *(path for times in _TIMES for path in times)]
_CODECS = {
    big: (struct.Struct(">q" if big else "<q"), struct.Struct(">i" if big else "<i"))
    for big in (False, True)
}
# Messages in a row with another layout, after which a layout is read only for each `_AGAIN`th.
_IN_VAIN = 8
_AGAIN = 256  # messages
_SMALL = 4096  # bytes; fewer are copied, and compared with those of the image before

Payload = Sequence[Buffer]
Pixels = NDArray[np.generic]
_Place = tuple[int, int]  # chunk, and first byte in it
# The bytes of a field that is not in the message; or chunk, first byte and end of its parts.
_Field = tuple[Chunk, tuple[tuple[int, int, int], ...]]


class UpdateReader:
    """Makes objects of the messages of one monitor, one after the other.

    Args:
        kind: type of the objects.
        known: types that the server has numbered.

    Attributes:
        overruns: number of updates in which the server replaced earlier ones that it had not sent.

    Raises:
        ObjectError: the binding cannot hold such a structure.
    """

    def __init__(self, kind: Structure, known: Incoming) -> None:
        self.kind = kind
        self.overruns = 0
        self._known = known
        self._objects = PutReader(kind)
        self._held: Value = cast("Value", default(kind))
        self._image: _ImageLayout | None = None
        # The newest message that was recognised, which is not in `_held`.
        self._newest: Payload | None = None
        self._in_vain = 0

    def read(self, payload: Payload, big: bool) -> Any:
        """The object of a message.

        Args:
            payload: of the message, in chunks.
            big: whether it is big-endian.

        Raises:
            WireError: the message is malformed.
            ObjectError: the binding cannot hold one of the values.
        """
        image = self._image
        if (
            image is not None
            and big == image.big
            and self._known.version == image.version
            and image.fits(payload)
        ):
            self._newest = payload
            self._in_vain = 0
            chunk, at = image.id_place
            return UpdateObject(image, payload, image.unpack_id(payload[chunk], at)[0])
        if self._newest is not None and image is not None:
            self._held = image.value(self._newest)
        self._image = self._newest = None
        self._in_vain += 1
        if self._objects.is_image and (self._in_vain < _IN_VAIN or not self._in_vain % _AGAIN):
            return self._learn(payload, big)
        reader = Reader(payload, big)
        reader.take(START)
        self._held = read_changes(self.kind, reader, self._known, self._held)[1]
        # Some servers leave the overruns out.
        self.overruns += bool(reader.rest and read_bits(reader))
        reader.end()
        return self._objects.read(self._held)

    def _learn(self, payload: Payload, big: bool) -> object:
        layout = Layout(self.kind, payload, START, big, self._known, self._held, _FIXED)
        self.overruns += bool(layout.overrun)
        self._held = layout.value
        found = self._objects.read(layout.value)
        if not layout.overrun:
            self._image = _image_layout(self._objects, layout, payload, big, self._known.copy())
        return found


class _ImageLayout:
    """A layout of images: where in a message a frame is.

    Args:
        objects: makes PvObjects.
        layout: of the message.
        big: whether it is big-endian.
        known: types that the server has numbered.
        frame: of the first message of this layout.
        places: where numbers and pixels are, by their paths.
        fields: fields of the first level: where the bytes are, or the bytes of those that are not
            in the message; None if they cannot be sent on unchanged.

    Attributes:
        big: as above.
        version: of the types that the server had numbered.
        fits: whether a message has this layout, but for the two before.
        changed: bit set of the fields that are in the messages.
        can_be_passed: whether messages can be sent on unchanged.
        id_place: where the id is.
        unpack_id: reads it, from a chunk and a place.
    """

    def __init__(
        self,
        objects: PutReader,
        layout: Layout,
        big: bool,
        known: Incoming,
        frame: Frame,
        places: Mapping[str, _Place],
        fields: Sequence[_Field] | None,
    ) -> None:
        self.objects = objects
        self._fields = fields
        self._layout = layout
        self.big = big
        self.version = known.version
        self.fits = layout.fits
        self.changed = layout.changed
        self.can_be_passed = fields is not None and layout.overrun is not None
        self._known = known
        self._shape, self._codec, self._dtype = frame.stored_shape, frame.codec, frame.dtype
        self._mode = frame.color_mode
        self._pixels = places[_PIXELS]
        array = cast("Pixels", cast("Selected", layout.value["value"]).value)
        self._stored, self._size = array.dtype, array.size
        self._long, self._int = _CODECS[big]
        self.id_place, self._tag = places[_ID], places.get(TAG)
        self.unpack_id = self._int.unpack_from
        self._times = [
            (places[seconds], places[nanoseconds])
            for seconds, nanoseconds in _TIMES
            if seconds in places and nanoseconds in places
        ]

    def value(self, payload: Payload) -> Value:
        """The structure after a message that fits."""
        reader = Reader(payload, self.big)
        reader.take(START)
        return read_changes(self.objects.kind, reader, self._known, self._layout.value)[1]

    def fields(self, payload: Payload) -> list[Chunk | None] | None:
        """The fields of the first level as they came, to be sent on; None if they cannot be."""
        if self._fields is None:
            return None
        made: list[Chunk | None] = []
        for constant, parts in self._fields:
            if parts:
                made.append(
                    [
                        bytes(payload[chunk][first:end])
                        if end - first < _SMALL
                        else memoryview(payload[chunk])[first:end]
                        for chunk, first, end in parts
                    ]
                )
            else:
                made.append(constant)
        return made

    def marked(self, payload: Payload) -> bool:
        """Whether it is an opening object."""
        if self._tag is None:
            return False
        chunk, at = self._tag
        return self._int.unpack_from(payload[chunk], at)[0] == MARK

    def time_ns(self, payload: Payload) -> int:
        """Time of the data, ns since 1970; 0 when unknown."""
        for (chunk, at), (of_rest, rest_at) in self._times:
            (seconds,) = self._long.unpack_from(payload[chunk], at)
            if seconds:
                (rest,) = self._int.unpack_from(payload[of_rest], rest_at)
                return seconds * _NANO + rest
        return 0

    def frame(self, obj: UpdateObject, payload: Payload) -> Frame:
        """The frame of a message that fits; its pixels are those of the message.

        Args:
            obj: the object, which must not be the one that keeps the frame.
            payload: of the message.
        """
        chunk, at = self._pixels
        stored = np.frombuffer(payload[chunk], self._stored, self._size, at)
        return Frame(
            obj.id or 0,
            plain_array(stored),
            self._shape,
            time_ns=self.time_ns(payload),
            dtype=self._dtype,
            codec=self._codec,
            color_mode=self._mode,
            attributes=lambda: attributes_of_value(obj.value),
            origin=Origin(obj),
        )


def _image_layout(
    objects: PutReader, layout: Layout, payload: Payload, big: bool, known: Incoming
) -> _ImageLayout | None:
    """The layout of an image, unless the message lacks a part of it."""
    array = cast("Selected", layout.value["value"]).value
    spans = dict(layout.spans)
    if _PIXELS not in spans or not isinstance(array, np.ndarray) or array.dtype == np.bool_:
        return None
    pixels = cast("Pixels", array)
    spans[_PIXELS] = spans[_PIXELS][1] - pixels.nbytes, spans[_PIXELS][1]
    places = {path: _place(payload, spans[path]) for path in _PLACES if path in spans}
    found = {path: place for path, place in places.items() if place is not None}
    # A time that the message does not have is that of another update.
    if _ID not in found or _PIXELS not in found or len(found) < len(places):
        return None
    if any(objects.kind.get(path.split(".")[0]) and path not in found for path in _PLACES):
        return None
    try:
        frame = frame_of_value(layout.value)
    except (ObjectError, TypeError, ValueError):
        # Of an attribute ColorMode that is an array, for instance.
        return None
    fields = None if big or layout.numbered else _fields(objects.kind, layout, payload)
    return _ImageLayout(objects, layout, big, known, frame, found, fields)


def _fields(kind: Structure, layout: Layout, payload: Payload) -> list[_Field] | None:
    """Where the fields of the first level are; None if only a part of one is in the message."""
    made: list[_Field] = []
    whole = layout.changed & 1
    for (name, inner), start in zip(kind.fields, kind.starts, strict=True):
        if whole or layout.changed >> start & 1:
            made.append(((), _parts(payload, layout.spans[name])))
        elif layout.changed >> start & ((1 << inner.count) - 1):
            return None
        else:
            made.append((chunk_of(inner, layout.value[name]), ()))
    return made


def _parts(payload: Payload, span: tuple[int, int]) -> tuple[tuple[int, int, int], ...]:
    """Chunk, first byte and end of each part of a span."""
    made: list[tuple[int, int, int]] = []
    at = 0
    for number, chunk in enumerate(payload):
        first, end = max(span[0] - at, 0), min(span[1] - at, len(chunk))
        if first < end:
            made.append((number, first, end))
        at += len(chunk)
    return tuple(made)


def _place(payload: Payload, span: tuple[int, int]) -> _Place | None:
    """Chunk and first byte of a span; None if it is not in one chunk."""
    first, end = span
    for number, chunk in enumerate(payload):
        if first < len(chunk):
            return (number, first) if end <= len(chunk) else None
        first, end = first - len(chunk), end - len(chunk)
    return None


class UpdateObject(ValueObject):
    """An image in the receive buffer; the other fields are read when they are needed."""

    __slots__ = ("_layout", "_payload")

    def __init__(self, layout: _ImageLayout, payload: Payload, number: int) -> None:
        # Sets all attributes of the base classes in one step: one is made for each message.
        self._frame = self._build = self._object = self._value = None
        self._marked = False
        self._reader = layout.objects
        self.id = number
        self._layout = layout
        self._payload = payload

    def _make_frame(self) -> Frame:
        return self._layout.frame(self._without_frame(), self._payload)

    def _without_frame(self) -> UpdateObject:
        made = UpdateObject(self._layout, self._payload, self.id or 0)
        made._marked = self._marked
        return made

    @property
    def value(self) -> Value:
        if self._value is None:
            self._value = self._layout.value(self._payload)
        return self._value

    @property
    def fields(self) -> list[Chunk | None] | None:
        """Fields of the first level, to be sent on unchanged; None if they cannot be."""
        return None if self._marked else self._layout.fields(self._payload)

    @property
    def layout(self) -> _ImageLayout | None:
        """The layout, which messages with the same fields share; None if they cannot be sent on."""
        layout = self._layout
        return layout if layout.can_be_passed and not self._marked else None

    @property
    def body(self) -> list[Buffer]:
        """The message from its bit set on."""
        first, *rest = self._payload
        return [first[START:], *rest]

    @property
    def kind(self) -> Structure:
        """Its type."""
        return self._layout.objects.kind

    def id_of(self, field: str) -> int | None:
        return self.id if field == "uniqueId" else super().id_of(field)

    @property
    def marked(self) -> bool:
        return self._marked or self._layout.marked(self._payload)

    @property
    def time_ns(self) -> int:
        return self._layout.time_ns(self._payload)
