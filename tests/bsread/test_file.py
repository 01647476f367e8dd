from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pvapy_stream.bsread.codec import ChannelHeader, Encoder
from pvapy_stream.bsread.file import SwissfelFile
from pvapy_stream.errors import FileError
from pvapy_stream.files.completeness import verify
from pvapy_stream.files.ending import Ending
from pvapy_stream.files.repair import repair
from pvapy_stream.files.swissfel_layout import DUPLICATE, OUTSIDE
from tests.bsread.messages import START, Stream, camera, picture, scalars
from tests.files.support import start
from tests.support import rounds, wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.h5"


def values_of(path: Path, channel: str, suffix: str = "") -> tuple[Any, Any, Any, Any]:
    """Pulse ids, presence, values and times of a channel."""
    with h5py.File(path) as file:
        group = file["data"][channel]
        return (
            group["pulse_id"][()].tolist(),
            group[f"is_data_present{suffix}"][()].tolist(),
            group[f"data{suffix}"][()],
            group[f"timestamp{suffix}"][()].tolist(),
        )


def test_the_layout(path: Path) -> None:
    stream = Stream(*scalars("A"), ChannelHeader("TEXT", "string"), camera())
    with_user = {"user": "p12345", "process": ""}
    file = SwissfelFile(path, with_user, {"stream": "tcp://somewhere:1"})
    for pulse in range(5, 10):
        file.add(
            stream.message(pulse, {"A": pulse / 2, "TEXT": f"pulse {pulse}", "CAM": picture(pulse)})
        )
    file.close()
    with h5py.File(path) as h5:
        assert h5["general/user"][()] == b"p12345"
        assert h5["general/user"].dtype == "S6"
        assert h5["general/created"][()] == b"not given"
        assert h5["general/process"][()] == b"not given"
        assert h5["data/A/data"].shape == (5, 1)
        assert h5["data/A/data"].maxshape == (None, 1)
        assert h5["data/A/data"].dtype == "f8"
        assert h5["data/CAM/data"].shape == (5, 256, 320)
        assert h5["data/TEXT/data"].shape == (5,)
        assert h5["data/TEXT/data"].asstr()[3] == "pulse 8"
        assert h5["data/A/pulse_id"].dtype == "i8"
        assert h5["data/A/is_data_present"].dtype == "u1"
        assert h5["data/A/timestamp"].dtype == "i8"
        assert h5["acquisition"].attrs["stream"] == "tcp://somewhere:1"
        assert h5["acquisition/timestamp"][0] == START + 5000
    pulses, present, values, times = values_of(path, "CAM")
    assert pulses == [5, 6, 7, 8, 9]
    assert present == [1] * 5
    assert all(np.array_equal(value, picture(pulse)) for pulse, value in enumerate(values, 5))
    assert times == [START + pulse * 1000 for pulse in pulses]
    assert verify(path).ok


@pytest.mark.parametrize("encoding", ["little", "big"])
@pytest.mark.parametrize("compression", ["none", "lz4", "bitshuffle_lz4"])
def test_all_types_byte_orders_and_compressions(
    path: Path, encoding: str, compression: str
) -> None:
    types = ["bool", *(f"{s}int{n}" for s in ("", "u") for n in (8, 16, 32, 64))]
    types += ["float32", "float64"]
    shapes = {"small": (20,), "large": (200, 180)}
    headers = [
        ChannelHeader(f"{kind}-{size}", kind, shape, encoding, compression)
        for kind in types
        for size, shape in shapes.items()
    ]
    stream = Stream(*headers)
    file = SwissfelFile(path)
    sent = {
        h.name: (np.arange(np.prod(h.shape)) % 2).reshape(h.array_shape).astype(h.type)
        for h in headers
    }
    file.add(stream.message(1, sent))
    file.add(stream.message(2, {}))
    file.add(stream.message(3, sent))
    file.close()
    for header in headers:
        pulses, present, values, _ = values_of(path, header.name)
        assert (pulses, present) == ([1, 2, 3], [1, 0, 1])
        assert np.array_equal(values[0], sent[header.name])
        assert np.array_equal(values[2], sent[header.name])
        assert not values[1].any()


