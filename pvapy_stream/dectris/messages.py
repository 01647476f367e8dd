"""The three messages of Stream V2: start, image and end of a series."""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pvapy_stream.dectris.cbor import decode, tag_of
from pvapy_stream.errors import DectrisError
from pvapy_stream.series import SERIES, SERIES_UNIQUE

_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))"
)
_NANO = 1_000_000_000
_LARGEST = 2**63 - 1
_LONGEST_TEXT = 1000  # characters of a text that is kept
_MOST_CHANNELS = 64
_PIXELS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
_WIDEST = 2**14  # pixels

# Attributes that are made of values of the start message, by their keys there.
_SCALARS = {
    "IncidentEnergy": "incident_energy",
    "IncidentWavelength": "incident_wavelength",
    "CountTime": "count_time",
    "FrameTime": "frame_time",
    "BeamCenterX": "beam_center_x",
    "BeamCenterY": "beam_center_y",
    "PixelSizeX": "pixel_size_x",
    "PixelSizeY": "pixel_size_y",
    "SaturationValue": "saturation_value",
    "SensorMaterial": "sensor_material",
    "SensorThickness": "sensor_thickness",
    "DetectorDescription": "detector_description",
    "DetectorSerialNumber": "detector_serial_number",
}


@dataclass(frozen=True, slots=True)
class SeriesName:
    """What names a series.

    Attributes:
        number: series id; it may begin again when the detector restarts.
        unique: unique id; "" if the detector gives none.
    """

    number: int
    unique: str = ""

    def __str__(self) -> str:
        return f"series {self.number}"


@dataclass(frozen=True, slots=True)
class Start:
    """The beginning of a series.

    Attributes:
        series: the series.
        n_images: number of images; None if it is not given.
        channels: names of its channels (thresholds), in their order.
        attributes: values that are the same for all images.
        energies: energies of the thresholds by channel, eV.
        shape: (ny, nx) of its images; None if it is not given.
        dtype: type of their pixels; "" if it is not given.
        masks: pixel masks by channel, not read yet.
        mask_applied: whether the detector applied them; None if it is not given.
    """

    series: SeriesName
    n_images: int | None
    channels: tuple[str, ...]
    attributes: Mapping[str, object]
    energies: Mapping[str, float]
    shape: tuple[int, int] | None = None
    dtype: str = ""
    masks: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    mask_applied: bool | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """One exposure.

    Attributes:
        series: the series.
        number: image id, from 0 on.
        data: images by channel, not read yet.
        time_ns: time of its beginning, ns since 1970-01-01 UTC; 0 if unknown.
        attributes: its values.
    """

    series: SeriesName
    number: int
    data: Mapping[str, Any] = field(repr=False)
    time_ns: int
    attributes: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class End:
    """The end of a series."""

    series: SeriesName


Message = Start | Image | End


def read_message(message: bytes) -> Message:
    """Read a message.

    Raises:
        DectrisError: it is malformed.
    """
    content = decode(message)
    if not isinstance(content, Mapping):
        raise DectrisError(f"the message is no map, but {type(content).__name__}")
    kind = content.get("type")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise DectrisError(f"the message has the unknown type {str(kind)[:40]!r}")
    return read(content)


def _start(content: Mapping[Any, Any]) -> Start:
    channels = content.get("channels", ())
    if (
        not isinstance(channels, (list, tuple))
        or len(channels) > _MOST_CHANNELS
        or not all(isinstance(name, str) for name in channels)
    ):
        raise DectrisError("the start message has no list of channels")
    n_images = None
    if "number_of_images" in content:
        n_images = _whole(content, "number_of_images")
    attributes = {
        name: value for name, key in _SCALARS.items() if (value := _plain(content.get(key))) != ""
    }
    moved = content.get("detector_translation")
    if isinstance(moved, (list, tuple)) and len(moved) == 3 and _is_number(moved[2]):
        attributes["DetectorDistance"] = float(moved[2])
    if n_images is not None:
        attributes["NumberOfImages"] = n_images
    energies = content.get("threshold_energy")
    found = energies.items() if isinstance(energies, Mapping) else ()
    return Start(
        _series(content),
        n_images,
        tuple(channels),
        attributes,
        {name: float(value) for name, value in found if _is_number(value)},
        _shape(content),
        kind if isinstance(kind := content.get("image_dtype"), str) and kind in _PIXELS else "",
        masks if isinstance(masks := content.get("pixel_mask"), Mapping) else {},
        applied if isinstance(applied := content.get("pixel_mask_enabled"), bool) else None,
    )


