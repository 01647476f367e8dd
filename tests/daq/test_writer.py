from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest

from pvapy_stream.bsread.codec import ChannelHeader
from pvapy_stream.bsread.file import SwissfelFile
from pvapy_stream.daq.acquisition import Acquisition
from pvapy_stream.daq.states import Phase
from pvapy_stream.daq.writer import REQUIRED, AcquisitionWriter
from pvapy_stream.errors import ConflictError, FileError, RangeError, SettingsError
from pvapy_stream.files.completeness import verify
from pvapy_stream.files.swissfel_layout import DUPLICATE, OUT_OF_ORDER
from pvapy_stream.settings import WriterSettings
from tests.bsread.messages import camera, picture, scalars
from tests.daq.sending import Pulses, lost, rows
from tests.support import wait_until

Make = Callable[..., AcquisitionWriter]


@pytest.fixture
def pulses() -> Iterator[Pulses]:
    made = Pulses()
    yield made
    made.close()


@pytest.fixture
def make(pulses: Pulses, tmp_path: Path) -> Iterator[Make]:
    made: list[AcquisitionWriter] = []

    def one(**options: Any) -> AcquisitionWriter:
        given = {"stream": pulses.address, "output_file": str(tmp_path / "run.h5")}
        made.append(
            AcquisitionWriter(
                WriterSettings.of(**{**given, "user_id": -1, "rest_port": 0, **options})
            )
        )
        return made[-1]

    yield one
    for writer in made:
        writer.close()


def over(acquisition: Acquisition, timeout: float = 60.0) -> Phase:
    """How it ended."""
    assert acquisition.over.wait(timeout), acquisition.progress()
    return acquisition.phase


def last_of(acquisition: Acquisition) -> int:
    return acquisition.progress().last_pulse_id or 0


def test_a_range_is_written_exactly(pulses: Pulses, make: Make, tmp_path: Path) -> None:
    writer = make()
    pulses.run()
    one = writer.start(50, stop_pulse_id=99)
    assert over(one) is Phase.DONE
    assert rows(tmp_path / "run.h5") == list(range(50, 100))
    found = one.progress()
    assert (found.rows, found.n_lost, found.lost) == (50, 0, [])
    assert (found.first_pulse_id, found.last_pulse_id) == (50, 99)
    assert found.skipped == 49
    report = verify(tmp_path / "run.h5")
    assert report.ok, report


def test_a_stream_that_ends_exactly_at_stop_finishes(
    pulses: Pulses, make: Make, tmp_path: Path
) -> None:
    one = make().start(5, stop_pulse_id=50)
    pulses.run(range(51)).wait()
    began = time.monotonic()
    assert over(one) is Phase.DONE
    assert time.monotonic() - began < 60
    assert rows(tmp_path / "run.h5") == list(range(5, 51))


def test_a_stop_that_is_set_late_does_not_overshoot(
    pulses: Pulses, make: Make, tmp_path: Path
) -> None:
    one = make().start(5)
    pulses.run(range(101)).wait()
    wait_until(lambda: last_of(one) == 100)
    began = time.monotonic()
    one.stop(50)
    assert over(one) is Phase.DONE
    assert time.monotonic() - began < 60
    assert rows(tmp_path / "run.h5") == list(range(5, 51))
    assert one.progress().rows == 46


def test_a_stop_pulse_that_is_lost_ends_it_too(pulses: Pulses, make: Make, tmp_path: Path) -> None:
    one = make().start(5, stop_pulse_id=50)
    pulses.run([*range(45), 52]).wait()
    assert over(one) is Phase.DONE
    assert rows(tmp_path / "run.h5") == list(range(5, 45))
    assert lost(tmp_path / "run.h5") == [[45, 50]]
    assert one.progress().n_lost == 6


