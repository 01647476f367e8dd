"""Captures, driven with pvput and seen with pvget."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from pvapy_stream import Frame
from pvapy_stream.cli.main import main
from pvapy_stream.files.file_witness import witness
from tests.areadetector.clients import Plugin, ids_in
from tests.support import PATIENCE, Commands, Source, wait_until

MAJOR = 2


@pytest.fixture
def plugin(prefix: str, source: Source, commands: Commands, tmp_path: Path) -> Plugin:
    made = Plugin(commands, prefix, source.channel, tmp_path)
    made.connected(source)
    return made


class Shared:
    """A writer for all tests that neither end it nor look at how it ends.

    Args:
        folder: of its files.
    """

    SETTINGS = ("FileName", "FileTemplate", "FileNumber", "NumCapture", "LazyOpen", "TempSuffix")

    def __init__(self, folder: Path) -> None:
        prefix = f"t{uuid.uuid4().hex[:8]}:"
        self.commands = Commands()
        self.source = Source(f"{prefix}image")
        self.plugin = Plugin(self.commands, prefix, self.source.channel, folder)
        self.plugin.connected(self.source)
        self._settings = {name: self.plugin.get(name) for name in self.SETTINGS}

    def reset(self) -> Shared:
        """Empty the folder; settings are as at the start, and no image is on its way."""
        plugin = self.plugin
        # A test that failed may have left a capture.
        plugin.put("Capture", 0)
        wait_until(lambda: plugin.get("UniqueId_RBV") == plugin.last, what=plugin.program.text)
        for one in plugin.folder.iterdir():
            one.unlink()
        plugin.set(**self._settings)
        return self

    def close(self) -> None:
        self.commands.close()
        self.source.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    made = Shared(tmp_path_factory.mktemp("captures"))
    yield made
    made.close()


@pytest.fixture
def shared(running: Shared) -> Shared:
    return running.reset()


def after(plugin: Plugin, count: int) -> list[int]:
    """The next ids of the source."""
    first = plugin.last + 1
    plugin.last += count
    return list(range(first, first + count))


def test_a_file_can_be_read_under_its_name_while_it_is_written(
    plugin: Plugin, source: Source
) -> None:
    path = plugin.start()
    assert not path.exists()
    ids = after(plugin, 20)
    source.publish(ids[:10], 0.01)
    plugin.counted(10)
    assert plugin.get("SWMRActive_RBV") == 1
    assert plugin.get("FullFileName_RBV") == str(path)
    with h5py.File(path, "r", libver="latest", swmr=True) as reader:
        images = reader["entry/data/data"]
        assert images.shape[0] == 10
        source.publish(ids[10:], 0.01)
        plugin.counted(20)
        images.refresh()
        # What is counted can be read.
        assert images[:, 0, 0].tolist() == ids
    assert plugin.put("Capture", 0) == ""
    assert plugin.get("Capture_RBV") == plugin.get("SWMRActive_RBV") == 0
    assert plugin.get("WriteStatus") == 0
    assert [one.name for one in plugin.folder.iterdir()] == [path.name]
    assert ids_in(path) == ids
    assert main(["verify", "--deep", str(path)]) == 0
    with h5py.File(path) as file:
        assert file["entry/instrument/detector/data"].shape == (20, 4, 6)
        assert file["entry/instrument/NDAttributes/NDArrayUniqueId"][()].tolist() == ids
    plugin.program.signal()
    assert plugin.program.wait() == 0


def test_an_end_in_the_middle_takes_what_was_received(shared: Shared) -> None:
    plugin, source = shared.plugin, shared.source
    path = plugin.start(NumCapture=0)
    ids = after(plugin, 60)
    source.publish(ids, 0)
    assert plugin.put("Capture", 0) == ""
    # All that had arrived is there, and in order.
    found = ids_in(path) if path.exists() else []
    assert found == ids[: len(found)]
    assert plugin.get("NumCaptured_RBV") == len(found)
    # The source goes on, and what it sends is in no file.
    source.publish(after(plugin, 5), 0.01)
    assert plugin.get("NumCaptured_RBV") == len(found)


def test_a_writer_that_is_stopped_finishes_its_capture(plugin: Plugin, source: Source) -> None:
    path = plugin.start()
    ids = after(plugin, 5)
    source.publish(ids, 0.01)
    plugin.counted(5)
    plugin.program.signal()
    assert plugin.program.wait() == 0
    assert ids_in(path) == ids
    assert [one.name for one in plugin.folder.iterdir()] == [path.name]
    assert f"capture 1: 5 images, {path}" in plugin.program.text


def test_a_number_of_images_ends_a_capture_and_a_put_that_waits(shared: Shared) -> None:
    plugin, source = shared.plugin, shared.source
    plugin.set(FileTemplate="%s%s_%3.3d.h5", FileName="scan", NumCapture=5, FileNumber=7)
    assert plugin.put("Capture", 1) == ""
    # It begins no second file.
    assert plugin.put("Capture", 1) == ""
    source.publish(after(plugin, 9), 0.01)
    wait_until(lambda: plugin.get("Capture_RBV") == 0)
    assert plugin.get("NumCaptured_RBV") == 5
    assert len(ids_in(plugin.folder / "scan_007.h5")) == 5
    assert plugin.get("FileNumber") == 8
    # A client that asks for it is told at the end, not before.
    with ThreadPoolExecutor() as pool:
        put = pool.submit(plugin.put, "Capture", 1, "record[block=true]field(value)", 100)
        wait_until(lambda: plugin.get("Capture_RBV") == 1)
        source.publish(after(plugin, 4), 0.01)
        plugin.counted(4)
        time.sleep(3)  # a put that does not wait is acknowledged within 2 s
        assert not put.done()
        source.publish(after(plugin, 1), 0.01)
        assert put.result(PATIENCE) == ""
    assert plugin.get("Capture_RBV") == 0
    assert len(ids_in(plugin.folder / "scan_008.h5")) == 5
    assert len(list(plugin.folder.glob("*.h5"))) == 2


def test_no_lazy_open_makes_the_file_at_once(shared: Shared) -> None:
    plugin, source = shared.plugin, shared.source
    plugin.set(FileTemplate="%s%s.h5", FileName="scan", LazyOpen=0, TempSuffix=".part")
    assert plugin.put("Capture", 1) == ""
    path = plugin.folder / "scan.h5"
    # With a suffix it has its name only at the end.
    assert not path.exists()
    assert path.with_name("scan.h5.part").exists()
    ids = after(plugin, 3)
    source.publish(ids, 0.01)
    plugin.counted(3)
    assert plugin.put("Capture", 0) == ""
    assert ids_in(path) == ids


def test_a_lost_image_is_an_alarm_and_stops_the_count(plugin: Plugin, source: Source) -> None:
    path = plugin.start()
    ids = after(plugin, 12)
    source.publish([*ids[:5], *ids[6:]], 0.01)
    wait_until(lambda: plugin.get("WriteStatus") == 1)
    severity, message = plugin.alarm("WriteStatus")
    assert (severity, message) == (MAJOR, f"images {ids[5]} did not arrive")
    assert plugin.get("WriteMessage") == message
    plugin.counted(5)
    assert plugin.put("Capture", 0) == ""
    assert plugin.get("NumCaptured_RBV") == 5
    assert plugin.get("WriteStatus") == 1
    # The others are not lost with it.
    assert ids_in(path) == [*ids[:5], *ids[6:]]
    assert main(["verify", str(path)]) == 1
    # The next capture is a new one.
    path = plugin.start("next")
    assert plugin.get("WriteStatus") == 0
    more = after(plugin, 4)
    source.publish(more, 0.01)
    plugin.counted(4)
    assert plugin.put("Capture", 0) == ""
    assert ids_in(path) == more
    plugin.program.signal()
    assert plugin.program.wait() == 1
    assert "did not arrive" in "".join(plugin.program.err)


@pytest.mark.parametrize("what", ["back", "again", "shape", "empty"])
def test_a_source_that_is_not_in_order_fails_a_capture(shared: Shared, what: str) -> None:
    plugin, source = shared.plugin, shared.source
    plugin.start()
    ids = after(plugin, 4)
    source.publish(ids, 0.01)
    plugin.counted(4)
    if what == "shape":
        source.publish(after(plugin, 1), 0.01, side=8)
    elif what == "empty":
        source.put(source.builder.build(Frame(ids[-1] + 1, np.zeros(0, np.uint8), ())))
    else:
        source.publish([1 if what == "back" else ids[-1]], 0.01)
    wait_until(lambda: plugin.get("WriteStatus") == 1, what=plugin.program.text)
    source.publish([ids[-1] + 2, ids[-1] + 3], 0.01)
    plugin.last = ids[-1] + 3
    assert plugin.put("Capture", 0) == ""
    assert plugin.get("NumCaptured_RBV") == 4


def test_gaps_are_no_loss_where_a_stage_filters(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    plugin = Plugin(commands, prefix, source.channel, tmp_path, "--allow-gaps")
    plugin.connected(source)
    path = plugin.start()
    ids = after(plugin, 9)[::2]
    source.publish(ids, 0.01)
    plugin.counted(5)
    assert plugin.put("Capture", 0) == ""
    assert plugin.get("WriteStatus") == 0
    assert ids_in(path) == ids
    assert main(["verify", str(path)]) == 0


def test_a_writer_that_was_killed_says_so_when_it_is_back(
    plugin: Plugin, source: Source, prefix: str, commands: Commands, tmp_path: Path
) -> None:
    path = plugin.start()
    ids = after(plugin, 6)
    source.publish(ids, 0.01)
    plugin.counted(6)
    plugin.program.signal(signal.SIGKILL)
    plugin.program.wait()
    again = Plugin(commands, prefix, source.channel, tmp_path)
    severity, message = again.alarm("WriteStatus")
    assert severity == MAJOR
    assert f"verify --repair {path}.part" in message
    assert again.get("Capture_RBV") == again.get("NumCaptured_RBV") == 0
    assert again.get("FullFileName_RBV") == str(path)
    # Neither it nor what it left is replaced.
    again.set(FileTemplate="%s%s.h5", FileName="scan")
    assert "exists" in again.put("Capture", 1)
    assert main(["verify", "--repair", f"{path}.part"]) == 0
    assert ids_in(path) == ids
    assert sorted(one.name for one in tmp_path.glob("scan*")) == ["scan.h5"]
    again.start("next")
    assert again.get("WriteStatus") == 0


def test_a_full_disk_is_an_alarm_and_ends_the_capture(
    prefix: str, source: Source, commands: Commands, small_disk: Path
) -> None:
    plugin = Plugin(commands, prefix, source.channel, small_disk)
    plugin.connected(source)
    path = plugin.start()
    for number in after(plugin, 12):
        source.publish([number], 0.05, side=700)
    wait_until(lambda: plugin.get("Capture_RBV") == 0, what=plugin.program.text)
    assert plugin.alarm("WriteStatus")[0] == MAJOR
    assert "no space left" in plugin.get("WriteMessage")
    count = plugin.get("NumCaptured_RBV")
    assert count == len(witness(path).ids) > 2
    plugin.program.signal()
    assert plugin.program.wait() == 1
