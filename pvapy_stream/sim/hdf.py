"""Frames of HDF5 files, as pixels or as the compressed chunks they are stored in."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the filters that compressed files need
import numpy as np

from pvapy_stream.codecs import strip_hdf5_header
from pvapy_stream.errors import SourceError
from pvapy_stream.frame import ColorMode, Frame
from pvapy_stream.sim.source import check_pixels, frame_of, stack_length, unreadable

CODEC_OF_FILTER = {32001: "blosc", 32004: "lz4", 32008: "bslz4"}


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, by its name or by what it begins with."""
    return path.suffix.lower() in (".h5", ".hdf", ".hdf5", ".nxs") or bool(h5py.is_hdf5(path))


class HdfSource:
    """Frames of one dataset: (ny, nx), (n, ny, nx) or (n, ny, nx, 3).

    Args:
        path: the file.
        dataset: path of the dataset; None: the only one with images.
        compressed: hand chunks over as they are stored, with their codec. A dataset without
            any filter gives plain pixels.

    Raises:
        SourceError: no such dataset, several to choose from, chunks that are not single frames,
            or a filter that area detectors have no codec for.
    """

    def __init__(self, path: Path, dataset: str | None = None, compressed: bool = False) -> None:
        self._path = path
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise unreadable(
                path, error, "check that it is a complete HDF5 file, and that no program writes it"
            ) from error
        try:
            self._data = self._named(dataset) if dataset else self._only()
            self._where = f"{path}:{self._data.name}"
            self._length = stack_length(self._data.shape, self._where)
            check_pixels(self._data.dtype, self._where)
            self._codec = self._find_codec() if compressed else ""
        except SourceError:
            self.close()
            raise

    def __len__(self) -> int:
        return self._length

    def frame(self, index: int) -> Frame:
        """One frame, as pixels or as its chunk."""
        try:
            if self._codec:
                return self._chunk(index)
            image = self._data[index] if self._data.ndim > 2 else self._data[()]
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise unreadable(
                Path(self._where), error, f"frame {index} was not written, or is damaged"
            ) from error
        return frame_of(index, np.asarray(image), self._where)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _chunk(self, index: int) -> Frame:
        data = self._data
        shape = data.shape if data.ndim == 2 else data.shape[1:]
        offset = (0, 0) if data.ndim == 2 else (index, *(0 for _ in shape))
        mask, chunk = data.id.read_direct_chunk(offset)
        mode = ColorMode.RGB1 if len(shape) == 3 else ColorMode.MONO
        attributes = {"ColorMode": int(mode)}
        if mask:
            # The filter was left out for this chunk: it holds plain pixels.
            payload = np.frombuffer(chunk, data.dtype)
            return Frame(index, payload, shape, color_mode=mode, attributes=attributes)
        size = int(np.prod(shape)) * data.dtype.itemsize
        payload = np.frombuffer(strip_hdf5_header(self._codec, chunk, size), np.uint8)
        return Frame(
            index,
            payload,
            shape,
            dtype=data.dtype,
            codec=self._codec,
            color_mode=mode,
            attributes=attributes,
        )

    def _find_codec(self) -> str:
        data = self._data
        plist = data.id.get_create_plist()
        filters = [plist.get_filter(number) for number in range(plist.get_nfilters())]
        if not filters:
            return ""
        codes = [entry[0] for entry in filters]
        if len(codes) != 1 or codes[0] not in CODEC_OF_FILTER:
            names = ", ".join(
                f"{entry[3].decode(errors='replace') or 'unnamed'} ({entry[0]})"
                for entry in filters
            )
            raise SourceError(
                f"{self._where} is stored with {names}; chunks can only be sent unchanged with"
                " exactly one of blosc, lz4 and bslz4: omit --hdf-compression-mode"
            )
        if data.chunks != (data.shape if data.ndim == 2 else (1, *data.shape[1:])):
            raise SourceError(
                f"{self._where} has chunks of {data.chunks} where one frame is"
                f" {data.shape[-2:] if data.ndim < 4 else data.shape[1:]}: they cannot be sent"
                " unchanged; omit --hdf-compression-mode, or write the file with one frame for"
                " each chunk"
            )
        if not data.dtype.isnative or data.dtype == np.bool_:
            raise SourceError(
                f"{self._where} has pixels of type {data.dtype.str}, which receivers would"
                " misread; omit --hdf-compression-mode"
            )
        return CODEC_OF_FILTER[codes[0]]

    def _named(self, name: str) -> h5py.Dataset:
        found = self._file.get(name)
        if isinstance(found, h5py.Dataset):
            return found
        names = ", ".join(data.name for data in self._candidates()) or "none"
        problem = "is a group" if found is not None else "does not exist"
        raise SourceError(
            f"{self._path}: dataset {name!r} {problem}; give one of these with --hdf-dataset:"
            f" {names}"
        )

    def _only(self) -> h5py.Dataset:
        candidates = self._candidates()
        # Stacks come first: an image beside them is a mask or a background.
        stacks = [data for data in candidates if data.ndim > 2] or candidates
        if len(stacks) == 1:
            return stacks[0]
        if not stacks:
            raise SourceError(
                f"{self._path} has no dataset of images (links are not followed); name one with"
                " --hdf-dataset"
            )
        names = ", ".join(f"{data.name} {data.shape}" for data in stacks)
        raise SourceError(
            f"{self._path} has several datasets of images; choose one with --hdf-dataset: {names}"
        )

    def _candidates(self) -> list[h5py.Dataset]:
        """Datasets that may hold images."""
        found: list[h5py.Dataset] = []

        def look(_: str, item: object) -> None:
            if (
                isinstance(item, h5py.Dataset)
                and item.dtype.kind in "biuf"
                and item.shape is not None
                and item.size
            ):
                ndim = len(item.shape)
                if ndim in (2, 3) or (ndim == 4 and item.shape[3] == 3):
                    found.append(item)

        self._file.visititems(look)
        return found
