from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.plugins import load_processor_class
from pvapy_stream.settings import ConsumerSettings, SimulatorSettings, option_of
from pvapy_stream.testing import frame, image_object, metadata_object, run_processor

EXAMPLES = Path(__file__).parents[2] / "examples"
IMAGE = np.arange(6, dtype=np.uint16).reshape(2, 3)


def load(file: str, name: str) -> Any:
    return load_processor_class(name, EXAMPLES / file)


@pytest.mark.parametrize("k", [0, 1, 2, 3, -1])
def test_rotation(k: int) -> None:
    result = run_processor(
        load("rotate_image.py", "RotateImage"), [image_object(IMAGE, 4)], args={"k": k}
    )
    assert result.errors == {}
    assert np.array_equal(result.frames[0].image, np.rot90(IMAGE, k))
    assert result.frames[0].id == 4
    assert result.stats == {"nRotated": int(k != 0), "quarterTurns": k % 4}


def test_hits_are_passed_on_and_the_others_filtered() -> None:
    dark, hit = np.zeros((8, 8), np.uint16), np.zeros((8, 8), np.uint16)
    hit[2:5, 2:6] = 300
    frames = [frame(image, id) for id, image in enumerate([dark, hit, dark, hit], 1)]
    result = run_processor(
        load("hit_finder.py", "HitFinder"), frames, args={"threshold": 299, "minPixels": 12}
    )
    assert result.errors == {}
    assert [f.id for f in result.frames] == [2, 4]
    assert [f.attributes["nPixels"] for f in result.frames] == [12, 12]
    assert list(result.ledger.filtered) == [1, 3]


def test_rotation_of_colour_and_a_new_angle() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    result = run_processor(
        load("rotate_image.py", "RotateImage"), [image_object(image)], configure={"k": 2}
    )
    assert np.array_equal(result.frames[0].image, image[::-1, ::-1])


def test_moving_average() -> None:
    frames = [
        frame(np.full((2, 3), value, np.uint16), id) for id, value in enumerate([2, 4, 9, 20], 1)
    ]
    result = run_processor(load("moving_average.py", "MovingAverage"), frames, args={"n": 3})
    assert result.errors == {}
    assert [f.image[1, 2] for f in result.frames] == [2, 3, 5, 11]
    assert [f.id for f in result.frames] == [1, 2, 3, 4]
    assert result.frames[0].dtype == np.float32
    assert result.stats == {"nInWindow": 3}


def test_moving_average_starts_again_when_the_size_changes() -> None:
    frames = [
        frame(np.full(shape, value, np.uint8))
        for shape, value in (((2, 3), 10), ((4, 4), 3), ((4, 4), 5))
    ]
    result = run_processor(load("moving_average.py", "MovingAverage"), frames)
    assert [(f.image.shape, f.image[0, 0]) for f in result.frames] == [
        ((2, 3), 10),
        ((4, 4), 3),
        ((4, 4), 4),
    ]


def test_moving_average_needs_a_window() -> None:
    with pytest.raises(ValueError, match="n must be 1 or more"):
        run_processor(load("moving_average.py", "MovingAverage"), [], args={"n": 0})


@pytest.mark.parametrize("size", [1, 3])
def test_means_of_batches(size: int) -> None:
    frames = [
        frame(np.full((2, 3), value, np.uint16), id, exposure=0.5)
        for id, value in enumerate([2, 4, 1, 20], 1)
    ]
    frames.append(frame(np.full((2, 3, 3), 8, np.uint8), 5))
    result = run_processor(
        load("batch_means.py", "BatchMeans"), frames, args={"threshold": 2}, batch_size=size
    )
    assert result.errors == {}
    assert [(f.id, f.attributes["Mean"]) for f in result.frames] == [
        (1, 2.0), (2, 4.0), (4, 20.0), (5, 8.0)
    ]  # fmt: skip
    assert result.frames[0].attributes["exposure"] == 0.5
    assert list(result.ledger.filtered) == [3]


def test_polar_coordinates() -> None:
    kind = {"id": pva.ULONG, "x": pva.DOUBLE, "y": pva.DOUBLE}
    points = [
        pva.PvObject(kind, {"id": 7, "x": 3.0, "y": 4.0}),
        pva.PvObject(kind, {"id": 8, "x": 0.0, "y": -2.0}),
    ]
    result = run_processor(load("polar_coordinates.py", "PolarCoordinates"), points, id_field="id")
    assert result.errors == {}
    assert [o["id"] for o in result.published] == [7, 8]
    assert [o["radius"] for o in result.published] == [5.0, 2.0]
    assert [o["angle"] for o in result.published] == pytest.approx(
        [math.degrees(math.atan2(4, 3)), -90.0]
    )
    assert list(result.ledger.published) == [7, 8]


def test_metadata_are_associated_by_time() -> None:
    frames = [image_object(IMAGE, id, time=100.0 + id, exposure=0.5) for id in (1, 2, 3)]
    metadata = {
        "motor": [
            metadata_object(value, time)
            for value, time in ((1.5, 100.0), (2.5, 101.0), (3.5, 102.5))
        ],
        "shutter": [metadata_object("open", 101.5)],
    }
    result = run_processor(
        load("associate_metadata.py", "AssociateMetadata"), frames, metadata=metadata
    )
    assert result.errors == {}
    found = [(f.id, f.attributes.get("motor"), f.attributes.get("shutter")) for f in result.frames]
    assert found == [(1, 2.5, None), (2, 2.5, "open"), (3, 3.5, "open")]
    assert [f.attributes["exposure"] for f in result.frames] == [0.5] * 3
    assert np.array_equal(result.frames[2].image, IMAGE)
    assert result.stats == {"nAssociated": 2, "nWithout": 1}


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_command_lines_of_the_header_use_options_that_exist(file: Path) -> None:
    header = file.read_text().split('"""')[1].replace("\\\n", " ")
    known = {
        "consumer": ConsumerSettings,
        "sim": SimulatorSettings,
    }
    commands = re.findall(r"pvapy-stream (\w+) (.*)", header)
    assert commands
    for command, arguments in commands:
        if command not in known:
            continue
        model = known[command]
        flags = {
            flag for name in model.model_fields if (o := option_of(model, name)) for flag in o.flags
        }
        assert set(re.findall(r"--[\w-]+", arguments)) - flags == set()
    if file.name != "bluesky_scan.py":  # has no processor
        assert f"--processor-file examples/{file.name}" in header