def test_compressed_values_are_stored_as_they_came(path: Path) -> None:
    stream = Stream(camera(compression="bitshuffle_lz4"), camera("LZ4", compression="lz4"))
    message = stream.message(1, {"CAM": picture(1), "LZ4": picture(1)})
    file = SwissfelFile(path)
    file.add(message)
    file.close()
    with h5py.File(path) as h5:
        mask, chunk = h5["data/CAM/data"].id.read_direct_chunk((0, 0, 0))
        assert mask == 0
        assert bytes(chunk) == bytes(message.channels[0].data)
        assert "32004" in h5["data/LZ4/data"]._filters
        assert np.array_equal(h5["data/LZ4/data"][0], picture(1))


def test_a_change_of_compression_or_byte_order_is_none_of_type(path: Path) -> None:
    forms = [("bitshuffle_lz4", "little"), ("none", "little"), ("lz4", "big"), ("none", "big")]
    stream = Stream()
    file = SwissfelFile(path)
    for pulse, (compression, encoding) in enumerate(forms):
        stream.channels(
            ChannelHeader("CAM", "uint16", (320, 256), encoding, compression),
            ChannelHeader("W", "int32", (8,), encoding, compression),
        )
        file.add(stream.message(pulse, {"CAM": picture(pulse), "W": np.arange(8) + pulse}))
    file.close()
    assert [value[0, 0] for value in values_of(path, "CAM")[2]] == [0, 1, 2, 3]
    assert [value[0] for value in values_of(path, "W")[2]] == [0, 1, 2, 3]
    with h5py.File(path) as h5:
        assert "data(1)" not in h5["data/CAM"]


def test_a_channel_first_missing_has_its_values_at_their_pulse_ids(path: Path) -> None:
    stream = Stream(*scalars("A", "B"))
    file = SwissfelFile(path)
    file.add(stream.message(10, {"A": 1.0}))
    file.flush()
    file.add(stream.message(11, {"A": 1.0, "B": 11.0}))
    file.add(stream.message(12, {"B": 12.0}))
    stream.channels(*scalars("A", "B", "LATE"))
    file.flush()
    file.add(stream.message(13, {"LATE": 13.0}))
    file.close()
    pulses, present, values, times = values_of(path, "B")
    assert pulses == [10, 11, 12, 13]
    assert present == [0, 1, 1, 0]
    assert values[:, 0].tolist() == [0, 11, 12, 0]
    assert times == [0, START + 11000, START + 12000, 0]
    assert values_of(path, "A")[:2] == ([10, 11, 12, 13], [1, 1, 0, 0])
    pulses, present, values, _ = values_of(path, "LATE")
    assert (pulses, present, values[3, 0]) == ([10, 11, 12, 13], [0, 0, 0, 1], 13)


def test_a_channel_that_never_has_a_value_says_so(path: Path) -> None:
    stream = Stream(*scalars("A", "NEVER"))
    file = SwissfelFile(path)
    for pulse in range(3):
        file.add(stream.message(pulse, {"A": 1.0}))
    file.close()
    with h5py.File(path) as h5:
        assert "data" not in h5["data/NEVER"]
        assert h5["data/NEVER/is_data_present"][()].tolist() == [0, 0, 0]
        assert h5["data/NEVER/pulse_id"][()].tolist() == [0, 1, 2]


def test_reordered_renamed_added_channels_keep_their_names(path: Path) -> None:
    stream = Stream(*scalars("A", "B"))
    file = SwissfelFile(path)
    file.add(stream.message(1, {"A": 1.0, "B": -1.0}))
    stream.channels(*scalars("B", "A"))
    file.add(stream.message(2, {"A": 2.0, "B": -2.0}))
    stream.channels(*scalars("B", "RENAMED", "C"))
    file.add(stream.message(3, {"RENAMED": 3.0, "B": -3.0, "C": 30.0}))
    stream.channels()
    file.add(stream.message(4, {}))
    stream.channels(*scalars("A", "B"))
    file.add(stream.message(5, {"A": 5.0, "B": -5.0}))
    file.close()
    found = {name: values_of(path, name) for name in ("A", "B", "C", "RENAMED")}
    assert all(pulses == [1, 2, 3, 4, 5] for pulses, *_ in found.values())
    assert found["A"][1] == [1, 1, 0, 0, 1]
    assert found["A"][2][:, 0].tolist() == [1, 2, 0, 0, 5]
    assert found["B"][2][:, 0].tolist() == [-1, -2, -3, 0, -5]
    assert found["RENAMED"][2][:, 0].tolist() == [0, 0, 3, 0, 0]
    assert found["C"][1] == [0, 0, 1, 0, 0]