def test_a_start_that_is_gone_is_told_in_reply_and_file(
    pulses: Pulses, make: Make, tmp_path: Path
) -> None:
    writer = make()
    pulses.run(range(70, 100))
    one = writer.start(50, stop_pulse_id=80)
    assert one.progress().lost == [(50, 69)]
    assert over(one) is Phase.DONE
    assert rows(tmp_path / "run.h5") == list(range(70, 81))
    assert lost(tmp_path / "run.h5") == [[50, 69]]


def test_a_range_that_is_entirely_gone_is_an_error(
    pulses: Pulses, make: Make, tmp_path: Path
) -> None:
    writer = make()
    pulses.run(range(500, 600))
    one = writer.start(10, stop_pulse_id=20)
    assert over(one) is Phase.ERROR
    assert "pulses 10 to 20 are no longer available" in one.progress().problem
    assert lost(tmp_path / "run.h5") == [[10, 20]]
    assert rows_of(tmp_path / "run.h5") == []


def rows_of(path: Path) -> list[int]:
    with h5py.File(path) as file:
        return file["acquisition/pulse_id"][()].tolist()


def test_a_range_that_never_comes_has_a_time_limit(
    pulses: Pulses, make: Make, tmp_path: Path
) -> None:
    writer = make(start_limit=0.6)
    pulses.run()
    one = writer.start(10**9)
    assert over(one) is Phase.ERROR
    assert "pulse 1000000000 did not arrive within" in one.progress().problem
    assert (tmp_path / "run.h5").exists()


def test_a_source_that_never_comes_has_a_time_limit(make: Make) -> None:
    one = make(silence_limit=0.5).start(1)
    assert over(one) is Phase.ERROR
    assert "no message from tcp://127.0.0.1" in one.progress().problem
    assert one.progress().source == "unseen"


def test_a_dead_source_shows_within_two_seconds(pulses: Pulses, make: Make, tmp_path: Path) -> None:
    writer = make()
    pulses.run()
    one = writer.start(None)
    wait_until(lambda: one.progress().rows > 20)
    assert one.progress().status == "writing"
    assert one.progress().source == "alive"
    pulses.stop()
    died = time.monotonic()
    wait_until(lambda: one.progress().status == "error")
    assert time.monotonic() - died < 60
    found = one.progress()
    assert (found.source, found.phase) == ("silent", "writing")
    assert "no message from" in found.problem
    # When it is back, so is the state.
    pulses.run(range(pulses.sent[-1] + 11, pulses.sent[-1] + 60))
    wait_until(lambda: one.progress().status == "writing")
    pulses.wait()
    writer.end([one])
    assert over(one) is Phase.DONE
    assert len(lost(tmp_path / "run.h5")) == 1


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_now_is_now_whatever_the_clock_of_the_source_says(
    pulses: Pulses, make: Make, tmp_path: Path, hours: int
) -> None:
    def off(pulse: int) -> Any:
        values = {"A": pulse / 2, "B": -float(pulse)}
        return pulses.stream.encoder.encode(
            pulse, time.time_ns() + hours * 3_600_000_000_000, values
        )

    writer = make()
    pulses.run(None, off)
    # The first one was made before, and waits in the sender for somebody who pulls.
    time.sleep(0.5)
    one = writer.start(None)
    assert one.progress().status == "writing"
    wait_until(lambda: last_of(one) > 40)
    asked = pulses.sent[-1]
    one.stop(None)
    assert over(one) is Phase.DONE
    found = rows(tmp_path / "run.h5")
    assert found == list(range(2, found[-1] + 1))
    assert asked - 1 <= found[-1] <= asked + 3


def test_many_new_channels_are_no_error(pulses: Pulses, make: Make) -> None:
    names = [f"C{n}" for n in range(1000)]
    pulses.stream.channels(*scalars(*names))
    values = dict.fromkeys(names, 1.0)
    # Made before: where the machine does much else, the source would fall silent in truth.
    messages = [pulses.stream.encoder.encode(n, time.time_ns(), values) for n in range(1, 5)]
    one = make().start(1, stop_pulse_id=4)
    pulses.run(range(1, 5), lambda pulse: messages[pulse - 1])
    seen = set()
    while not one.over.wait(0.05):
        found = one.progress()
        seen.add((found.status, found.source))
    assert "error" not in {status for status, _ in seen}, seen
    assert one.phase is Phase.DONE


