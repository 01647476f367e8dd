"""The instrument of a file: links to the images, and the metadata of their series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from pvapy_stream.series import SERIES, SERIES_UNIQUE, SeriesField, SeriesMetadata, of_attributes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pvapy_stream.frame import Frame

_GROUP = "instrument"
_CLASSES = {_GROUP: "NXinstrument", "beam": "NXbeam", "detector": "NXdetector"}
_NO_FIELDS = ("data",)
_LARGE = 2**16  # bytes of an array that is compressed


class SeriesFinder:
    """Finds the metadata of the series of images. Not locked."""

    def __init__(self) -> None:
        self._key: tuple[object, object] | None = None
        self._found: SeriesMetadata | None = None

    def of(self, frame: Frame) -> SeriesMetadata | None:
        """What the transport of a frame gave, else what its attributes say; None for no series."""
        if frame.series is not None:
            return frame.series
        number = frame.attributes.get(SERIES)
        if not isinstance(number, (int, str)):
            return None
        key = number, str(frame.attributes.get(SERIES_UNIQUE, ""))
        if key != self._key:
            self._key, self._found = key, of_attributes(frame.attributes)
        return self._found


def make_detector(entry: Any) -> Any:
    """The group of the instrument, with a detector that has the images."""
    instrument = _group(entry, _GROUP)
    detector = _group(instrument, "detector")
    if detector.get("data", getlink=True) is None:
        detector["data"] = h5py.SoftLink(f"{entry.name}/data/data")
    return instrument


def write_series(entry: Any, series: SeriesMetadata) -> None:
    """Write the metadata of a series."""
    instrument = make_detector(entry)
    for path, field in series.fields.items():
        name, _, key = path.partition("/")
        value = np.asarray(field.value) if not isinstance(field.value, str) else field.value
        large = isinstance(value, np.ndarray) and value.nbytes > _LARGE
        options: dict[str, object] = {"compression": "gzip", "compression_opts": 1} if large else {}
        made = _group(instrument, name).create_dataset(key, data=value, **options)
        if field.units:
            made.attrs["units"] = field.units


def read_series(entry: Any) -> SeriesMetadata | None:
    """The metadata that `write_series` wrote; None if there are none."""
    fields: dict[str, SeriesField] = {}
    for name in ("beam", "detector"):
        for key, data in entry.get(f"{_GROUP}/{name}", {}).items():
            if key in _NO_FIELDS or not isinstance(data, h5py.Dataset):
                continue
            text = h5py.check_string_dtype(data.dtype) is not None
            value = data.asstr()[()] if text else data[()]
            fields[f"{name}/{key}"] = SeriesField(value, str(data.attrs.get("units", "")))
    return SeriesMetadata(fields) if fields else None


def common(all_series: Iterable[SeriesMetadata | None]) -> SeriesMetadata | None:
    """The fields that all of several have, with the same values; None if there are none."""
    first, *others = all_series
    if first is None:
        return None
    fields = {
        path: field
        for path, field in first.fields.items()
        if all(one is not None and field.same(one.fields.get(path)) for one in others)
    }
    return SeriesMetadata(fields) if fields else None


def _group(parent: Any, name: str) -> Any:
    group = parent.require_group(name)
    group.attrs["NX_class"] = _CLASSES[name]
    return group
