"""The bsread writer, from the socket into the file, and plain h5py with the same values."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from benchmarks.bsread_source import N_SCALARS, SECOND, SHAPE, channels, images
from benchmarks.run import Child, rounds
from benchmarks.table import Row
from pvapy_stream.daq.states import Phase
from pvapy_stream.daq.writer import Writer
from pvapy_stream.settings import WriterSettings
from pvapy_stream.transport.bsread_codec import Encoder

# Of sf_bsread_writer on two cores, messages/s.
_INCUMBENT = 450
_FACTOR = 20
_FRAMES = 500  # frames/s
_BATCH = 100  # rows
_TIMEOUT = 60  # s


def run(quick: bool) -> list[Row]:
    """Messages/s, on the disk of the folder of temporary files."""
    n_scalars, n_frames, n = (20_000, 200, 1) if quick else (60_000, 600, rounds(quick))
    with tempfile.TemporaryDirectory(prefix="bench-writer-") as name:
        folder = Path(name)
        counts = {"scalars": n_scalars, "raw": n_frames, "packed": n_frames}
        ours = {kind: _ours(folder, kind, count, n) for kind, count in counts.items()}
        plain = {
            "scalars": _median(n, lambda: _plain_scalars(folder, n_scalars)),
            "raw": _median(n, lambda: _plain_frames(folder, n_frames, "raw")),
            "packed": _median(n, lambda: _plain_frames(folder, n_frames, "packed")),
        }
    least = _FACTOR * _INCUMBENT
    camera = f"{SHAPE[0]}x{SHAPE[1]} uint16 camera"
    return [
        Row(
            f"bsread writer, {N_SCALARS} scalars",
            "messages/s",
            ours["scalars"],
            None,
            f">= {least}",
            ours["scalars"] >= least,
        ),
        Row(
            f"… over plain h5py, {_BATCH} rows at a time, no socket",
            "times",
            ours["scalars"] / plain["scalars"],
            None,
        ),
        *_camera_rows(f"bsread writer, {camera}", ours["raw"], plain["raw"]),
        *_camera_rows(f"bsread writer, {camera}, bitshuffle_lz4", ours["packed"], plain["packed"]),
    ]


def _camera_rows(what: str, ours: float, plain: float) -> list[Row]:
    return [
        Row(what, "frames/s", ours, None, f">= {_FRAMES}", ours >= _FRAMES),
        Row("… over plain h5py, direct chunks, no socket", "times", ours / plain, None),
    ]


def _ours(folder: Path, kind: str, count: int, n: int) -> float:
    with Child("benchmarks.bsread_source", kind) as source:
        address = source.ask("address", _TIMEOUT)["address"]
        return _median(n, lambda: _acquire(folder / f"{kind}.h5", source, address, count))


def _acquire(path: Path, source: Child, address: str, count: int) -> float:
    path.unlink(missing_ok=True)
    os.sync()
    writer = Writer(
        WriterSettings.of(stream=address, output_file=str(path), user_id=-1, rest_port=0)
    )
    try:
        acquisition = writer.start(0, stop_pulse_id=count - 1)
        start = time.perf_counter()
        source.ask(str(count), _TIMEOUT)
        if not acquisition.over.wait(_TIMEOUT):
            raise TimeoutError(f"not all of {count} messages were written")
        seconds = time.perf_counter() - start
        found = acquisition.progress()
        if acquisition.phase is not Phase.DONE or found.rows != count or found.n_lost:
            raise RuntimeError(f"not all is in the file: {found}")
    finally:
        writer.close()
    path.unlink()
    return count / seconds


def _median(n: int, measure: Any) -> float:
    return median(measure() for _ in range(n))


def _plain_scalars(folder: Path, count: int) -> float:
    """The same rows written by h5py in batches."""
    path = folder / "plain.h5"
    values = np.arange(_BATCH, dtype=float)[:, None]
    pulses, present = np.arange(_BATCH), np.ones(_BATCH, np.uint8)
    os.sync()
    start = time.perf_counter()
    with h5py.File(path, "w", libver="latest") as file:
        sets = []
        for k in range(N_SCALARS):
            group = file.create_group(f"data/S{k}")
            for name, rows in (("data", values), ("pulse_id", pulses), ("present", present)):
                shape = rows.shape[1:]
                made = group.create_dataset(
                    name, (0, *shape), rows.dtype, maxshape=(None, *shape), chunks=(1024, *shape)
                )
                sets.append((made, rows))
        for at in range(0, count, _BATCH):
            for made, rows in sets:
                made.resize(at + _BATCH, 0)
                made[at : at + _BATCH] = rows
    seconds = time.perf_counter() - start
    path.unlink()
    return count / seconds


def _plain_frames(folder: Path, count: int, kind: str) -> float:
    """The same frames written by h5py as direct chunks."""
    path = folder / "plain.h5"
    encoder = Encoder(channels(kind))
    chunks = [encoder.encode(0, SECOND, {"CAM": image})[2] for image in images()]
    options = hdf5plugin.Bitshuffle(cname="lz4") if kind == "packed" else {}
    os.sync()
    start = time.perf_counter()
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset(
            "CAM", (count, *SHAPE), np.uint16, chunks=(1, *SHAPE), **dict(options)
        )
        for number in range(count):
            data.id.write_direct_chunk((number, 0, 0), chunks[number % len(chunks)])
    seconds = time.perf_counter() - start
    path.unlink()
    return count / seconds