def test_a_range_that_lies_behind_what_came_is_gone(
    pulses: Pulses, make: Make, tmp_path: Path
) -> None:
    one = make().start(939)
    pulses.run(range(2000, 2020)).wait()
    wait_until(lambda: last_of(one) == 2019)
    one.stop(1239)
    assert over(one) is Phase.ERROR
    assert "pulses 939 to 1239 are no longer available" in one.progress().problem
    assert one.progress().lost == [(939, 1239)]
    assert lost(tmp_path / "run.h5") == [[939, 1239]]


def test_a_source_that_starts_again_loses_nothing_between(
    pulses: Pulses, make: Make, tmp_path: Path
) -> None:
    writer = make()
    one = writer.start(None)
    pulses.run([*range(3154, 3200), *range(100, 169)]).wait()
    wait_until(lambda: last_of(one) == 168)
    one.end()
    assert over(one) is Phase.DONE
    assert (one.progress().lost, one.progress().n_lost) == ([], 0)
    assert [len(account.processed) for account in writer.ledgers()] == [46, 69]


def test_an_odd_pulse_id_does_not_end_it_later(pulses: Pulses, make: Make, tmp_path: Path) -> None:
    one = make().start(1)
    pulses.run([*range(1, 10), 2**50, *range(10, 21)]).wait()
    wait_until(lambda: last_of(one) == 20)
    one.stop(30)
    pulses.run(range(21, 31)).wait()
    assert over(one) is Phase.DONE
    assert (one.progress().last_pulse_id, one.progress().n_lost) == (30, 0)


def test_duplicates_and_late_pulses_are_written_and_flagged(
    pulses: Pulses, make: Make, tmp_path: Path
) -> None:
    one = make().start(1, stop_pulse_id=9)
    pulses.run([1, 2, 2, 5, 3, 9]).wait()
    assert over(one) is Phase.DONE
    with h5py.File(tmp_path / "run.h5") as file:
        assert file["acquisition/pulse_id"][()].tolist() == [1, 2, 2, 5, 3, 9]
        assert file["acquisition/flags"][()].tolist() == [0, 0, DUPLICATE, 0, OUT_OF_ORDER, 0]
    found = one.progress()
    assert (found.duplicates, found.late, found.lost) == (1, 1, [(4, 4), (6, 8)])


def test_missing_values_have_their_pulse_ids(pulses: Pulses, make: Make, tmp_path: Path) -> None:
    def some(pulse: int) -> Any:
        values = {"A": 1.0} if pulse % 3 else {"A": 1.0, "B": float(pulse)}
        return pulses.stream.encoder.encode(pulse, time.time_ns(), values)

    one = make().start(1, stop_pulse_id=30)
    pulses.run(range(1, 31), some).wait()
    assert over(one) is Phase.DONE
    with h5py.File(tmp_path / "run.h5") as file:
        channel = file["data/B"]
        assert channel["pulse_id"][()].tolist() == list(range(1, 31))
        present = channel["is_data_present"][()]
        assert present.tolist() == [int(pulse % 3 == 0) for pulse in range(1, 31)]
        assert channel["data"][present == 1, 0].tolist() == list(range(3, 31, 3))