def _shape(content: Mapping[Any, Any]) -> tuple[int, int] | None:
    ny, nx = content.get("image_size_y"), content.get("image_size_x")
    if type(ny) is not int or type(nx) is not int:
        return None
    # What images have is read with them; this is only shown before they come.
    return (ny, nx) if 0 < ny <= _WIDEST and 0 < nx <= _WIDEST else None


def _image(content: Mapping[Any, Any]) -> Image:
    data = content.get("data")
    if not isinstance(data, Mapping) or not all(isinstance(name, str) for name in data):
        raise DectrisError("the image message has no data by channel")
    series, number = _series(content), _whole(content, "image_id")
    attributes: dict[str, object] = {SERIES: series.number, "ImageId": number}
    if series.unique:
        attributes[SERIES_UNIQUE] = series.unique
    for name, key in (
        ("StartTime", "start_time"),
        ("StopTime", "stop_time"),
        ("RealTime", "real_time"),
    ):
        if (ratio := _ratio(content.get(key))) is not None:
            attributes[name] = ratio[0] / ratio[1]
    return Image(series, number, data, _time_of(content), attributes)


def _end(content: Mapping[Any, Any]) -> End:
    return End(_series(content))


_READERS = {"start": _start, "image": _image, "end": _end}


def _series(content: Mapping[Any, Any]) -> SeriesName:
    unique = content.get("series_unique_id", "")
    if not isinstance(unique, str):
        raise DectrisError("series_unique_id is no text")
    return SeriesName(_whole(content, "series_id"), unique[:_LONGEST_TEXT])


def _whole(content: Mapping[Any, Any], key: str) -> int:
    value = content.get(key)
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise DectrisError(f"{key} is {str(value)[:40]}, and no whole number from 0 on")
    return value


def _is_number(value: object) -> bool:
    if type(value) is int:
        return abs(value) <= _LARGEST
    return type(value) is float


def _plain(value: object) -> object:
    """A number or a text that is an attribute; "" for other values."""
    if isinstance(value, str):
        return value[:_LONGEST_TEXT]
    return value if _is_number(value) else ""


def _ratio(value: object) -> tuple[int, int] | None:
    """Numerator and denominator of a time in s."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    above, below = value
    if type(above) is not int or type(below) is not int or below <= 0:
        return None
    return (above, below) if 0 <= above <= _LARGEST and below <= _LARGEST else None


def _time_of(content: Mapping[Any, Any]) -> int:
    tag, text = tag_of(content.get("series_date"))
    start = date_ns(text) if tag in (-1, 0) and isinstance(text, str) else 0
    ratio = _ratio(content.get("start_time"))
    if not start:
        return 0
    time_ns = start + (ratio[0] * _NANO // ratio[1] if ratio else 0)
    return time_ns if time_ns <= _LARGEST else 0


def date_ns(text: str) -> int:
    """A date of RFC 3339, ns since 1970-01-01 UTC; 0 if it is none."""
    found = _DATE.fullmatch(text)
    if not found:
        return 0
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    if not (1970 <= year < 2262 and 1 <= month <= 12 and 1 <= day <= 31):
        return 0
    if hour > 23 or minute > 59 or second > 60:
        return 0
    seconds = timegm((year, month, day, hour, minute, second))
    if found[9]:
        shift = int(found[10]) * 3600 + int(found[11]) * 60
        seconds -= shift if found[9] == "+" else -shift
    return max(0, seconds * _NANO + int((found[7] or "")[:9].ljust(9, "0")))
