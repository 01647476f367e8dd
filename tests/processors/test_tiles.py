from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvapy_stream.errors import SettingsError
from pvapy_stream.frame import ColorMode
from pvapy_stream.plugins import load_processor_class
from pvapy_stream.processors import TileSplitter, TileStitcher
from pvapy_stream.processors.tiles import TILE_ATTRIBUTES, edges
from pvapy_stream.testing import ProcessorRun, image_object, run_processor

IMAGE = np.arange(7 * 10, dtype=np.uint16).reshape(7, 10)


def split(image: np.ndarray, id: int = 1, args: Any = None, **others: Any) -> list[Any]:
    result = run_processor(TileSplitter, [image_object(image, id, **others)], args=args)
    assert result.errors == {}
    return result.published


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 50))
def test_edges_cover_an_axis_without_gap_or_overlap(size: int, count: int, length: int) -> None:
    count = min(count, size)
    found = edges(size, count, length)
    widths = np.diff(found)
    assert found[0] == 0
    assert found[-1] == size
    assert (widths > 0).all()
    if length:
        assert (widths[:-1] == length).all()
    else:
        assert len(widths) == count
        assert widths.max() - widths.min() <= 1


def test_tiles_have_their_pixels_place_and_everything_of_the_image() -> None:
    objects = split(IMAGE, 7, {"tilesX": 3, "tilesY": 2}, time=12.5, gain=4)
    assert len(objects) == 6
    places = []
    for number, obj in enumerate(objects):
        attributes = {a["name"]: a["value"][0]["value"] for a in obj["attribute"]}
        row, column = divmod(number, 3)
        assert [attributes[name] for name in TILE_ATTRIBUTES] == [column, row, 3, 2, 10, 7]
        assert attributes["gain"] == 4
        assert obj["uniqueId"] == 7
        assert obj["timeStamp"]["secondsPastEpoch"] == 12
        places.append([(d["offset"], d["size"], d["fullSize"]) for d in obj["dimension"]])
    assert places[0] == [(0, 3, 10), (0, 3, 7)]
    assert places[5] == [(6, 4, 10), (3, 4, 7)]


def test_tiles_may_be_given_by_size() -> None:
    args = {"tileWidth": 4, "tileHeight": 5}
    frames = run_processor(TileSplitter, [image_object(IMAGE)], args=args).frames
    assert [f.image.shape for f in frames] == [(5, 4), (5, 4), (5, 2), (2, 4), (2, 4), (2, 2)]
    assert np.array_equal(frames[5].image, IMAGE[5:, 8:])


def test_one_tile_by_processor_id_or_number() -> None:
    for tile, corner in (("processorId", IMAGE[:3, :5]), (3, IMAGE[3:, 5:]), ("2", IMAGE[3:, :5])):
        result = run_processor(TileSplitter, [image_object(IMAGE)], args={"tile": tile})
        assert [f.image.tolist() for f in result.frames] == [corner.tolist()]
        assert result.stats == {"nTiles": 1}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"tilesX": 0}, ["tilesX", "greater than or equal to 1"]),
        ({"tileWidth": -4}, ["tileWidth"]),
        ({"tile": "some"}, ["tile", "all", "processorId"]),
        ({"tile": -1}, ["tile", "-1"]),
        ({"tiles": 2}, ["unknown key 'tiles'", "tilesX"]),
    ],
)
def test_wrong_options_are_named(args: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingsError) as raised:
        TileSplitter(args)
    assert all(word in str(raised.value) for word in words)


def test_impossible_tiles_fail_and_are_named() -> None:
    few = run_processor(TileSplitter, [image_object(IMAGE)], args={"tilesY": 8})
    assert "tilesY=8" in few.last_error
    other = run_processor(TileSplitter, [image_object(IMAGE)], args={"tile": 4})
    assert "tiles 0 to 3" in other.last_error
    assert not few.published
    assert not other.published


@pytest.mark.parametrize("mode", [None, ColorMode.RGB1, ColorMode.RGB2, ColorMode.RGB3])
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
@pytest.mark.parametrize("args", [{"tilesX": 1, "tilesY": 1}, {"tilesX": 3}, {"tileWidth": 4}])
def test_split_and_stitched_is_the_same(
    mode: ColorMode | None, dtype: str, args: dict[str, Any]
) -> None:
    image = np.random.default_rng(1).integers(0, 99, (7, 10) if mode is None else (7, 10, 3))
    image = image.astype(dtype)
    tiles = split(image, 5, args, color_mode=mode, gain=2.5, time=3.25)
    result = run_processor(TileStitcher, reversed(tiles))
    assert result.errors == {}
    (frame,) = result.frames
    assert np.array_equal(frame.image, image)
    assert frame.image.dtype == image.dtype
    assert frame.id == 5
    assert frame.time_ns == 3_250_000_000
    assert frame.attributes["gain"] == 2.5
    assert not set(TILE_ATTRIBUTES) & set(frame.attributes)
    if mode is not None:
        assert frame.color_mode is mode
    assert [d["offset"] for d in result.published[0]["dimension"]] == [0] * image.ndim


