"""Encodes frames as the images of PVAccess messages, without a PvObject for each."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, cast

import numpy as np
import pvaccess as pva

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import AttributeValue, Frame, Pixels
from pvapy_stream.pva.convert import Value, type_of, wire_type
from pvapy_stream.pva.lazy import LazyObject, StreamObject
from pvapy_stream.pva.net.encoded_updates import Chunk, chunk_of
from pvapy_stream.pva.ntndarray import attribute_key, attribute_value, field_of, scalar_of
from pvapy_stream.pva.put_objects import Origin
from pvapy_stream.pva.steady import steady_payload
from pvapy_stream.pva.wire.buffers import Buffer, Writer
from pvapy_stream.pva.wire.changes import write_bits
from pvapy_stream.pva.wire.types import (
    AnyValue,
    Array,
    ArrayOf,
    Kind,
    Scalar,
    Structure,
    Union,
    default,
)

_NANO = 1_000_000_000
_pack_time = struct.Struct("<qi").pack
_pack_id = struct.Struct("<i").pack
_pack_size = struct.Struct("<q").pack
_unpack_size = struct.Struct("<q").unpack
# What follows the pixels of an image of the same template: compressedSize, uniqueId, dataTimeStamp
# and timeStamp; and where these fields are in it.
_pack_rest = struct.Struct("<qiqi4sqi4s").pack
_RESTS = slice(0, 8), slice(8, 12), slice(12, 28), slice(28, 44)
_TAG = slice(12, 16)  # of a time stamp as it is sent: its userTag
_LAYOUTS = 64  # that are kept
_BYTES = np.dtype(np.uint8)


@lru_cache(maxsize=1)
def image_kind() -> Structure:
    """The type of images: NTNDArray."""
    return type_of(pva.NtNdArray())


def origin_of(obj: LazyObject) -> Any:
    """The object that a frame was made from, if only the pixels of the frame differ from it.

    None if there is no such object.
    """
    if type(obj) is not LazyObject or obj.id is None or obj.marked:
        return None
    frame = obj.frame
    if frame.origin is None or frame.attributes_changed:
        return None
    return frame.origin.owner if isinstance(frame.origin, Origin) else frame.origin


class ImageEncoder:
    """Encodes images: the fields of a template, with a few of them replaced.

    Args:
        kind: `image_kind`.
        whole: gives the fields of a PvObject.

    Attributes:
        templates: number of templates so far.
        changing: bit set of the fields in which images of one template differ.
    """

    def __init__(
        self, kind: Structure, whole: Callable[[StreamObject], list[Chunk | None]]
    ) -> None:
        self._whole = whole
        names = [name for name, _ in kind.fields]
        self._value, self._size, self._id, self._attribute = map(
            names.index, ("value", "compressedSize", "uniqueId", "attribute")
        )
        self._times = [names.index(name) for name in ("dataTimeStamp", "timeStamp")]
        self._choices = [name for name, _ in cast("Union", kind.get("value")).choices]
        self._attributes = cast("ArrayOf", kind.get("attribute"))
        self._layouts: dict[tuple[object, ...], dict[int, Chunk]] = {}
        self.templates = 0
        places = (self._value, self._size, self._id, *self._times)
        self.changing = sum(1 << kind.starts[place] for place in places)
        self._bits, self._no_bits = _bit_set(self.changing), _bit_set(0)
        self._layout: tuple[object, ...] | None = None
        self._key: tuple[object, ...] = ()
        self._template: list[Chunk | None] = []
        self._tags: tuple[bytes, bytes] = b"", b""
        self._plain_size = 0  # `compressedSize` without a codec
        self._heads: dict[tuple[np.dtype[np.generic], int], bytes] = {}

    def image(self, obj: LazyObject) -> EncodedImage:
        """An image as it is sent.

        Raises:
            ObjectError: a pixel type or an id that NTNDArray does not have.
        """
        frame = obj.frame
        self._prepare(obj, frame)
        payload = steady_payload(frame)
        stamp = divmod(frame.time_ns or time.time_ns(), _NANO)
        stamp_ns = obj.stamp_ns
        record = divmod(stamp_ns, _NANO) if stamp_ns else stamp
        data, stamped = self._tags
        size = payload.nbytes if frame.codec else self._plain_size
        try:
            rest = _pack_rest(size, frame.id, *stamp, data, *record, stamped)
        except struct.error as error:
            raise _unfit_id(frame.id) from error
        return EncodedImage(self, self._template, self._pixels(payload), rest)

    def fields_of(
        self, template: list[Chunk | None], pixels: Chunk, rest: bytes
    ) -> list[Chunk | None]:
        """The fields of an image."""
        made = template.copy()
        made[self._value] = pixels
        for place, part in zip((self._size, self._id, *self._times), _RESTS, strict=True):
            made[place] = [rest[part]]
        return made

    def derived(self, frame: Frame, fields: list[Chunk | None]) -> list[Chunk | None]:
        """The fields of an image that was made from that of another object.

        Args:
            frame: the image.
            fields: those of that object.
        """
        made = fields.copy()
        payload = self._set_pixels(frame, made)
        if frame.layout_changed:
            self._set_layout(frame, payload.nbytes, made)
        if frame.time_changed or not frame.time_ns:
            packed = _pack_time(*divmod(frame.time_ns or time.time_ns(), _NANO))
            for place in self._times:
                made[place] = [packed + b"".join(made[place] or ())[_TAG]]
        return made

    def _set_pixels(self, frame: Frame, made: list[Chunk | None]) -> Pixels:
        payload = steady_payload(frame)
        made[self._value] = self._pixels(payload)
        try:
            made[self._id] = [_pack_id(frame.id)]
        except struct.error as error:
            raise _unfit_id(frame.id) from error
        return payload

    def _set_layout(self, frame: Frame, nbytes: int, made: list[Chunk | None]) -> None:
        key = frame.stored_shape, frame.dtype, frame.codec
        if key not in self._layouts:
            if len(self._layouts) > _LAYOUTS:
                self._layouts.clear()
            self._layouts[key] = self._layout_chunks(frame)
        for place, chunk in self._layouts[key].items():
            made[place] = chunk
        made[self._size] = [_pack_size(nbytes)]

    def _layout_chunks(self, frame: Frame) -> dict[int, Chunk]:
        """Fields that say how the pixels are stored, by their numbers."""
        fields = layout_fields(frame)
        kind = image_kind()
        return {
            number: chunk_of(inner, fields[name])
            for number, (name, inner) in enumerate(kind.fields)
            if name in fields
        }

    def _prepare(self, obj: LazyObject, frame: Frame) -> None:
        """Make a new template if layout or attributes differ from those of the image before."""
        layout = (
            frame.stored_shape, frame.dtype, frame.payload.dtype, frame.codec, frame.color_mode,
        )  # fmt: skip
        attributes = frame.attributes
        key = attribute_key(frame) if attributes or type(attributes) is not dict else ()
        if layout == self._layout and key == self._key:
            return
        if layout == self._layout and not hasattr(frame.attributes, "apply_to"):
            values = {**frame.attributes, "ColorMode": int(frame.color_mode)}
            self._template = self._template.copy()
            self._template[self._attribute] = chunk_of(self._attributes, _attributes(values))
        else:
            self._template = self._whole(obj.pv_object())
            data, stamped = (b"".join(self._template[n] or ())[_TAG] for n in self._times)
            self._tags = data, stamped
            (self._plain_size,) = _unpack_size(b"".join(self._template[self._size] or ()))
        self._layout, self._key = layout, key
        self.templates += 1

    def body_of(self, pixels: Chunk, rest: bytes) -> list[Buffer]:
        """The message of an image, from its bit set on."""
        head, *data = pixels
        return [self._bits + head, *data, rest + self._no_bits]

    def _pixels(self, payload: Pixels) -> Chunk:
        key = payload.dtype, payload.size
        head = self._heads.get(key)
        if head is None:
            writer = Writer()
            writer.size(self._choices.index(field_of(payload.dtype)))
            writer.size(payload.size)
            if len(self._heads) > _LAYOUTS:
                # Compressed images have many sizes.
                self._heads.clear()
            head = self._heads[key] = writer.joined()
        if not payload.size:
            return [head]
        return [head, (payload if payload.dtype == _BYTES else payload.view(np.uint8)).data]


class EncodedImage:
    """An image that differs from its template only in the fields that change with each image.

    Args:
        encoder: the encoder that made it.
        template: the other fields.
        pixels: the field with the pixels.
        rest: the other fields that change, as they are sent.
    """

    __slots__ = ("_encoder", "_pixels", "_rest", "_template")

    def __init__(
        self, encoder: ImageEncoder, template: list[Chunk | None], pixels: Chunk, rest: bytes
    ) -> None:
        self._encoder = encoder
        self._template = template
        self._pixels = pixels
        self._rest = rest

    @property
    def body(self) -> list[Buffer]:
        """The message from its bit set on, that of the fields that change."""
        return self._encoder.body_of(self._pixels, self._rest)

    @property
    def fields(self) -> list[Chunk | None]:
        """The fields of the first level."""
        return self._encoder.fields_of(self._template, self._pixels, self._rest)


def _unfit_id(number: int) -> ObjectError:
    return ObjectError(f"id {number} does not fit the 32 bits of uniqueId")


def _bit_set(bits: int) -> bytes:
    writer = Writer()
    write_bits(bits, writer)
    return writer.joined()


def layout_fields(frame: Frame) -> dict[str, object]:
    """Fields of an NTNDArray that say how pixels are stored, as values."""
    kind = scalar_of(frame.dtype) if frame.codec else 0
    parameters = AnyValue(Scalar(Kind.INT), kind)
    return {
        "codec": {"name": frame.codec, "parameters": parameters},
        "uncompressedSize": frame.nbytes,
        "dimension": [
            {"size": size, "offset": 0, "fullSize": size, "binning": 1, "reverse": False}
            for size in reversed(frame.stored_shape)
        ],
    }


def _attributes(values: Mapping[str, AttributeValue]) -> list[Value]:
    blank = cast("Value", default(cast("ArrayOf", image_kind().get("attribute")).element))
    return [{**blank, "name": name, "value": _any(value)} for name, value in values.items()]


def _any(value: object) -> AnyValue:
    binding, plain = attribute_value(value)
    kind = wire_type(binding)
    if isinstance(kind, Array) and kind.kind is Kind.STRING:
        plain = plain.tolist()
    return AnyValue(kind, plain)
