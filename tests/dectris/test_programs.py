"""A detector, and the programs that receive from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - reads the chunks
import numpy as np
import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.files.completeness import verify
from pvapy_stream.sim.dectris_detector import mask_of, pixels_of
from tests.ports import free_port
from tests.support import Commands, rounds, wait_for_monitors, wait_until

LIKE = np.zeros((64, 96), np.uint32)


def detector(commands: Commands, address: str, *more: object) -> Any:
    return commands("dectris-sim", "-a", address, "-nx", 96, "-ny", 64, *more)


def pixels_are_those_of(file: Path, rows: list[tuple[int, int]]) -> None:
    with h5py.File(file) as found:
        images = found["entry/data/data"]
        assert len(images) == len(rows)
        for image, (series, number) in zip(images, rows, strict=True):
            assert np.array_equal(image, pixels_of(series, number, 1, LIKE))


def test_a_consumer_processes_each_image_and_names_what_is_missing(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    ledger = tmp_path / "ledger.json"
    consumer = commands(
        "consumer", "-ic", address, "-im", "dectris", "--ledger", ledger,
        "--status-channel", f"{prefix}status", "--control-channel", f"{prefix}control",
    )  # fmt: skip
    sim = detector(commands, address, "-n", 50, "--n-series", 2, "--omit-last", 3, "-fps", 200)
    assert sim.wait() == 0
    wait_until(lambda: "series 2: 3 of 50 images did not come" in consumer.text)
    consumer.signal()
    assert consumer.wait() == 1
    assert re.search("series 1: 3 of 50 images did not come: image ids 47-49", consumer.text)
    (found,) = read_ledgers(ledger)
    assert str(found.processed) == "1-47,51-97"
    # At the end of the first series, and of the last one.
    assert str(found.missed) == "48-50,98-100"


def test_images_are_stored_as_they_came(commands: Commands, tmp_path: Path, prefix: str) -> None:
    address, file = f"tcp://127.0.0.1:{free_port()}", tmp_path / "scan.h5"
    save = commands(
        "save", "-ic", address, "-im", "dectris", "-o", file, "--status-channel", f"{prefix}status"
    )
    assert detector(commands, address, "-n", 40, "--compression", "bslz4").wait() == 0
    save.signal()
    assert save.wait() == 0
    pixels_are_those_of(file, [(1, number) for number in range(40)])
    with h5py.File(file) as found:
        images = found["entry/data/data"]
        _, chunk = images.id.read_direct_chunk((0, 0, 0))
        plan = images.id.get_create_plist()
        assert plan.get_filter(0)[0] == 32008
        assert len(chunk) < LIKE.nbytes / 2
        attributes = found["entry/attributes"]
        assert list(attributes["ImageId"]) == list(range(40))
        assert set(attributes["IncidentEnergy"]) == {12400.0}


def test_a_killed_detector_that_is_started_again(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    address, ledger = f"tcp://127.0.0.1:{free_port()}", tmp_path / "ledger.json"
    consumer = commands("consumer", "-ic", address, "-im", "dectris", "--ledger", ledger)
    first = detector(commands, address, "-n", 1000, "-fps", 20)
    wait_until(lambda: ledger.exists() and len(read_ledgers(ledger)[0].processed) > 5)
    first.process.kill()
    first.wait()
    assert detector(commands, address, "-n", 20).wait() == 0
    wait_until(lambda: 1020 in read_ledgers(ledger)[0].processed)
    consumer.signal()
    assert consumer.wait() == 1
    assert "images did not come" in consumer.text
    (found,) = read_ledgers(ledger)
    came = len(found.processed)
    assert found.processed.last == 1020
    assert len(found.missed) == 1020 - came


def metadata_of(file: Path) -> tuple[dict[str, Any], np.ndarray | None, bytes | None]:
    """Value and units of all that a file has for its series, and its mask."""
    with h5py.File(file) as found:
        instrument = found["entry/instrument"]
        classes = [group.attrs["NX_class"] for group in (instrument, *instrument.values())]
        assert classes == ["NXinstrument", "NXbeam", "NXdetector"]
        detector = instrument["detector"]
        assert detector["data"] == found["entry/data/data"]
        mask = detector["pixel_mask"][()] if "pixel_mask" in detector else None
        values = {
            f"{group}/{name}": (
                data.asstr()[()] if data.dtype.kind == "O" else data[()].item(),
                data.attrs.get("units", ""),
            )
            for group in ("beam", "detector")
            for name, data in instrument[group].items()
            if data.shape == ()
        }
        applied = values.pop("detector/pixel_mask_applied", (None, ""))
        return values, mask, applied[0]


def sent(rate: float, threshold: int = 1) -> dict[str, Any]:
    """What the detector says of its series, in the terms of NeXus."""
    return {
        "beam/incident_energy": (12_400.0, "eV"),
        "beam/incident_wavelength": (1.0, "angstrom"),
        "detector/beam_center_x": (48.0, "pixel"),
        "detector/beam_center_y": (32.0, "pixel"),
        "detector/count_time": (1 / rate, "s"),
        "detector/description": ("simulated detector", ""),
        "detector/distance": (0.2, "m"),
        "detector/frame_time": (1 / rate, "s"),
        "detector/saturation_value": (2**32 - 2, ""),
        "detector/sensor_material": ("Si", ""),
        "detector/sensor_thickness": (450e-6, "m"),
        "detector/serial_number": ("SIM-1", ""),
        "detector/threshold_energy": (6200.0 + 1000 * (threshold - 1), "eV"),
        "detector/x_pixel_size": (75e-6, "m"),
        "detector/y_pixel_size": (75e-6, "m"),
    }


# With others in make test-more.
@pytest.mark.parametrize("compression", ["none", "bslz4"][: rounds(1)])
def test_a_file_has_the_metadata_of_its_series(
    commands: Commands, tmp_path: Path, prefix: str, compression: str
) -> None:
    address, file = f"tcp://127.0.0.1:{free_port()}", tmp_path / "scan.h5"
    save = commands(
        "save", "-ic", f"{address}?threshold=threshold_2", "-im", "dectris", "-o", file,
        "--status-channel", f"{prefix}status",
    )  # fmt: skip
    same = ("--thresholds", 2, "--compression", compression)
    # The first two series have the same metadata, the third one has not.
    assert detector(commands, address, "-n", 10, "--n-series", 2, "-fps", 100, *same).wait() == 0
    third = detector(commands, address, "-n", 10, "--first-series", 3, "-fps", 80, *same)
    assert third.wait() == 0
    save.signal()
    assert save.wait() == 0, save.text
    for path, rate, series, ids in (
        (file, 100, [1] * 10 + [2] * 10, range(1, 21)),
        (tmp_path / "scan.2.h5", 80, [3] * 10, range(21, 31)),
    ):
        values, mask, applied = metadata_of(path)
        assert values == sent(rate, 2)
        assert mask is not None
        assert np.array_equal(mask, mask_of(2, (64, 96)))
        assert applied is False
        with h5py.File(path) as found:
            assert list(found["entry/data/id"]) == list(ids)
            assert list(found["entry/attributes/SeriesId"]) == series
            for image, number, row in zip(
                found["entry/data/data"], series, found["entry/attributes/ImageId"], strict=True
            ):
                assert np.array_equal(image, pixels_of(number, row, 2, LIKE))
        assert verify(path).ok
    assert "A series with another count_time, frame_time begins at id 21" in save.text


# With others in make test-more.
@pytest.mark.parametrize("compression", ["lz4", "none"][: rounds(1)])
def test_a_mirror_shares_a_detector_and_passes_on_its_metadata(
    commands: Commands, tmp_path: Path, prefix: str, compression: str
) -> None:
    address, name, file = f"tcp://127.0.0.1:{free_port()}", f"{prefix}image", tmp_path / "a.h5"
    ledger = tmp_path / "mirror.json"
    mirror = commands("mirror", "-cm", f"({name},{address},dectris)", "--ledger", ledger)
    save = commands(
        "save", "-ic", name, "-o", file, "--server-queue-size", 200,
        "--status-channel", f"{prefix}status",
    )  # fmt: skip
    consumer = commands(
        "consumer", "-ic", name, "--server-queue-size", 200, "-sc", f"{prefix}consumer"
    )
    # The mirror has a channel when it has seen an image; then it is found.
    first = detector(commands, address, "-n", 1, "-fps", 50, "--compression", compression)
    assert first.wait() == 0
    wait_for_monitors([f"{prefix}status", f"{prefix}consumer"])
    sim = detector(
        commands, address, "-n", 30, "--first-series", 2, "--n-series", 2, "-fps", 50,
        "--compression", compression,
    )  # fmt: skip
    assert sim.wait() == 0
    wait_until(lambda: len(read_ledgers(ledger)[0].published) == 61)
    for program in (consumer, save, mirror):
        program.signal()
        assert program.wait() == 0, program.text
    with h5py.File(file) as found:
        ids = list(found["entry/attributes/ImageId"])
    # The image that the channel showed may be among them.
    assert ids[-60:] == 2 * list(range(30))
    shown = [(1, 0)] * (len(ids) - 60)
    pixels_are_those_of(file, shown + [(series, n) for series in (2, 3) for n in range(30)])
    # The metadata are those of the attributes; no transport carries a mask.
    values, mask, _ = metadata_of(file)
    assert values == sent(50)
    assert mask is None