@given(st.permutations(range(12)))
def test_tiles_of_three_ids_in_any_order_give_exact_images(order: list[int]) -> None:
    tiles = {n: TILES[n] for n in order}
    result = run_processor(TileStitcher, list(tiles.values()), args={"maxPending": 3})
    # An id is given up when one that began later is complete.
    begun = list(dict.fromkeys(n // 4 for n in order))
    last = {k: max(order.index(4 * k + i) for i in range(4)) for k in range(3)}
    whole = [k for i, k in enumerate(begun) if all(last[k] < last[j] for j in begun[i + 1 :])]
    assert sorted(f.id for f in result.frames) == sorted(whole)
    for frame in result.frames:
        assert np.array_equal(frame.image, IMAGE + frame.id)
    assert result.stats["nIncomplete"] == 3 - len(whole)


TILES = [tile for k in range(3) for tile in split((IMAGE + k).astype(np.uint16), k)]


def test_a_missing_tile_is_counted_and_named() -> None:
    tiles = [t for k in (4, 5, 6) for t in split(IMAGE, k)]
    del tiles[6]
    run = ProcessorRun(TileStitcher)
    for tile in tiles:
        run.feed(tile)
    result = run.finish()
    assert [f.id for f in result.frames] == [4, 6]
    assert result.stats == {"nTiles": 11, "nStitched": 2, "nIncomplete": 1, "nRefused": 0}
    assert result.errors == {"tiles missing": 1}
    assert "object 5: tiles missing" in result.last_error
    assert "(0, 1)" in result.last_error
    assert list(result.ledger.failed["tiles missing"]) == [5]


def test_what_waits_is_bounded_and_given_up_at_stop() -> None:
    firsts = [split(IMAGE, k)[0] for k in range(10)]
    result = run_processor(TileStitcher, firsts, args={"maxPending": 4})
    assert result.stats["nIncomplete"] == 6
    assert result.processor.getStats()["nIncomplete"] == 10
    assert list(result.ledger.failed["tiles missing"]) == list(range(10))


def fails_with(tiles: list[Any], words: str) -> None:
    result = run_processor(TileStitcher, tiles)
    assert result.errors["process: ObjectError"] == 1
    error = run_processor(NoStop, tiles).last_error
    assert words in error, error


class NoStop(TileStitcher):
    """To see the error of the object itself, not that of the end."""

    def stop(self) -> None:
        pass


def test_tiles_that_do_not_fit_are_refused() -> None:
    tiles = split(IMAGE)
    fails_with([*tiles[:3], split(np.ones((9, 12), np.uint16))[3]], "another division")
    fails_with([tiles[0], tiles[0]], "is a duplicate")
    fails_with([*tiles, tiles[0]], "already stitched or dropped")
    fails_with([tiles[0], split(IMAGE.astype(np.uint8))[1]], "uint8")
    fails_with([image_object(IMAGE)], "lacks the attributes TileX")
    wrong = dict(zip(TILE_ATTRIBUTES, (2, 0, 2, 2, 10, 7), strict=True))
    fails_with([image_object(IMAGE, **wrong)], "are not a position")
    place = dict(zip(TILE_ATTRIBUTES, (1, 0, 2, 2, 10, 7), strict=True))
    fails_with([tiles[0], image_object(IMAGE[:2, :5], **place)], "does not fit tile (0, 0)")
    short = [
        image_object(IMAGE[:3, :4], **dict(zip(TILE_ATTRIBUTES, (x, 0, 2, 1, 10, 3), strict=True)))
        for x in range(2)
    ]
    fails_with(short, "8x3 pixels where FullX and FullY say 10x3")


def test_ids_that_begin_again_are_stitched() -> None:
    tiles = [t for k in (*range(40, 60), *range(3)) for t in split(IMAGE, k)]
    result = run_processor(TileStitcher, tiles)
    assert [f.id for f in result.frames] == [*range(40, 60), 0, 1, 2]


def test_classes_are_found_by_the_path_that_users_give() -> None:
    assert load_processor_class("pvapy_stream.processors.TileSplitter") is TileSplitter
    assert load_processor_class("pvapy_stream.processors.UserMpWorkerPool")
