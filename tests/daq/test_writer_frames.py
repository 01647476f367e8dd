from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pvapy_stream.bsread.codec import ChannelHeader
from pvapy_stream.daq.acquisition import Acquisition
from pvapy_stream.daq.states import Phase
from pvapy_stream.daq.writer import REQUIRED, AcquisitionWriter
from pvapy_stream.files.chunks import codec_of, encode
from pvapy_stream.files.completeness import verify
from pvapy_stream.frame import ColorMode, Frame
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.settings import ShmSettings, WriterSettings
from pvapy_stream.transport.shm import ShmPublisher
from tests.bsread.messages import camera, picture, scalars
from tests.daq.sending import Pulses
from tests.support import Source, image, wait_until


@pytest.fixture
def pulses() -> Iterator[Pulses]:
    made = Pulses()
    yield made
    made.close()


def writer_of(stream: str, file: Path, **options: Any) -> AcquisitionWriter:
    return AcquisitionWriter(
        WriterSettings.of(stream=stream, output_file=str(file), user_id=-1, rest_port=0, **options)
    )


@pytest.mark.parametrize("compression", ["none", "lz4", "bitshuffle_lz4"])
def test_messages_with_an_image_in_the_nexus_layout(
    pulses: Pulses, tmp_path: Path, compression: str
) -> None:
    pulses.stream.channels(
        *scalars("A"), ChannelHeader("TEXT", "string"), camera(compression=compression)
    )

    def parts(pulse: int) -> Any:
        values = {"A": pulse / 2, "TEXT": f"p{pulse}", "CAM": picture(pulse)}
        if pulse == 7:
            del values["CAM"]
        return pulses.stream.encoder.encode(pulse, pulse * 1000, values)

    writer = writer_of(pulses.address, tmp_path / "run.h5", layout="nexus")
    writer.set_parameters(dict.fromkeys(REQUIRED, "me"))
    one = writer.start(5)
    pulses.run([5, 6, 7, 9, 10, 11, 12], parts).wait()
    wait_until(lambda: one.progress().last_pulse_id == 12)
    # Late: what is behind it is cut off.
    one.stop(10)
    assert one.over.wait(5)
    assert one.phase is Phase.DONE, one.progress()
    assert one.progress().lost == [(7, 8)]
    assert one.progress().damaged == {"CAM": 1}
    report = verify(tmp_path / "run.h5")
    assert (str(report.ids), report.problems) == ("5-6,9-10", [])
    assert report.n_lost == 2
    with h5py.File(tmp_path / "run.h5") as file:
        entry = file["entry"]
        assert entry["data/time"][()].tolist() == [5000, 6000, 9000, 10000]
        assert np.array_equal(entry["data/data"][2], picture(9))
        assert entry["attributes/A"][()].tolist() == [2.5, 3.0, 4.5, 5.0]
        assert entry["attributes/TEXT"].asstr()[3] == "p10"
        assert entry["general_user/description"].asstr()[()] == "me"
    writer.close()


@pytest.mark.parametrize("layout", ["swissfel", "nexus"])
def test_a_range_of_a_pva_channel(source: Source, tmp_path: Path, layout: str) -> None:
    file = tmp_path / "run.h5"
    writer = writer_of(f"pva://{source.channel}", file, layout=layout)
    one = writer.start(3, stop_pulse_id=40)
    # The channel's first value has come.
    wait_until(lambda: one.progress().skipped == 1)
    source.publish(range(1, 51), period=0.002)
    assert one.over.wait(5), one.progress()
    assert (one.phase, one.progress().n_lost) == (Phase.DONE, 0)
    assert str(verify(file).ids) == "3-40"
    with h5py.File(file) as h5:
        path = "entry/data/data" if layout == "nexus" else f"data/{source.channel}/data"
        assert np.array_equal(h5[path][7], image(10))
    writer.close()


def test_a_range_of_shared_memory(prefix: str, tmp_path: Path) -> None:
    publisher = ShmPublisher(f"{prefix}camera", ShmSettings())
    publisher.start()
    builder = ObjectBuilder()
    publisher.open(builder.build(Frame.of(0, image(0))))
    writer = writer_of(f"shm://{prefix}camera", tmp_path / "run.h5", layout="nexus")
    one = writer.start(3, stop_pulse_id=40)
    wait_until(lambda: publisher.subscribers == 1)
    for number in range(1, 51):
        publisher.publish(builder.build(Frame.of(number, image(number))))
    assert one.over.wait(5), one.progress()
    assert one.phase is Phase.DONE
    assert str(verify(tmp_path / "run.h5").ids) == "3-40"
    writer.close()
    publisher.stop()


