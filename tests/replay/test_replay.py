"""Replays of recordings: in this process, and as a command."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.accounting.audit_result import audit
from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.errors import FileError, SettingsError, SourceError
from pvapy_stream.files.recorded import RecordedStream
from pvapy_stream.files.recording import RecordingFile
from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.pva.objects import is_marked
from pvapy_stream.pva.serial import dumps
from pvapy_stream.settings import ReplaySettings
from pvapy_stream.sim.replay_server import ReplayServer
from pvapy_stream.transport.memory_mode import MemoryReceiver
from tests.replay.recordings import START, pixels, recording
from tests.support import Commands, wait_for_monitors

QUICK = {
    "start_delay": 0, "shutdown_delay": 0, "report_period": 0, "speed": "max",
    "output_mode": "memory", "channel_name": "night",
}  # fmt: skip


class Heard:
    """What a replay in this process publishes, and when."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.frames: list[Frame] = []
        self.times: list[float] = []
        self.server = ReplayServer(ReplaySettings.of(file=str(path), **{**QUICK, **settings}))
        receiver = MemoryReceiver("night")
        receiver.start(self._take)
        self.code = self.server.run(threading.Event())
        receiver.stop()

    def _take(self, obj: Any) -> None:
        self.times.append(time.perf_counter())
        assert not is_marked(obj)
        self.frames.append(frame_of(obj.copy()))

    @property
    def ids(self) -> list[int]:
        return [frame.id for frame in self.frames]


def test_what_was_recorded_is_published_as_it_was(tmp_path: Path) -> None:
    heard = Heard(recording(tmp_path / "a.h5"), ledger=str(tmp_path / "ledger.json"))
    assert heard.code == 0
    assert heard.ids == list(range(1, 51))
    for n, frame in enumerate(heard.frames):
        assert frame.time_ns == START + n
        assert (frame.image == frame.id).all()
    (ledger,) = read_ledgers(tmp_path / "ledger.json")
    assert (ledger.stage, str(ledger.published), ledger.closed) == ("replay", "1-50", True)
    assert heard.server.snapshot().state == "stopped"


@pytest.mark.parametrize("speed", [0.5, 1, 4])
def test_intervals_are_those_of_the_recording(tmp_path: Path, speed: float) -> None:
    file = RecordingFile(tmp_path / "a.h5")
    gaps = [0.0, 0.1, 0.02, 0.3, 0.0, 0.05]
    plain = recording(tmp_path / "b.h5", range(1, 7))
    with RecordedStream(plain) as stream:
        for row, at in zip(stream.rows(), np.cumsum(gaps), strict=True):
            file.add(START + round(at * 1e9), row.id, [row.data])
        file.close()
    heard = Heard(tmp_path / "a.h5", speed=speed)
    wanted = np.array(gaps[1:]) / speed
    # Nothing is early; how late it is depends on the machine, and is reported.
    assert (np.cumsum(np.diff(heard.times)) >= np.cumsum(wanted) - 0.02).all()
    (line,) = heard.server.report()
    assert re.fullmatch(
        r"intervals: [\d.]+% kept within 0\.2 ms; half within [\d.]+ ms, 99 % within [\d.]+ ms,"
        r" all within [\d.]+ ms",
        line,
    )


def test_ids_go_on_from_pass_to_pass(tmp_path: Path) -> None:
    heard = Heard(recording(tmp_path / "a.h5", range(5, 15)), loop=3)
    assert heard.ids == list(range(5, 35))
    assert [int(frame.image[0, 0]) for frame in heard.frames] == [*range(5, 15)] * 3
    assert str(heard.server.ledger.published) == "5-34"


