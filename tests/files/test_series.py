"""Metadata of series in files: one set for each file, in masters and in recovered files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pvapy_stream.files.completeness import verify
from pvapy_stream.files.instrument import read_series
from pvapy_stream.files.master import make_master
from pvapy_stream.files.nexus import FrameWriter
from pvapy_stream.files.repair import repair
from pvapy_stream.frame import Frame
from pvapy_stream.series import PIXEL_MASK, SeriesField, SeriesMetadata
from pvapy_stream.settings import FileSettings
from tests.files.support import pixels

MASK = np.arange(48, dtype=np.uint32).reshape(8, 6)


def given(distance: float) -> SeriesMetadata:
    """What a transport gives."""
    fields = {
        "detector/distance": SeriesField(distance, "m"),
        "beam/incident_energy": SeriesField(1e4, "eV"),
    }
    return SeriesMetadata({**fields, PIXEL_MASK: SeriesField(MASK)})


def of_series(number: int, series: int, **attributes: object) -> Frame:
    """An image whose attributes tell its series."""
    return Frame.of(number, pixels(number), attributes={"SeriesId": series, **attributes})


def of_transport(number: int, series: SeriesMetadata | None) -> Frame:
    image = pixels(number)
    return Frame(number, image.reshape(-1), image.shape, series=series)


def write_all(path: Path, frames: list[Frame]) -> list[Path]:
    with FrameWriter(FileSettings.of(output=str(path))) as made:
        for frame in frames:
            made.write(frame)
    return made.files


def found(path: Path) -> tuple[list[int], dict[str, object]]:
    """Ids, whose pixels are checked, and the metadata."""
    with h5py.File(path) as file:
        ids = file["entry/data/id"][()].tolist()
        for image, number in zip(file["entry/data/data"], ids, strict=True):
            assert np.array_equal(image, pixels(number))
        series = read_series(file["entry"])
        fields = series.fields if series is not None else {}
        return ids, {path: (field.value, field.units) for path, field in fields.items()}


def test_a_series_with_other_attributes_begins_a_new_file(tmp_path: Path) -> None:
    frames = [
        of_series(1, 1, DetectorDistance=-0.2, SensorMaterial="Si\0"),
        # A value that changes within a series is one of its images.
        of_series(2, 1, DetectorDistance=-0.3, SensorMaterial="Si"),
        of_series(3, 2, DetectorDistance=-0.2, SensorMaterial="Si"),
        of_series(4, 3, DetectorDistance=0.5, SensorMaterial="Si"),
        of_series(5, 4),
    ]
    first, second, third = write_all(tmp_path / "a.h5", frames)
    material = {"detector/sensor_material": ("Si", "")}
    assert found(first) == ([1, 2, 3], {"detector/distance": (0.2, "m"), **material})
    assert found(second) == ([4], {"detector/distance": (0.5, "m"), **material})
    assert found(third) == ([5], {})
    assert all(verify(path).ok for path in (first, second, third))


def test_equal_metadata_stay_in_one_file_also_without_a_number(tmp_path: Path) -> None:
    frames = [of_series(number, number, CountTime=float("nan")) for number in range(1, 5)]
    (path,) = write_all(tmp_path / "a.h5", frames)
    ids, fields = found(path)
    assert ids == [1, 2, 3, 4]
    assert np.isnan(fields["detector/count_time"][0])  # type: ignore[index]


def test_attributes_of_images_without_a_series_are_only_columns(tmp_path: Path) -> None:
    frames = [
        Frame.of(number, pixels(number), attributes={"IncidentEnergy": number / 2})
        for number in range(1, 4)
    ]
    (path,) = write_all(tmp_path / "a.h5", frames)
    assert found(path) == ([1, 2, 3], {})


def test_a_master_has_what_all_files_have(tmp_path: Path) -> None:
    frames = [of_transport(1, given(0.1)), of_transport(2, given(0.2))]
    files = write_all(tmp_path / "a.h5", frames)
    make_master(files, tmp_path / "all.h5")
    ids, fields = found(tmp_path / "all.h5")
    assert ids == [1, 2]
    assert fields.keys() == {"beam/incident_energy", PIXEL_MASK}
    assert np.array_equal(fields[PIXEL_MASK][0], MASK)  # type: ignore[index]


@pytest.mark.parametrize("cut", [False, True])
def test_a_recovered_file_has_them(tmp_path: Path, cut: bool) -> None:
    made = FrameWriter(FileSettings.of(output=str(tmp_path / "a.h5")))
    for number in range(1, 101):
        made.write(of_transport(number, given(0.1)))
        if number == 50:
            made.flush()
            size = (tmp_path / "a.h5.part").stat().st_size
    made.flush()
    whole = (tmp_path / "a.h5.part").read_bytes()
    (tmp_path / "b.h5.part").write_bytes(whole[: size + 3000] if cut else whole)
    made.close()
    path, count = repair(tmp_path / "b.h5.part")
    ids, fields = found(path)
    assert ids[:50] == list(range(1, 51))
    assert len(ids) == count
    assert (count == 100) is not cut
    assert fields.pop("detector/distance") == (0.1, "m")
    assert np.array_equal(fields[PIXEL_MASK][0], MASK)  # type: ignore[index]


def test_metadata_that_are_equal_are_compared_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[SeriesField] = []
    same = SeriesField.same

    def counted(self: SeriesField, other: SeriesField | None) -> bool:
        compared.append(self)
        return same(self, other)

    monkeypatch.setattr(SeriesField, "same", counted)
    first, second = given(0.2), given(0.2)
    frames = [of_transport(n, first) for n in range(1, 11)]
    frames += [of_transport(n, second) for n in range(11, 21)]
    [path] = write_all(tmp_path / "a.h5", frames)
    assert found(path)[0] == [*range(1, 21)]
    # Not for each image of the second series: a pixel mask has millions of values.
    assert len(compared) == len(first.fields)