def test_channel_changes_in_the_middle_of_a_range(
    pulses: Pulses, make: Make, tmp_path: Path
) -> None:
    def changing(pulse: int) -> Any:
        lists = {
            10: scalars("B", "A"),
            20: [],
            21: scalars("A", "NEW"),
            30: [ChannelHeader("A"), ChannelHeader("B", "int16"), camera(shape=(200, 200))],
        }
        if pulse in lists:
            pulses.stream.channels(*lists[pulse])
        values = {"A": pulse / 2, "B": -pulse, "NEW": 1.0, "CAM": picture(pulse, (200, 200))}
        names = {header.name for header in pulses.stream.encoder.channels}
        given = {name: value for name, value in values.items() if name in names}
        return pulses.stream.encoder.encode(pulse, time.time_ns(), given)

    one = make().start(1, stop_pulse_id=40)
    pulses.run(range(1, 41), changing).wait()
    assert over(one) is Phase.DONE
    with h5py.File(tmp_path / "run.h5") as file:
        data = file["data"]
        assert data["A/is_data_present"][()].tolist() == [int(p != 20) for p in range(1, 41)]
        assert data["A/data"][9:19, 0].tolist() == [p / 2 for p in range(10, 20)]
        assert data["B/data(1)"][:19, 0].tolist() == [-p for p in range(1, 20)]
        assert data["B/data"][29:, 0].tolist() == [-p for p in range(30, 41)]
        assert data["NEW/is_data_present"][()].tolist() == [int(20 < p < 30) for p in range(1, 41)]
        assert data["CAM/data"].shape == (40, 200, 200)


def test_malformed_messages_torn_multiparts_and_commands_are_passed_over(
    pulses: Pulses, make: Make, tmp_path: Path
) -> None:
    def mixed(pulse: int) -> Any:
        parts = pulses.parts(pulse)
        broken = {
            3: [b"nonsense"],
            4: parts[:-1],
            5: [b'{"htype": "bsr_stop-1.0"}'],
            6: [b"\xff" * 10, *parts[1:]],
            7: [parts[0], parts[1], *parts[4:]],
            8: [b'{"htype": "bsr_reconnect-1.0", "address": "tcp://elsewhere:1"}'],
        }
        return broken.get(pulse, parts)

    one = make().start(1, stop_pulse_id=20)
    pulses.run(range(1, 21), mixed).wait()
    assert over(one) is Phase.DONE
    found = one.progress()
    assert rows(tmp_path / "run.h5") == [1, 2, *range(9, 21)]
    assert found.malformed == 4
    assert found.last_error
    assert found.lost == [(3, 8)]


def test_one_damaged_pulse_id_does_not_end_it(pulses: Pulses, make: Make, tmp_path: Path) -> None:
    one = make().start(1, stop_pulse_id=20)
    pulses.run([*range(1, 10), 2**50, *range(10, 21)]).wait()
    assert over(one) is Phase.DONE
    assert rows(tmp_path / "run.h5") == list(range(1, 21))


def test_timestamps_are_the_senders(pulses: Pulses, make: Make, tmp_path: Path) -> None:
    one = make().start(1, stop_pulse_id=10)
    sent = {pulse: list(pulses.parts(pulse)) for pulse in range(1, 11)}
    pulses.run(range(1, 11), sent.__getitem__).wait()
    assert over(one) is Phase.DONE
    messages = [pulses.stream.decoder.decode(sent[pulse]) for pulse in range(1, 11)]
    with h5py.File(tmp_path / "run.h5") as file:
        for k, channel in enumerate(("A", "B")):
            expected = [message.channels[k].timestamp_ns for message in messages]  # type: ignore[union-attr]
            assert file["data"][channel]["timestamp"][()].tolist() == expected
        assert file["acquisition/timestamp"][()].tolist() == [m.timestamp_ns for m in messages]  # type: ignore[union-attr]


def test_parameters_are_written_and_all_four_needed(
    pulses: Pulses, make: Make, tmp_path: Path
) -> None:
    writer = make()
    with pytest.raises(RangeError, match="general/process, general/instrument are missing"):
        writer.set_parameters({"general/created": "a", "general/user": "b"})
    with pytest.raises(RangeError, match="must be a text"):
        writer.set_parameters({**dict.fromkeys(REQUIRED, "a"), "general/user": ["x"]})
    one = writer.start(1, stop_pulse_id=3)
    # Also while it writes.
    writer.set_parameters({name: name.upper() for name in REQUIRED} | {"other": 5})
    pulses.run(range(1, 4)).wait()
    assert over(one) is Phase.DONE
    with h5py.File(tmp_path / "run.h5") as file:
        assert file["general/user"][()] == b"GENERAL/USER"
        assert "other" not in file["general"]
    with pytest.raises(ConflictError, match="is over"):
        writer.set_parameters(dict.fromkeys(REQUIRED, "late"))


