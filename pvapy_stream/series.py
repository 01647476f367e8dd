"""What is the same for all images of a series, such as the distance of a detector, as NeXus has it.

Sources of series say it with the attributes of each image, which all transports carry. A transport
that knows more than attributes can say, such as a pixel mask, gives it with its frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec import Struct

SERIES = "SeriesId"
SERIES_UNIQUE = "SeriesUniqueId"

PIXEL_MASK = "detector/pixel_mask"
PIXEL_MASK_APPLIED = "detector/pixel_mask_applied"

# Path below the instrument, and units, of what an attribute says.
_FIELDS = {
    "IncidentEnergy": ("beam/incident_energy", "eV"),
    "IncidentWavelength": ("beam/incident_wavelength", "angstrom"),
    "BeamCenterX": ("detector/beam_center_x", "pixel"),
    "BeamCenterY": ("detector/beam_center_y", "pixel"),
    "PixelSizeX": ("detector/x_pixel_size", "m"),
    "PixelSizeY": ("detector/y_pixel_size", "m"),
    "DetectorDistance": ("detector/distance", "m"),
    "CountTime": ("detector/count_time", "s"),
    "FrameTime": ("detector/frame_time", "s"),
    "SaturationValue": ("detector/saturation_value", ""),
    "SensorMaterial": ("detector/sensor_material", ""),
    "SensorThickness": ("detector/sensor_thickness", "m"),
    "ThresholdEnergy": ("detector/threshold_energy", "eV"),
    "DetectorDescription": ("detector/description", ""),
    "DetectorSerialNumber": ("detector/serial_number", ""),
}


class SeriesField(Struct, frozen=True, eq=False):
    """One value.

    Attributes:
        value: number, text or array.
        units: its units; "" for none.
    """

    value: Any
    units: str = ""

    def same(self, other: SeriesField | None) -> bool:
        """Whether another one says the same."""
        if other is None or self.units != other.units:
            return False
        mine, its = np.asarray(self.value), np.asarray(other.value)
        if "U" in (mine.dtype.kind, its.dtype.kind):
            return bool(mine.shape == its.shape and np.all(mine == its))
        return np.array_equal(mine, its, equal_nan=True)


class SeriesMetadata(Struct, frozen=True, eq=False):
    """Values that all images of a series have.

    Attributes:
        fields: by their path below the instrument, ``detector/distance``.
    """

    fields: Mapping[str, SeriesField]


def of_attributes(
    attributes: Mapping[str, object], more: Mapping[str, SeriesField] | None = None
) -> SeriesMetadata | None:
    """What the attributes of an image say of its series; None if they say nothing.

    Args:
        attributes: of the image.
        more: fields that no attribute has.
    """
    fields = dict(more or {})
    for name, (path, units) in _FIELDS.items():
        value = attributes.get(name)
        if isinstance(value, str):
            # HDF5 has no texts with these.
            value = value.encode(errors="replace").decode().replace("\0", "")
        elif not isinstance(value, (int, float, np.number)):
            continue
        elif name == "DetectorDistance":
            # Along the beam, which some detectors count backwards.
            value = abs(value)
        fields[path] = SeriesField(value, units)
    return SeriesMetadata(fields) if fields else None


def changes(one: SeriesMetadata | None, other: SeriesMetadata | None) -> list[str]:
    """Names of the fields in which two series differ."""
    if one is other:
        return []
    mine = one.fields if one is not None else {}
    its = other.fields if other is not None else {}
    return [
        path.rpartition("/")[2]
        for path in sorted({*mine, *its})
        if path not in mine or not mine[path].same(its.get(path))
    ]
