"""The bsread writer, from the socket into the file, and plain h5py with the same values."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from benchmarks.bsread_source import N_SCALARS, SECOND, SHAPE, channels, images
from benchmarks.run import Child, rounds, wait_for
from benchmarks.table import Row
from pvapy_stream.bsread.codec import Encoder
from pvapy_stream.daq.states import Phase
from pvapy_stream.daq.writer import AcquisitionWriter
from pvapy_stream.settings import WriterSettings

# Of sf_bsread_writer on two cores, messages/s.
_INCUMBENT = 450
_FACTOR = 20
_FRAMES = 500  # frames/s
_BATCH = 100  # rows
_TIMEOUT = 60  # s
_RATE = 100  # Hz, of what goes through a buffer as well
# How long that runs; BENCH_SECONDS=60 is what the requirements ask for.
_SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
_STREAMS = {
    "300 scalars": ("-ns", 300),
    "camera": ("-ns", 10, "--camera", "1280x1024"),
    "camera, bitshuffle_lz4": (
        *("-ns", 10, "--camera", "1280x1024", "--camera-compression", "bitshuffle_lz4"),
    ),
}


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
        *(_through_a_buffer(what, options) for what, options in _STREAMS.items()),
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
    writer = AcquisitionWriter(
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


def _through_a_buffer(what: str, options: tuple[object, ...]) -> Row:
    """What is lost of a stream at 100 Hz between simulator, buffer, writer and file."""
    program = "pvapy_stream.cli.main"
    with (
        tempfile.TemporaryDirectory(prefix="bench-writer-") as folder,
        Child(program, "bsread-sim", "-a", "tcp://127.0.0.1:0", "-fps", _RATE, *options) as source,
    ):
        address = _said(source, r"on (tcp://\S+)")
        limits = ("-o", 0, "--range-port", 0, "--rest-port", 0, "--memory", 500)
        with Child(program, "buffer", address, *limits) as buffer:
            ranges = _said(buffer, r"ranges tcp://([^;\s]+)")
            status = _said(buffer, r"status (\S+)")
            newest = wait_for(lambda: _newest(status), 30, "100 pulses in the buffer")
            lost = _acquire_range(Path(folder) / "run.h5", f"buffer://{ranges}", newest)
    name = f"{_SECONDS:g} s of {what} at {_RATE} Hz through buffer and writer: lost"
    return Row(name, "pulses", lost, None, "0", lost == 0)


def _said(child: Child, pattern: str) -> str:
    return wait_for(lambda: re.search(pattern, child.text), 30, pattern)[1]


def _newest(status: str) -> int | None:
    with urllib.request.urlopen(status, timeout=10) as answer:
        found = json.load(answer)
    return found["newest"] if found["messages"] >= _RATE else None


def _acquire_range(path: Path, address: str, newest: int) -> int:
    """How many pulses of a range that begins half a second in the past are not in the file."""
    writer = AcquisitionWriter(
        WriterSettings.of(
            stream=address, output_file=str(path), user_id=-1, rest_port=0, force=True
        )
    )
    try:
        first = newest - _RATE // 2
        acquisition = writer.start(first, stop_pulse_id=first + round(_SECONDS * _RATE))
        if not acquisition.over.wait(_SECONDS + _TIMEOUT):
            raise TimeoutError(f"the range did not end: {acquisition.progress()}")
        return acquisition.progress().n_lost
    finally:
        writer.close()


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