def test_two_starts(pulses: Pulses, make: Make, tmp_path: Path) -> None:
    writer = make()
    pulses.run()
    one = writer.start(1)
    with pytest.raises(ConflictError, match="runs only one"):
        writer.start(1, str(tmp_path / "other.h5"))
    assert not (tmp_path / "other.h5.part").exists()
    wait_until(lambda: one.progress().rows > 10)
    writer.end([one])
    assert one.phase is Phase.DONE
    with pytest.raises(ConflictError, match="is done"):
        writer.start(1)
    assert len(rows(tmp_path / "run.h5")) > 10


def test_files_that_exist(pulses: Pulses, make: Make, tmp_path: Path) -> None:
    (tmp_path / "run.h5").write_text("mine")
    writer = make()
    with pytest.raises(ConflictError, match="exists"):
        writer.start(1)
    assert writer.current.phase is Phase.WAITING
    assert (tmp_path / "run.h5").read_text() == "mine"
    # A request alone replaces nothing.
    with pytest.raises(ConflictError, match="start the writer with --force"):
        writer.start(1, force=True)
    assert (tmp_path / "run.h5").read_text() == "mine"
    (tmp_path / "other.h5").write_text("theirs")
    forced = make(force=True)
    with pytest.raises(ConflictError, match="exists"):
        forced.start(1, str(tmp_path / "other.h5"))
    one = forced.start(1, stop_pulse_id=3)
    pulses.run(range(1, 4)).wait()
    assert over(one) is Phase.DONE
    assert rows(tmp_path / "run.h5") == [1, 2, 3]
    assert (tmp_path / "other.h5").read_text() == "theirs"


def test_what_is_no_plain_file_is_never_replaced(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "run.h5"
    folder.mkdir()
    with pytest.raises(ConflictError, match="not a plain file"):
        make(force=True).start(1)
    folder.rmdir()
    os.mkfifo(folder)
    with pytest.raises(ConflictError, match="not a plain file"):
        make(force=True).start(1)
    assert stat.S_ISFIFO(folder.lstat().st_mode)


def test_the_null_device_throws_all_away(pulses: Pulses, make: Make) -> None:
    before = os.stat(os.devnull)
    writer = make(output_file=os.devnull, force=True)
    one = writer.start(1, stop_pulse_id=9)
    pulses.run(range(1, 10)).wait()
    assert over(one) is Phase.DONE
    assert (one.progress().rows, one.progress().n_lost) == (9, 0)
    assert os.stat(os.devnull) == before
    (account,) = writer.ledgers()
    assert list(account.filtered) == list(range(1, 10))
    assert not account.processed
    with pytest.raises(FileError, match="the only file that this writer writes"):
        make(output_file=os.devnull).start(1, "/dev/other")


def test_what_a_writer_has_written_itself_stays(pulses: Pulses, make: Make, tmp_path: Path) -> None:
    writer = make(service=True, output_file=str(tmp_path), force=True)
    pulses.run()
    assert over(writer.start(1, "1.h5", 9)) is Phase.DONE
    with pytest.raises(ConflictError, match="was written by acquisition 1"):
        writer.start(None, "1.h5", force=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/proc/nowhere/run.h5", "is outside of"),
        ("x" * 300, "name"),
        ("a\0b", "not a name"),
        ("run.h5/../../x.h5", "is outside of"),
    ],
)
def test_paths_that_cannot_be(make: Make, name: str, message: str) -> None:
    writer = make()
    began = time.monotonic()
    with pytest.raises(FileError, match=message):
        writer.start(1, name)
    assert time.monotonic() - began < 60
    assert writer.current.phase is Phase.WAITING


