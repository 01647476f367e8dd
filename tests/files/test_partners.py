"""Files that programs of others validate and open: what each kind of file holds is in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.bsread.codec import ChannelHeader
from pvapy_stream.daq.nexus_file import NexusMessages
from pvapy_stream.files.master import make_master
from pvapy_stream.files.nexus import FrameWriter
from pvapy_stream.files.repair import repair
from pvapy_stream.frame import Frame
from pvapy_stream.series import PIXEL_MASK, PIXEL_MASK_APPLIED, SeriesField, of_attributes
from pvapy_stream.settings import FileSettings
from pvapy_stream.sim.dectris_detector import mask_of
from tests.bsread.messages import Stream, camera, scalars
from tests.files.partners import Partners, partners  # noqa: F401 - a fixture
from tests.files.support import frame, pixels, write, writer

# The first one installs them.
pytestmark = [pytest.mark.foreign, pytest.mark.timeout(1500)]


def _plain(folder: Path) -> Path:
    return write(folder / "a.h5", range(1, 6))


def _with_a_ledger(folder: Path) -> Path:
    ledger = Ledger("consumer")
    ledger.received.add_range(1, 5)
    ledger.missed.add_range(6, 9)
    ledger.rejected["queue full"] = ledger.missed.copy()
    return write(folder / "a.h5", range(1, 6), ledger, dataset_name="images")


def _odd_attributes(folder: Path) -> Path:
    made = writer(folder / "a.h5", compression="bslz4")
    for number in range(1, 6):
        late = {"late": number} if number > 3 else {}
        odd: dict[str, Any] = {"sample name": "é", "9lives": True, "log": 1, "A:B/C": [1.0, 2.0]}
        made.write(frame(number, **odd, **late))
    made.close()
    return folder / "a.h5"


def _of_area_detector(folder: Path) -> Path:
    settings = FileSettings.of(output=str(folder / "a.h5"))
    with FrameWriter(settings, area_detector=True) as made:
        for number in range(1, 6):
            made.write(frame(number))
    return folder / "a.h5"


def _of_a_series(folder: Path) -> Path:
    # As a detector says it, and as that of DECTRIS is simulated.
    values = {
        "IncidentEnergy": 12_400.0, "IncidentWavelength": 1.0, "BeamCenterX": 3.0,
        "BeamCenterY": 4.0, "PixelSizeX": 75e-6, "PixelSizeY": 75e-6, "DetectorDistance": 0.2,
        "CountTime": 0.01, "FrameTime": 0.01, "SaturationValue": 2**32 - 2, "SensorMaterial": "Si",
        "SensorThickness": 450e-6, "ThresholdEnergy": 6200.0, "DetectorDescription": "detector",
        "DetectorSerialNumber": "SIM-1",
    }  # fmt: skip
    mask = {PIXEL_MASK: SeriesField(mask_of(1, (8, 6))), PIXEL_MASK_APPLIED: SeriesField(False)}
    series = of_attributes(values, mask)
    with writer(folder / "a.h5") as made:
        for number in range(1, 6):
            image = pixels(number)
            made.write(
                Frame(number, image.reshape(-1), image.shape, attributes=values, series=series)
            )
    return folder / "a.h5"


def _continued(folder: Path) -> Path:
    made = writer(folder / "a.h5")
    made.write(frame(0, (4, 4)))
    for number in range(1, 6):
        made.write(frame(number))
    made.close()
    with h5py.File(folder / "a.h5") as before:
        assert "continued" in before["entry"]
    return folder / "a.2.h5"


def _recovered(folder: Path) -> Path:
    made = writer(folder / "a.h5")
    for number in range(1, 6):
        made.write(frame(number))
    made.flush()
    # What is on disk is what a killed writer leaves.
    (folder / "b.h5.part").write_bytes((folder / "a.h5.part").read_bytes())
    made.close()
    return repair(folder / "b.h5.part")[0]


def _messages(folder: Path) -> Path:
    stream = Stream(*scalars("A:B"), ChannelHeader("TEXT", "string"), camera(shape=(6, 8)))
    general = {"user": "me", "instrument": "beamline"}
    made = NexusMessages(folder / "a.h5", general, {"user_id": 1})
    for number in range(1, 6):
        made.add(stream.message(number, {"A:B": 0.5, "TEXT": "é", "CAM": pixels(number)}))
    made.close()
    return folder / "a.h5"


KINDS: list[Callable[[Path], Path]] = [
    _plain, _with_a_ledger, _odd_attributes, _of_area_detector, _of_a_series, _continued,
    _recovered, _messages,
]  # fmt: skip
NUMBERS = list(range(1, 6))


def _check(
    partners: Partners,  # noqa: F811
    path: Path,
    shape: tuple[int, ...] = (8, 6),
    dtype: str = "u2",
) -> None:
    """Validate a file, and compare what readers find to plot with the pixels of the frames."""
    assert partners.validate(path) > 50
    found = partners.plot(path)
    assert found["path"] == "/entry/data/data"
    assert found["shape"] == [5, *shape]
    axes = zip(("id", "y", "x", "colour"), (NUMBERS, *map(range, shape)), strict=False)
    assert found["axes"] == {name: list(values) for name, values in axes}
    assert found["pixels"] == [pixels(number, shape, dtype).tolist() for number in NUMBERS]
    _for_h5web(path)


def _for_h5web(path: Path) -> None:
    """Check what h5web goes by: the way to the data, and a field for each dimension."""
    with h5py.File(path) as file:
        entry = file[file.attrs["default"]]
        data = entry[entry.attrs["default"]]
        signal = data[data.attrs["signal"]]
        assert [one.attrs["NX_class"] for one in (entry, data)] == ["NXentry", "NXdata"]
        assert signal.attrs["interpretation"] == ("image" if signal.ndim == 3 else "rgb-image")
        axes = list(data.attrs["axes"])
        assert len(axes) == signal.ndim
        for number, name in enumerate(axes):
            assert data[name].shape == (signal.shape[number],)
            assert data.attrs[f"{name}_indices"] == number


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__.strip("_"))
def test_punx_validates_and_nexusformat_opens(
    partners: Partners,  # noqa: F811
    tmp_path: Path,
    make: Callable[[Path], Path],
) -> None:
    _check(partners, make(tmp_path))


def test_a_file_of_colour_images(partners: Partners, tmp_path: Path) -> None:  # noqa: F811
    with writer(tmp_path / "a.h5") as made:
        for number in NUMBERS:
            made.write(Frame.of(number, pixels(number, (8, 6, 3), "u1")))
    _check(partners, tmp_path / "a.h5", (8, 6, 3), "u1")


def test_a_master(partners: Partners, tmp_path: Path) -> None:  # noqa: F811
    files = [write(tmp_path / f"{k}.h5", NUMBERS[k::2]) for k in range(2)]
    make_master(files, tmp_path / "all.h5")
    assert partners.validate(tmp_path / "all.h5") > 50
    # nexusformat takes the number of files for the number of images.
    found = partners.plot(tmp_path / "all.h5")
    assert found["path"] == "/entry/data/data"
    assert found["axes"]["id"] == NUMBERS
    _for_h5web(tmp_path / "all.h5")