def test_a_type_change_keeps_the_old_values_as_data_1(path: Path) -> None:
    stream = Stream(*scalars("A"), camera())
    file = SwissfelFile(path)
    for pulse in range(3):
        file.add(stream.message(pulse, {"A": pulse + 0.5, "CAM": picture(pulse)}))
    stream.channels(ChannelHeader("A", "int32"), camera(shape=(64, 600)))
    # Without a value the header may say anything.
    file.add(stream.message(3, {}))
    for pulse in range(4, 6):
        file.add(stream.message(pulse, {"A": pulse, "CAM": picture(pulse, (600, 64))}))
    stream.channels(*scalars("A"))
    file.add(stream.message(6, {"A": 6.5}))
    file.close()
    pulses, present, values, _ = values_of(path, "A", "(1)")
    assert pulses == [0, 1, 2, 3, 4, 5, 6]
    assert values.dtype == "f8"
    assert values[[0, 1, 2, 6], 0].tolist() == [0.5, 1.5, 2.5, 6.5]
    assert present == [1, 1, 1, 0, 0, 0, 1]
    _, present, values, times = values_of(path, "A")
    assert values.dtype == "i4"
    assert present == [0, 0, 0, 0, 1, 1, 0]
    assert values[:, 0].tolist() == [0, 0, 0, 0, 4, 5, 0]
    assert times[4] == START + 4000
    with h5py.File(path) as h5:
        assert h5["data/CAM/data(1)"].shape == (3, 256, 320)
        assert h5["data/CAM/data"].shape == (7, 600, 64)
        assert np.array_equal(h5["data/CAM/data"][5], picture(5, (600, 64)))
    assert verify(path).problems == []


def test_six_camera_frames_take_less_than_20_megabytes(path: Path) -> None:
    stream = Stream(camera(shape=(1280, 1024)), *scalars("A"))
    file = SwissfelFile(path)
    for pulse in range(6):
        file.add(stream.message(pulse, {"CAM": picture(pulse, (1024, 1280)), "A": 1.0}))
    file.close()
    assert path.stat().st_size < 20e6
    with h5py.File(path) as h5:
        assert h5["data/CAM/data"].shape == (6, 1024, 1280)
        assert h5["data/CAM/data"].chunks == (1, 1024, 1280)


def test_a_frame_of_50_megabytes(path: Path) -> None:
    shape = (5000, 5000)
    stream = Stream(camera(shape=shape))
    file = SwissfelFile(path)
    file.add(stream.message(1, {"CAM": picture(1, shape)}))
    file.close()
    assert np.array_equal(values_of(path, "CAM")[2][0], picture(1, shape))


def test_damaged_values_are_counted_and_absent(path: Path) -> None:
    stream = Stream(*scalars("A", "B"), camera(compression="bitshuffle_lz4"))
    file = SwissfelFile(path)
    for pulse in range(3):
        parts = stream.parts(pulse, {"A": 1.0, "B": 2.0, "CAM": picture(pulse)})
        if pulse == 1:
            parts[4], parts[6] = b"short", parts[6][:-10]
        file.add(stream.decoder.decode(parts))  # type: ignore[arg-type]
    assert file.bad_values == {"B": 1, "CAM": 1}
    file.close()
    assert values_of(path, "A")[1] == [1, 1, 1]
    assert values_of(path, "B")[1] == [1, 0, 1]
    assert values_of(path, "CAM")[1] == [1, 0, 1]
    assert verify(path).ok


def test_sizes_that_are_lies_come_into_no_file(path: Path) -> None:
    stream = Stream(*scalars("A"), camera(compression="bitshuffle_lz4"))
    file = SwissfelFile(path)
    values = {"A": 1.0, "CAM": picture(1)}
    file.add(stream.message(1, values))
    good = stream.parts(2, values)
    bomb = (2**40).to_bytes(8, "big") + bytes(good[4])[8:]
    lies = [b"[1099511627776]", b"[40000,30000]", b"[321,256]", b"[1,320,256,0]"]
    for lie in lies:
        header = bytes(good[1]).replace(b"[320,256]", lie)
        file.add(stream.decoder.decode([good[0], header, *good[2:]]))  # type: ignore[arg-type]
        file.add(stream.decoder.decode([*good[:4], bomb, good[5]]))  # type: ignore[arg-type]
    assert file.bad_values == {"CAM": 2 * len(lies)}
    file.add(stream.message(99, values))
    file.close()
    with h5py.File(path) as h5:
        assert "data(1)" not in h5["data/CAM"]
        assert h5["data/CAM/data"].shape == (2 + 2 * len(lies), 256, 320)
        assert h5["data/CAM/is_data_present"][()].tolist() == [1, *[0] * 2 * len(lies), 1]
    assert verify(path).problems == []


