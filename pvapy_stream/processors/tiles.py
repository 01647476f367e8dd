"""``TileSplitter`` cuts images into tiles, ``TileStitcher`` assembles them again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pvaccess as pva
from pydantic import Field, model_validator

from pvapy_stream.errors import ObjectError, SettingsError
from pvapy_stream.frame import ColorMode, Frame, Pixels
from pvapy_stream.processors.processor_options import OptionProcessor, Options

__all__ = ["TileSplitter", "TileStitcher"]

TILE_ATTRIBUTES = ("TileX", "TileY", "TilesX", "TilesY", "FullX", "FullY")

# Where x and y are among the dimensions, fastest first.
_XY = {
    ColorMode.MONO: (0, 1),
    ColorMode.RGB1: (1, 2),
    ColorMode.RGB2: (0, 2),
    ColorMode.RGB3: (0, 1),
}


def edges(size: int, count: int = 1, length: int = 0) -> list[int]:
    """First pixels of the tiles along one axis, and the end of the last one.

    Args:
        size: pixels to divide.
        count: number of tiles, as equal as can be.
        length: pixels of a tile instead; the last one may be shorter.
    """
    if length:
        return [*range(0, size, length), size]
    return [size * i // count for i in range(count + 1)]


class TilePosition(NamedTuple):
    """Position of a tile: column and row, numbers of columns and rows, pixels of the image."""

    x: int
    y: int
    columns: int
    rows: int
    full_x: int
    full_y: int


class TileSplitterOptions(Options):
    """Options of `TileSplitter`."""

    tiles_x: int = Field(2, ge=1)
    tiles_y: int = Field(2, ge=1)
    tile_width: int = Field(0, ge=0)
    tile_height: int = Field(0, ge=0)
    tile: Literal["all", "processorId"] | int = "all"

    @model_validator(mode="after")
    def _tile_is_one(self) -> TileSplitterOptions:
        if isinstance(self.tile, int) and self.tile < 0:
            raise ValueError(f"tile: give all, processorId or a number from 0, not {self.tile}")
        return self


class TileSplitter(OptionProcessor[TileSplitterOptions]):
    """Publishes tiles of each image, all with its id, time and attributes.

    Tiles are numbered row by row from 0. The position of a tile is in the attributes TileX, TileY
    (column and row), TilesX, TilesY (number of tiles) and FullX, FullY (pixels of the image), and
    in offset and fullSize of the dimensions.

    Keys: tilesX, tilesY (2), or tileWidth, tileHeight (pixels; the last tile may be smaller);
    tile: "all" (all tiles on one channel), "processorId" (consumer 1 publishes tile 0 …), or a
    number.
    """

    options_type = TileSplitterOptions
    COUNTERS = ("nTiles",)

    def process_frame(self, frame: Frame) -> list[Frame]:
        ny, nx = frame.image.shape[:2]
        options = self.options
        xs = self._axis("X", nx, options.tiles_x, options.tile_width)
        ys = self._axis("Y", ny, options.tiles_y, options.tile_height)
        columns, rows = len(xs) - 1, len(ys) - 1
        tiles = []
        for number in self._numbers(columns * rows):
            y, x = divmod(number, columns)
            place = TilePosition(x, y, columns, rows, nx, ny)
            tiles.append(
                frame.replace(
                    frame.image[ys[y] : ys[y + 1], xs[x] : xs[x + 1]],
                    attributes={
                        **frame.attributes,
                        **dict(zip(TILE_ATTRIBUTES, place, strict=True)),
                    },
                )
            )
        self._corners = xs, ys
        self.counts["nTiles"] += len(tiles)
        return tiles

    def _axis(self, axis: str, size: int, count: int, length: int) -> list[int]:
        if not length and count > size:
            raise ObjectError(
                f"the image has {size} pixels along {axis.lower()}, too few for tiles{axis}={count}"
            )
        return edges(size, count, length)

    def _numbers(self, count: int) -> Sequence[int]:
        tile = self.options.tile
        if tile == "all":
            return range(count)
        number = (self.processorId or 1) - 1 if tile == "processorId" else int(tile)
        if number >= count:
            raise SettingsError(
                f"tile {number} (tile={tile!r}, processor id {self.processorId}) does not exist:"
                f" the image has tiles 0 to {count - 1}"
            )
        return [number]

    def _publish(self, frame: Frame) -> None:
        if not self.outputChannel or not self.dataPublisher or self._builder is None:
            return
        obj = self._builder.build(frame)
        attributes = frame.attributes
        place = TilePosition(*(attributes[name] for name in TILE_ATTRIBUTES))
        xs, ys = self._corners
        sizes = list(reversed(frame.stored_shape))
        dimensions = [pva.PvDimension(size, 0, size, 1, False) for size in sizes]
        at_x, at_y = _XY[frame.color_mode]
        dimensions[at_x] = pva.PvDimension(sizes[at_x], xs[place.x], place.full_x, 1, False)
        dimensions[at_y] = pva.PvDimension(sizes[at_y], ys[place.y], place.full_y, 1, False)
        obj["dimension"] = dimensions
        self.updateOutputChannel(obj)


@dataclass(slots=True)
class Puzzle:
    """The tiles of one id that have arrived."""

    first: Frame
    place: TilePosition
    tiles: dict[tuple[int, int], Pixels]

    def missing(self) -> str:
        """Positions without a tile, for messages: (column, row)."""
        places = [
            str((x, y))
            for y in range(self.place.rows)
            for x in range(self.place.columns)
            if (x, y) not in self.tiles
        ]
        return ", ".join(places[:8]) + (" …" if len(places) > 8 else "")

    def check(self, place: TilePosition, image: Pixels) -> None:
        """Check whether a tile fits the others.

        Raises:
            ObjectError: it does not; the message has the reason.
        """
        if place[2:] != self.place[2:]:
            raise ObjectError(f"the tile is of another division: {place}, earlier {self.place}")
        if (place.x, place.y) in self.tiles:
            raise ObjectError(f"tile ({place.x}, {place.y}) is a duplicate")
        first = self.first.image
        if image.dtype != first.dtype or image.shape[2:] != first.shape[2:]:
            raise ObjectError(
                f"tile ({place.x}, {place.y}) has pixels {image.dtype}{list(image.shape[2:])},"
                f" earlier ones {first.dtype}{list(first.shape[2:])}"
            )
        for (x, y), other in self.tiles.items():
            if (x == place.x and other.shape[1] != image.shape[1]) or (
                y == place.y and other.shape[0] != image.shape[0]
            ):
                raise ObjectError(
                    f"tile ({place.x}, {place.y}) of {image.shape[1]}x{image.shape[0]} pixels does"
                    f" not fit tile ({x}, {y}) of {other.shape[1]}x{other.shape[0]}"
                )

    def stitched(self) -> Pixels:
        """The assembled image.

        Raises:
            ObjectError: the size of the image differs from FullX and FullY.
        """
        place, tiles = self.place, self.tiles
        xs = _sums([tiles[x, 0].shape[1] for x in range(place.columns)])
        ys = _sums([tiles[0, y].shape[0] for y in range(place.rows)])
        if (xs[-1], ys[-1]) != (place.full_x, place.full_y):
            raise ObjectError(
                f"the tiles make {xs[-1]}x{ys[-1]} pixels where FullX and FullY say"
                f" {place.full_x}x{place.full_y}"
            )
        first = self.first.image
        whole = self.first.like((ys[-1], xs[-1], *first.shape[2:]), first.dtype)
        for (x, y), tile in tiles.items():
            whole[ys[y] : ys[y + 1], xs[x] : xs[x + 1]] = tile
        return whole


def _sums(lengths: list[int]) -> list[int]:
    return [sum(lengths[:i]) for i in range(len(lengths) + 1)]


class TileStitcherOptions(Options):
    """Options of `TileStitcher`."""

    max_pending: int = Field(16, ge=1)


class TileStitcher(OptionProcessor[TileStitcherOptions]):
    """Publishes an image when all its tiles have arrived, in any order, on one channel or several.

    An incomplete id is dropped when one that began later is complete, when more than maxPending ids
    are incomplete, and at stop; it is counted, logged with its missing tiles, and reported at stop.
    A tile that does not fit its neighbours, is a duplicate, or arrives after its id was dropped,
    fails.

    Keys: maxPending (16).
    """

    options_type = TileStitcherOptions
    COUNTERS = ("nTiles", "nStitched", "nIncomplete", "nRefused")
    keeps_frames = True
    gathers = True

    def __init__(self, configDict: dict[str, object] | None = None) -> None:
        super().__init__(configDict)
        self._pending: dict[int, Puzzle] = {}
        self._closed: deque[int] = deque(maxlen=16)

    def process_frame(self, frame: Frame) -> Frame | None:
        self.counts["nTiles"] += 1
        try:
            puzzle = self._add(frame)
            if len(puzzle.tiles) < puzzle.place.columns * puzzle.place.rows:
                self._limit()
                return None
            whole = self._complete(frame.id, puzzle)
        except ObjectError:
            self.counts["nRefused"] += 1
            raise
        self.counts["nStitched"] += 1
        first = puzzle.first
        attributes = {k: v for k, v in first.attributes.items() if k not in TILE_ATTRIBUTES}
        return first.replace(whole, attributes=attributes)

    def _add(self, frame: Frame) -> Puzzle:
        place = place_of(frame)
        image = frame.image
        puzzle = self._pending.get(frame.id)
        if puzzle is None:
            if frame.id in self._closed:
                raise ObjectError(
                    f"tile ({place.x}, {place.y}) of id {frame.id} arrived when the id was already"
                    " stitched or dropped; is the collector's cache too small?"
                )
            puzzle = self._pending[frame.id] = Puzzle(frame, place, {})
        puzzle.check(place, image)
        puzzle.tiles[place.x, place.y] = image
        return puzzle

    def _complete(self, object_id: int, puzzle: Puzzle) -> Pixels:
        # In the order in which they began, not by id: a source may begin its numbers again.
        for earlier in list(self._pending):
            if earlier == object_id:
                break
            self._give_up(earlier)
        del self._pending[object_id]
        self._closed.append(object_id)
        return puzzle.stitched()

    def _limit(self) -> None:
        while len(self._pending) > self.options.max_pending:
            self._give_up(next(iter(self._pending)))

    def _give_up(self, object_id: int) -> None:
        puzzle = self._pending.pop(object_id)
        self._closed.append(object_id)
        self.counts["nIncomplete"] += 1
        self.late_failures.note(
            object_id, "tiles missing", f"no tile at (column, row) {puzzle.missing()}"
        )

    def stop(self) -> None:
        """Drop incomplete ids."""
        for object_id in list(self._pending):
            self._give_up(object_id)


def place_of(frame: Frame) -> TilePosition:
    """Position of a tile.

    Raises:
        ObjectError: it is not a tile, or its attributes are not a position.
    """
    attributes = frame.attributes
    if missing := [name for name in TILE_ATTRIBUTES if name not in attributes]:
        raise ObjectError(
            f"frame {frame.id} is not a tile: it lacks the attributes {', '.join(missing)}; tiles"
            " come from TileSplitter"
        )
    values = [attributes[name] for name in TILE_ATTRIBUTES]
    if all(isinstance(value, int) for value in values):
        place = TilePosition(*values)
        if (
            0 <= place.x < place.columns <= place.full_x
            and 0 <= place.y < place.rows <= place.full_y
        ):
            return place
    raise ObjectError(
        f"frame {frame.id} has tile attributes that are not a position:"
        f" {dict(zip(TILE_ATTRIBUTES, values, strict=True))}"
    )