def packed(frame: Frame, codec: str) -> Frame:
    """The frame with its payload compressed."""
    payload = np.frombuffer(
        memoryview(encode(codec, frame.payload.reshape(frame.stored_shape))), np.uint8
    )
    if codec == "lz4":
        # As area detectors have it: without the header of HDF5's filter.
        payload = payload[16:]
    return Frame(
        frame.id, payload, frame.stored_shape, time_ns=frame.time_ns, dtype=frame.dtype,
        codec=codec, color_mode=frame.color_mode, attributes=frame.attributes,
    )  # fmt: skip


def colour(number: int) -> np.ndarray:
    return np.stack([picture(number), picture(number + 1), picture(number + 2)], axis=2)


def has_come(one: Acquisition, frame: Frame) -> bool:
    found = one.progress()
    return found.newest_pulse_id == frame.id if frame.has_image else found.malformed > 0


def write_frames(source: Source, file: Path, frames: list[Frame], layout: str) -> Acquisition:
    """Write the images 1 to 5 of the source's channel."""
    writer = writer_of(f"pva://{source.channel}", file, layout=layout)
    one = writer.start(1, stop_pulse_id=5)
    wait_until(lambda: one.progress().skipped == 1)
    for frame in frames:
        source.put(source.builder.build(frame))
        # One after the other: a monitor that is late gets the newest only.
        wait_until(lambda frame=frame: has_come(one, frame))
    assert one.over.wait(10), one.progress()
    writer.close()
    return one


@pytest.mark.parametrize("codec", ["", "lz4", "bslz4", "blosc"])
@pytest.mark.parametrize("layout", ["swissfel", "nexus"])
def test_compressed_images_and_their_attributes(
    source: Source, tmp_path: Path, layout: str, codec: str
) -> None:
    file, name = tmp_path / "run.h5", source.channel
    attributes = {"gain": 1.5, "n": 3, "who": "me"}
    frames = [Frame.of(i, picture(i), time_ns=i * 1000, attributes=attributes) for i in range(1, 6)]
    if codec:
        frames = [packed(frame, codec) for frame in frames]
    one = write_frames(source, file, frames, layout)
    assert (one.phase, one.progress().damaged) == (Phase.DONE, {})
    assert verify(file).problems == []
    with h5py.File(file) as h5:
        images, value = (
            (h5["entry/data/data"], lambda key: h5[f"entry/attributes/{name}:{key}"][3])
            if layout == "nexus"
            else (h5[f"data/{name}/data"], lambda key: np.squeeze(h5[f"data/{name}:{key}/data"][3]))
        )
        assert np.array_equal(images[3], picture(4))
        assert (value("gain"), value("n"), value("who")) == (1.5, 3, b"me")
        # Only the SwissFEL layout knows no blosc.
        stored = codec if layout == "nexus" or codec != "blosc" else ""
        assert codec_of(images) == (stored or "none")


@pytest.mark.parametrize("mode", [ColorMode.RGB1, ColorMode.RGB2, ColorMode.RGB3])
@pytest.mark.parametrize("layout", ["swissfel", "nexus"])
def test_compressed_colour_images(
    source: Source, tmp_path: Path, layout: str, mode: ColorMode
) -> None:
    file = tmp_path / "run.h5"
    frames = [packed(Frame.of(i, colour(i), color_mode=mode), "lz4") for i in range(1, 6)]
    one = write_frames(source, file, frames, layout)
    assert (one.phase, one.progress().damaged) == (Phase.DONE, {})
    with h5py.File(file) as h5:
        path = "entry/data/data" if layout == "nexus" else f"data/{source.channel}/data"
        assert np.array_equal(h5[path][2], colour(3))


@pytest.mark.parametrize("codec", ["lz4", "bslz4", "blosc"])
@pytest.mark.parametrize("layout", ["swissfel", "nexus"])
def test_an_image_that_cannot_be_decoded_is_a_damaged_value(
    source: Source, tmp_path: Path, layout: str, codec: str
) -> None:
    file = tmp_path / "run.h5"
    frames = [packed(Frame.of(i, picture(i)), codec) for i in range(1, 6)]
    frames[2] = Frame(3, frames[2].payload[:-40], (256, 320), dtype=frames[2].dtype, codec=codec)
    one = write_frames(source, file, frames, layout)
    assert (one.phase, one.progress().damaged) == (Phase.DONE, {source.channel: 1})
    if layout == "nexus":
        assert one.progress().lost == [(3, 3)]
        assert str(verify(file).ids) == "1-2,4-5"
    else:
        with h5py.File(file) as h5:
            assert h5[f"data/{source.channel}/is_data_present"][()].tolist() == [1, 1, 0, 1, 1]


def test_objects_without_an_image_are_counted(source: Source, tmp_path: Path) -> None:
    frames = [Frame.of(i, picture(i)) for i in range(1, 6)]
    frames[2] = Frame(3, np.empty(0, np.uint16), ())
    one = write_frames(source, tmp_path / "run.h5", frames, "nexus")
    found = one.progress()
    assert (found.lost, found.malformed) == ([(3, 3)], 1)
    assert "object 3 has no image" in found.last_error