@pytest.mark.parametrize("name", ["../out.h5", "/tmp/out.h5", "sub/../../out.h5", "link/out.h5"])
def test_paths_outside_the_allowed_folder(make: Make, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "allowed"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    writer = make(folder=str(folder))
    with pytest.raises(FileError, match="is outside of"):
        writer.start(1, name)
    assert list(tmp_path.rglob("*.h5*")) == []


def test_a_service_takes_one_after_the_other(pulses: Pulses, make: Make, tmp_path: Path) -> None:
    writer = make(service=True, output_file=str(tmp_path))
    pulses.run()
    with pytest.raises(RangeError, match="output_file is missing"):
        writer.start(None)
    first = writer.start(20, "sub/1.h5", 40)
    with pytest.raises(ConflictError, match="1 acquisitions are running"):
        writer.start(None, "2.h5")
    assert over(first) is Phase.DONE
    stop = pulses.sent[-1] + 30
    second = writer.start(stop - 10, "2.h5", stop)
    assert over(second) is Phase.DONE
    assert rows(tmp_path / "sub" / "1.h5") == list(range(20, 41))
    assert rows(tmp_path / "2.h5") == list(range(stop - 10, stop + 1))
    assert [one.number for one in writer.acquisitions] == [1, 2]


def test_a_service_takes_several_at_once(pulses: Pulses, make: Make, tmp_path: Path) -> None:
    writer = make(service=True, parallel=2, output_file=str(tmp_path))
    pulses.run()
    first = writer.start(100, "1.h5", 200)
    with pytest.raises(ConflictError, match="being written"):
        writer.start(100, "1.h5", 200, force=True)
    second = writer.start(150, "2.h5")
    with pytest.raises(ConflictError, match="the maximum is 2"):
        writer.start(100, "3.h5", 200)
    second.stop(250)
    assert over(first) is Phase.DONE
    assert over(second) is Phase.DONE
    assert rows(tmp_path / "1.h5") == list(range(100, 201))
    assert rows(tmp_path / "2.h5") == list(range(150, 251))


def test_progress_while_it_writes(pulses: Pulses, make: Make) -> None:
    one = make().start(1, stop_pulse_id=1000)
    pulses.run()
    wait_until(lambda: one.progress().rate > 20)
    found = one.progress()
    assert 20 < found.rate < 250
    assert found.byte_rate > found.rate * 100
    assert found.lag is not None
    assert 0 <= found.lag < 1
    assert found.time_left is not None
    assert 0 < found.time_left < 1000 / 20
    one.end()
    assert over(one) is Phase.DONE


def test_a_disk_that_does_not_answer_shows(
    pulses: Pulses, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvapy_stream.daq.acquisition_state._DISK_WAIT", 0.2)
    monkeypatch.setattr("pvapy_stream.daq.acquisition_state._DISK_LIMIT", 0.3)
    hangs, goes_on = threading.Event(), threading.Event()
    write = SwissfelFile.add

    def add(self: SwissfelFile, *args: Any) -> int:
        hangs.set()
        goes_on.wait(10)
        return write(self, *args)

    one = make().start(1, stop_pulse_id=3)
    monkeypatch.setattr(SwissfelFile, "add", add)
    pulses.run(range(1, 4))
    assert hangs.wait(5)
    wait_until(lambda: "disk has not answered" in one.progress().problem)
    assert one.progress().status == "error"
    goes_on.set()
    assert over(one) is Phase.DONE
    assert one.progress().rows == 3


@pytest.mark.parametrize("address", ["nonsense", "tcp://x", "udp://h:1", "tcp://:1", "tcp://h:x"])
def test_addresses_that_are_none(make: Make, address: str) -> None:
    with pytest.raises(SettingsError, match="is not a stream"):
        make(stream=address)


def test_a_published_stream(make: Make, tmp_path: Path) -> None:
    published = Pulses(mode="pub")
    try:
        published.run()
        one = make(stream=published.address, mode="sub").start(None)
        wait_until(lambda: one.progress().rows > 10)
        one.end()
        assert over(one) is Phase.DONE
        assert len(rows(tmp_path / "run.h5")) > 10
    finally:
        published.close()