@pytest.mark.parametrize("n", [20, 20_000])
@pytest.mark.parametrize("block", [0, 8192])
def test_bitshuffled_values_of_any_block_size(path: Path, n: int, block: int) -> None:
    stream = Stream(ChannelHeader("W", "int32", (n,), compression="bitshuffle_lz4"))
    parts = stream.parts(1, {"W": np.arange(n)})
    # 8192 bytes are what 0 stands for.
    parts[2] = bytes(parts[2])[:8] + block.to_bytes(4, "big") + bytes(parts[2])[12:]
    file = SwissfelFile(path)
    file.add(stream.decoder.decode(parts))  # type: ignore[arg-type]
    file.close()
    assert np.array_equal(values_of(path, "W")[2][0], np.arange(n))


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("n", [20, 200_000])
def test_lz4_with_both_prefixes(path: Path, n: int, order: str) -> None:
    stream = Stream()
    header = ChannelHeader("W", "int32", (n,), compression="lz4")
    stream.encoder = Encoder([header], lz4_order=order)
    file = SwissfelFile(path)
    file.add(stream.message(1, {"W": np.arange(n) // 3}))
    file.close()
    assert np.array_equal(values_of(path, "W")[2][0], np.arange(n) // 3)


def test_channels_with_odd_names(path: Path) -> None:
    names = ["A/B", "..", "%2F", "ü:1", "x" * 300]
    stream = Stream(*scalars(*names))
    file = SwissfelFile(path)
    file.add(stream.message(1, {name: float(n) for n, name in enumerate(names)}))
    file.close()
    with h5py.File(path) as h5:
        found = {g.attrs.get("name", key): g["data"][0, 0] for key, g in h5["data"].items()}
    assert found == {name: float(n) for n, name in enumerate(names)}


def test_cut_lost_flags_and_notes_at_the_end(path: Path) -> None:
    stream = Stream(*scalars("A"), camera())
    file = SwissfelFile(path, {"user": "before"})
    for pulse in (5, 6, 11, 6, 9, 10):
        flags = DUPLICATE if file.n_rows == 3 else 0
        file.add(stream.message(pulse, {"A": 1.0, "CAM": picture(1)}), flags)
    file.close(Ending(8, [(7, 8)], {"user": "after"}, {"ended": "asked for"}))
    assert file.n_rows == 4
    assert values_of(path, "CAM")[0] == [5, 6, 11, 6]
    assert values_of(path, "CAM")[2].shape[0] == 4
    with h5py.File(path) as h5:
        assert h5["acquisition/lost"][()].tolist() == [[7, 8]]
        assert h5["acquisition/flags"][()].tolist() == [0, 0, OUTSIDE, DUPLICATE]
        assert h5["acquisition"].attrs["ended"] == "asked for"
        assert h5["general/user"][()] == b"after"
    assert verify(path).lost == {"did not arrive": verify(path).lost["did not arrive"]}
    assert verify(path).n_lost == 2


def test_a_file_that_exists_is_never_replaced_unless_told(path: Path) -> None:
    SwissfelFile(path).close()
    before = path.read_bytes()
    with pytest.raises(FileError, match="exists"):
        SwissfelFile(path)
    assert path.read_bytes() == before
    stream = Stream(*scalars("A"))
    file = SwissfelFile(path, overwrite=True)
    # Until the new one is complete, the old one stays.
    assert path.read_bytes() == before
    file.add(stream.message(1, {"A": 1.0}))
    file.close()
    assert values_of(path, "A")[0] == [1]


def test_one_that_came_into_being_meanwhile_stays_too(path: Path) -> None:
    file = SwissfelFile(path)
    path.write_text("somebody else's")
    with pytest.raises(FileError, match="is not replaced; move it away"):
        file.close()
    assert path.read_text() == "somebody else's"
    assert verify(file.part).state == "closed"
    path.unlink()
    assert repair(file.part) == (path, 0)


READER = """
import sys, h5py
with h5py.File(sys.argv[1], "r", swmr=True) as file:
    for line in sys.stdin:
        channel = file["data"][line.strip()]
        for dataset in channel.values():
            dataset.refresh()
        values = channel["data"][()].tolist()
        print(len(channel["pulse_id"]), [v if isinstance(v, bytes) else v[0] for v in values])
        sys.stdout.flush()
"""


def test_what_was_taken_can_be_read_along(path: Path) -> None:
    stream = Stream(*scalars("A"), ChannelHeader("TEXT", "string"))
    file = SwissfelFile(path)
    file.add(stream.message(1, {"A": 1.0, "TEXT": "one"}))
    with start(READER, file.part) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None

        def seen(channel: str) -> str:
            reader.stdin.write(f"{channel}\n")
            reader.stdin.flush()
            return reader.stdout.readline().strip()

        assert seen("A") == "1 [1.0]"
        file.add(stream.message(2, {"A": 2.0, "TEXT": "two"}))
        wait_until(lambda: file.keep_up() or file.n_written == 2)
        assert seen("A") == "2 [1.0, 2.0]"
        assert seen("TEXT") == "2 [b'one', b'two']"
        # Its groups and datasets are made while somebody reads.
        stream.channels(*scalars("A", "LATE"))
        file.add(stream.message(3, {"A": 3.0, "LATE": 2.0}))
        file.flush()
        file.close()
        reader.stdin.close()
        assert reader.wait(10) == 0
    assert values_of(path, "LATE")[1] == [0, 0, 1]
    assert values_of(path, "A")[2][:, 0].tolist() == [1, 2, 3]


def test_what_is_abandoned_is_repaired(path: Path) -> None:
    stream = Stream(*scalars("A"), camera(compression="bitshuffle_lz4"))
    file = SwissfelFile(path)
    for pulse in (1, 2, 4):
        file.add(stream.message(pulse, {"A": pulse, "CAM": picture(pulse)}))
    file.flush()
    file.add(stream.message(5, {"A": 5, "CAM": picture(5)}))
    file.abandon()
    assert "not closed" in verify(file.part).state
    assert repair(file.part) == (path, 3)
    report = verify(path)
    assert (report.state, report.problems, report.n_lost) == ("recovered", [], 1)
    assert values_of(path, "CAM")[2].shape == (3, 256, 320)
    with pytest.raises(FileError, match="whole"):
        repair(path)


@pytest.mark.parametrize("compression", ["bitshuffle_lz4", "lz4"])
def test_a_damaged_block_inside_a_compressed_value_is_absent(path: Path, compression: str) -> None:
    stream = Stream(*scalars("A"), camera(compression=compression))
    rng = np.random.default_rng(1)
    images = [rng.poisson(20, (256, 320)).astype(np.uint16) for _ in range(5)]
    file = SwissfelFile(path)
    for pulse, image in enumerate(images):
        parts = [bytes(part) for part in stream.parts(pulse, {"A": 1.0, "CAM": image})]
        if pulse == 2:
            # The sizes are all right: only who decompresses it sees that it is damaged.
            parts[4] = parts[4][:16] + b"\xff" * 40 + parts[4][56:]
        file.add(stream.decoder.decode(parts))  # type: ignore[arg-type]
    assert file.bad_values == {"CAM": 1}
    assert list(file.damaged) == [2]
    file.close()
    _, present, values, _ = values_of(path, "CAM")
    assert present == [1, 1, 0, 1, 1]
    assert all(np.array_equal(values[k], images[k]) for k in (0, 1, 3, 4))
    assert verify(path).problems == []
    with h5py.File(path) as h5:
        assert h5["acquisition"].attrs["damaged_values"] == '{"CAM": 1}'


GROWTH = """
import sys
from pathlib import Path
import psutil
from pvapy_stream.bsread.file import SwissfelFile
from tests.bsread.messages import Stream, scalars
names = [f"C{n}" for n in range(200)]
stream = Stream(*scalars(*names))
message = stream.message(1, dict.fromkeys(names, 1.0))
file = SwissfelFile(Path(sys.argv[1]))
def grow(n):
    for k in range(n):
        file.add(message)
        if k % 100 == 99:
            file.flush()
    return psutil.Process().memory_info().rss / 1e6
first = grow(500)
print(grow(int(sys.argv[2])) - first)
file.close()
"""


def test_memory_does_not_grow_with_rows_and_channels(path: Path) -> None:
    n = rounds(2000)
    with start(GROWTH, path, n) as process:
        out, err = process.communicate(timeout=300)
    # 6,000 rows of 200 channels are 20 MB.
    assert float(out) < 7 * n / 6000, err
