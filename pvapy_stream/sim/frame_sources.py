"""Where frames come from: random numbers, or files in the order of their names. No EPICS.

A file is opened when its first frame is asked for and closed after its last, so a folder of ten
thousand images needs neither ten thousand descriptors nor a look into each before the first frame.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pvapy_stream.errors import SettingsError, SourceError
from pvapy_stream.frame import ColorMode, Frame
from pvapy_stream.settings import SimulatorSettings
from pvapy_stream.sim.image_sources import open_image
from pvapy_stream.sim.raw import RawLayout, RawSource, read_layout
from pvapy_stream.sim.source import FrameSource, check_pixels, frame_of, stack_length, unreadable

_log = logging.getLogger(__name__)

_NUMPY_SUFFIXES = (".npy", ".npz")
# Without a number of frames, random ones fill the cache, but not the machine.
_RANDOM_BYTES = 1 << 30


class RandomSource:
    """Random pixels, each frame drawn when it is asked for.

    Args:
        length: number of frames.
        shape: (ny, nx).
        color_mode: mono or one of the RGB modes.
        dtype: pixel type.
        minimum, maximum: range, both included, clipped to the type's; None: the type's own.

    Raises:
        SettingsError: the range is empty.
    """

    def __init__(
        self,
        length: int,
        shape: tuple[int, int],
        color_mode: ColorMode = ColorMode.MONO,
        dtype: str = "uint8",
        minimum: float | None = None,
        maximum: float | None = None,
    ) -> None:
        self._length = length
        self._shape = shape if color_mode is ColorMode.MONO else (*shape, 3)
        self._color_mode = color_mode
        self._dtype = np.dtype(dtype)
        self._range = _random_range(self._dtype, minimum, maximum)
        self._random = np.random.default_rng()

    def __len__(self) -> int:
        return self._length

    def frame(self, index: int) -> Frame:
        """A new random frame at each call."""
        low, high = self._range
        if self._dtype.kind == "f":
            # Not low + (high - low) * u: the width of a type's full range is not in its range.
            u = self._random.random(self._shape)
            image = (low * (1 - u) + high * u).astype(self._dtype)
        else:
            bounds = int(low), int(high)
            image = self._random.integers(*bounds, self._shape, self._dtype, endpoint=True)
        return frame_of(index, image, "random frames", self._color_mode)

    def close(self) -> None:
        """Nothing to let go of."""


def _random_range(
    dtype: np.dtype, minimum: float | None, maximum: float | None
) -> tuple[float, float]:
    if dtype.kind == "f":
        info = np.finfo(dtype)
        low = float(info.min) if minimum is None else max(minimum, float(info.min))
        high = float(info.max) if maximum is None else min(maximum, float(info.max))
    else:
        bounds = np.iinfo(dtype)
        low = bounds.min if minimum is None else _clip(minimum, bounds, math.ceil)
        high = bounds.max if maximum is None else _clip(maximum, bounds, math.floor)
    if not low <= high:
        raise SettingsError(
            f"--minimum {minimum} and --maximum {maximum} leave no {dtype} value between them"
        )
    for option, given, used in (("--minimum", minimum, low), ("--maximum", maximum, high)):
        if given is not None and given != used:
            _log.warning("%s %g is no %s value: %g is used", option, given, dtype, used)
    return low, high


def _clip(value: float, bounds: np.iinfo, rounded: Callable[[float], int]) -> int:
    if math.isnan(value):
        raise SettingsError("--minimum and --maximum must be numbers, not nan")
    whole = rounded(value) if math.isfinite(value) else (bounds.max if value > 0 else bounds.min)
    return min(max(whole, int(bounds.min)), int(bounds.max))


class NumpySource:
    """Frames of a npy file, or of all arrays of a npz file in the order of their names.

    Args:
        path: the file.
        mmap: map a npy file into memory instead of reading it; a npz file cannot be mapped.

    Raises:
        SourceError: no array of images can be read.
    """

    def __init__(self, path: Path, mmap: bool = False) -> None:
        self._path = path
        try:
            loaded = np.load(
                path,
                mmap_mode="r" if mmap and path.suffix.lower() == ".npy" else None,
                allow_pickle=False,
            )
            arrays = (
                {"": loaded}
                if isinstance(loaded, np.ndarray)
                else {name: loaded[name] for name in sorted(loaded.files, key=natural)}
            )
        except Exception as error:
            raise unreadable(
                path, error, "give an npy or npz file of plain number arrays"
            ) from error
        self._stacks: list[NDArray] = []
        for name, array in arrays.items():
            where = f"{path}[{name}]" if name else str(path)
            length = stack_length(array.shape, where)
            check_pixels(array.dtype, where)
            self._stacks.append(array if array.ndim > 2 else array[np.newaxis])
            if not length:
                self._stacks.pop()
        self._ends = list(itertools.accumulate(len(stack) for stack in self._stacks))
        if not self._ends:
            raise SourceError(
                f"{path} has no frames; give a file with an array of shape (n, ny, nx)"
            )

    def __len__(self) -> int:
        return self._ends[-1]

    def frame(self, index: int) -> Frame:
        """One image of one of the arrays."""
        at = next(number for number, end in enumerate(self._ends) if index < end)
        stack = self._stacks[at]
        return frame_of(
            index, np.asarray(stack[index - (self._ends[at] - len(stack))]), str(self._path)
        )

    def close(self) -> None:
        """Forget the arrays."""
        self._stacks = []


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts arr_10 after arr_2."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


class FrameChain:
    """Frames of several sources, one source after the other, ids from 0 on.

    Args:
        openers: one function a source, called when its turn comes.
        limit: number of frames after which the chain ends; 0: none.
    """

    def __init__(self, openers: Sequence[Callable[[], FrameSource]], limit: int = 0) -> None:
        self._openers = openers
        self._limit = limit

    def __iter__(self) -> Iterator[Frame]:
        frames = self._all()
        return itertools.islice(frames, self._limit) if self._limit else frames

    def _all(self) -> Iterator[Frame]:
        for opener in self._openers:
            with contextlib.closing(opener()) as source:
                for index in range(len(source)):
                    yield source.frame(index)


def open_sources(settings: SimulatorSettings) -> FrameChain:
    """The frames that the settings ask for.

    Raises:
        SourceError: a missing file or folder, an empty folder, a wrong description of raw files.
        SettingsError: random values that cannot be.
    """
    layout = read_layout(Path(settings.config_file)) if settings.config_file else None
    files = _files(settings, layout)
    if files:
        return FrameChain([_opener(file, settings, layout) for file in files], settings.n_frames)
    if layout is not None:
        raise SourceError(
            "--config-file describes raw files, and none is given; add --input-file,"
            " --input-directory or ordered_files"
        )
    source = _random_source(settings)
    return FrameChain([lambda: source], settings.n_frames)


def _random_source(settings: SimulatorSettings) -> RandomSource:
    mode = ColorMode(settings.color_mode)
    size = (
        settings.n_y_pixels
        * settings.n_x_pixels
        * np.dtype(settings.datatype).itemsize
        * (1 if mode is ColorMode.MONO else 3)
    )
    length = settings.n_frames or min(settings.cache_size, max(2, _RANDOM_BYTES // size))
    shape = (settings.n_y_pixels, settings.n_x_pixels)
    return RandomSource(length, shape, mode, settings.datatype, settings.minimum, settings.maximum)


def _files(settings: SimulatorSettings, layout: RawLayout | None) -> list[Path]:
    folder = Path(settings.input_directory) if settings.input_directory else None
    if folder is not None and not folder.is_dir():
        raise SourceError(f"{folder} is not a folder; give one with --input-directory")
    if layout is not None and layout.ordered_files:
        files = [_ordered(name, folder) for name in layout.ordered_files]
    else:
        config = Path(settings.config_file).resolve() if settings.config_file else None
        found = sorted(folder.iterdir()) if folder is not None else []
        files = [
            file
            for file in found
            if file.is_file() and not file.name.startswith(".") and file.resolve() != config
        ]
        if folder is not None and not files:
            raise SourceError(
                f"folder {folder} has no files; give one with images with --input-directory"
            )
        if settings.input_file:
            files.append(Path(settings.input_file))
    for file in files:
        if not file.is_file():
            raise SourceError(
                f"{file} does not exist or is not a file; give the path of an image file"
            )
    return files


def _ordered(name: str, folder: Path | None) -> Path:
    """A file of ordered_files: as it is, or else in the input folder."""
    path = Path(name)
    return folder / path if folder is not None and not path.is_file() else path


def _opener(
    file: Path, settings: SimulatorSettings, layout: RawLayout | None
) -> Callable[[], FrameSource]:
    def opened() -> FrameSource:
        if file.suffix.lower() in _NUMPY_SUFFIXES:
            return NumpySource(file, settings.mmap_mode)
        # Here, as HDF5 takes long to import, and frames are often random.
        from pvapy_stream.sim.hdf import HdfSource, is_hdf5

        if is_hdf5(file):
            return HdfSource(file, settings.hdf_dataset, settings.hdf_compression_mode)
        return RawSource(file, layout) if layout is not None else open_image(file)

    return opened
