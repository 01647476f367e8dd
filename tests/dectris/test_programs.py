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
from pvapy_stream.sim.dectris import pixels_of
from tests.ports import free_port
from tests.support import Commands, wait_for_monitors, wait_until

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


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_a_mirror_shares_a_detector(
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
    first = detector(commands, address, "-n", 1, "--compression", compression)
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