def test_a_source_that_was_restarted_while_it_was_recorded_is_so_again(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.json"
    heard = Heard(recording(tmp_path / "a.h5", [*range(1, 6), *range(1, 4)]), ledger=str(ledger))
    assert heard.ids == [1, 2, 3, 4, 5, 1, 2, 3]
    assert [str(one.published) for one in read_ledgers(ledger)] == ["1-5", "1-3"]


def test_objects_of_another_structure_open_the_channel_anew(tmp_path: Path, prefix: str) -> None:
    file = RecordingFile(tmp_path / "a.h5")
    kinds = ({"uniqueId": pva.INT}, {"uniqueId": pva.INT, "value": pva.DOUBLE})
    for n in range(1, 7):
        obj = pva.PvObject(kinds[n > 3], {"uniqueId": n})
        file.add(START + n, n, [dumps(obj)])
    file.close()
    heard = Heard(tmp_path / "a.h5", output_mode="pvas", channel_name=f"{prefix}a")
    assert heard.code == 0
    assert str(heard.server.ledger.published) == "1-6"
    assert not heard.server.ledger.failed


def test_faults_are_done_and_are_in_the_ledger(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.h5", range(1, 301))
    rates = {"drop": 0.1, "duplicate": 0.05, "reorder": 0.05, "corrupt": 0.05}
    ledger = tmp_path / "ledger.json"
    heard = Heard(path, **rates, seed=11, ledger=str(ledger))
    assert heard.code == 0
    (found,) = read_ledgers(ledger)
    assert {kind: list(ids) for kind, ids in found.faults.items()} == {
        kind: list(ids) for kind, ids in heard.server.faults.done.items()
    }
    dropped = set(found.faults["drop"])
    assert set(heard.ids) == set(range(1, 301)) - dropped == set(found.published)
    assert list(found.repeated) == list(found.faults["duplicate"])
    wrong = {frame.id for frame in heard.frames if (frame.image != frame.id).any()}
    assert wrong == set(found.faults["corrupt"])
    told = heard.server.report()
    assert f"drop on purpose: {len(dropped)} objects, ids {found.faults['drop']}" in told
    again = Heard(path, **rates, seed=11)
    assert again.ids == heard.ids
    notes = audit(read_ledgers(ledger)).notes
    assert f"replay 0: {len(dropped)} ids: {found.faults['drop']} drop on purpose" in notes


def test_only_faults_whose_turn_came_are_told(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.h5", range(1, 201))
    server = ReplayServer(ReplaySettings.of(file=str(path), **{**QUICK, "speed": 1}, drop=0.5))
    stop, receiver, came = threading.Event(), MemoryReceiver("night"), list[int]()

    def take(obj: Any) -> None:
        came.append(frame_of(obj).id)
        if len(came) == 10:
            stop.set()

    receiver.start(take)
    assert server.run(stop) == 0
    receiver.stop()
    assert len(came) == 10
    assert sorted([*came, *server.ledger.faults["drop"]]) == list(range(1, came[-1] + 1))


def test_delays_and_reconnects_are_done(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.h5", range(1, 41))
    heard = Heard(path, delay=0.1, delay_time=0.05, reconnect=0.1, reconnect_time=0.02)
    assert heard.ids == list(range(1, 41))
    late = set(heard.server.faults.done["delay"])
    away = set(heard.server.faults.done["reconnect"])
    assert late
    assert away
    for n, gap in zip(range(2, 41), np.diff(heard.times), strict=True):
        assert gap >= 0.05 * (n in late) + 0.02 * (n in away)
    # The last publisher did not publish all.
    assert heard.server.publisher.counts().published < 40


def test_what_can_be_read_of_a_file_that_is_cut_is_replayed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = recording(tmp_path / "a.h5", range(1, 3001))
    os.truncate(path, path.stat().st_size * 2 // 3)
    heard = Heard(path)
    assert heard.code == 1
    assert heard.ids == list(range(1, len(heard.ids) + 1))
    assert 500 < len(heard.ids) < 3000
    assert all((frame.image == frame.id).all() for frame in heard.frames)
    assert "its end is missing; what can be read is replayed" in caplog.text
    problem = heard.server.problem
    assert problem.startswith("its end is missing; ")
    assert f"objects cannot be read: ids {len(heard.ids) + 1}-" in problem
    snapshot = heard.server.snapshot()
    assert (snapshot.state, problem in snapshot.message) == ("failed", True)


def test_wrong_options_and_files_are_refused(tmp_path: Path) -> None:
    for name, value in (("drop", 1.5), ("delay", -0.1), ("corrupt", "nan"), ("speed", 0)):
        with pytest.raises(SettingsError, match=f"--{name}: Input should be"):
            ReplaySettings.of(file="a.h5", **{name: value})
    for speed in (-1, "inf", "fast"):
        with pytest.raises(SettingsError, match="--speed"):
            ReplaySettings.of(file="a.h5", speed=speed)
    assert ReplaySettings.of(file="a.h5", speed="2").scale == 2
    with pytest.raises(FileError, match=r"cannot read .*No such file"):
        Heard(tmp_path / "none.h5")
    RecordingFile(tmp_path / "empty.h5").close()
    with pytest.raises(SourceError, match=r"empty\.h5 has no objects that can be read: nothing"):
        Heard(tmp_path / "empty.h5")


def test_a_recorded_night_is_replayed_to_a_chain_whose_audit_tells_the_truth(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    path = recording(tmp_path / "night.h5", range(1, 201), period=0.005)
    channel, status = f"{prefix}image", f"{prefix}status"
    ledgers = [tmp_path / name for name in ("replay.json", "save.json")]
    save = commands(
        *("write", "-ic", channel, "-o", tmp_path / "out.h5", "-sc", status, "-sqs", 300),
        *("--ledger", ledgers[1], "-rt", 0),
    )
    replay = commands(
        *("replay", path, "-cn", channel, "--wait-for-stages", status, "-shd", 0, "-rp", 0),
        *("--drop", 0.1, "--corrupt", 0.05, "--seed", 5, "--ledger", ledgers[0]),
    )
    assert replay.wait() == 0, replay.text
    wait_for_monitors([status])
    save.signal()
    # What the source did not send is missed.
    assert save.wait() == 1, save.text
    sent, saved = (read_ledgers(one)[0] for one in ledgers)
    assert list(saved.processed) == list(sent.published)
    # Nobody knows of what was dropped before the first object, and after the last.
    first, last = min(sent.published), max(sent.published)
    assert set(saved.missed) == {n for n in sent.faults["drop"] if first < n < last}
    assert audit([sent, saved]).ok
    with h5py.File(tmp_path / "out.h5") as file:
        ids, images = file["entry/data/id"][()], file["entry/data/data"][()]
    wrong = {int(n) for n, image in zip(ids, images, strict=True) if (image != pixels(n)).any()}
    assert wrong == set(sent.faults["corrupt"])
    text = replay.text
    assert f"drop on purpose: {len(sent.faults['drop'])} objects, ids" in text
    assert "intervals: " in text
