"""The fixture `replay`, as users have it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pvapy_stream import Frame, FrameProcessor
from pvapy_stream.errors import FileError, SettingsError
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.testing import replay  # noqa: F401 - the fixture
from pvapy_stream.testing.replaying import Replay
from pvapy_stream.transport.memory_mode import MemoryReceiver
from tests.replay.recordings import recording

USERS_TEST = """
import sys
from pathlib import Path

from pvapy_stream.processors import PassThrough

pytest_plugins = ["pvapy_stream.testing"]

def test_night(replay):
    night = replay.run("night.h5", PassThrough, drop=0.2, seed=3)
    assert night.result.ok
    assert len(night.result.published) == 50 - len(night.faults["drop"]) < 50
"""


class Checker(FrameProcessor):
    """Refuses frames whose pixels are not their id."""

    def __init__(self, configDict: Any = None) -> None:
        super().__init__(configDict)
        self.refused: list[int] = []

    def process_frame(self, frame: Frame) -> Frame | None:
        if (frame.image != frame.id).any():
            self.refused.append(frame.id)
            return None
        return frame


def test_a_processor_gets_a_recording_with_faults(replay: Replay, tmp_path: Path) -> None:  # noqa: F811
    path = recording(tmp_path / "night.h5", range(1, 301))
    night = replay.run(
        path, Checker, drop=0.05, corrupt=0.05, reorder=0.05, duplicate=0.05, reconnect=0.02, seed=7
    )
    assert night.result.ok, night.result.last_error
    assert night.problem == ""
    assert all(night.faults.values())
    processor = night.result.processor
    assert isinstance(processor, Checker)
    assert set(processor.refused) == set(night.faults["corrupt"])
    ledger = night.result.ledger
    assert set(ledger.filtered) == set(night.faults["corrupt"])
    assert set(ledger.missed) >= {n for n in night.faults["drop"] if 1 < n < 300}
    assert not ledger.without_fate()
    assert str(replay.run(path, Checker, loop=2).result.ledger.received) == "1-600"


def test_a_recording_is_published_for_stages(replay: Replay, tmp_path: Path) -> None:  # noqa: F811
    path = recording(tmp_path / "night.h5", range(1, 21))
    source = replay.source(path, "night", speed="max", drop=0.2)
    came: list[int] = []
    receiver = MemoryReceiver("night")
    receiver.start(lambda obj: came.append(frame_of(obj).id))
    assert source.wait() == 0
    receiver.stop()
    assert came == [n for n in range(1, 21) if n not in source.faults["drop"]]
    # Nobody comes for this one; it is ended with the test.
    replay.source(path, "other")


def test_what_is_wrong_is_told(replay: Replay, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(FileError, match=r"cannot read .*none\.h5"):
        replay.run(tmp_path / "none.h5", Checker)
    path = recording(tmp_path / "night.h5", range(1, 2001))
    with pytest.raises(SettingsError, match="loop=0 never ends"):
        replay.run(path, Checker, loop=0)
    with pytest.raises(SettingsError, match="--drop"):
        replay.run(path, Checker, drop=2)
    os.truncate(path, path.stat().st_size * 3 // 4)
    with pytest.warns(UserWarning, match="its end is missing; objects cannot be read: ids "):
        night = replay.run(path, Checker)
    assert night.problem
    assert 1000 < len(night.result.frames) < 2000


def test_users_enable_it_as_a_plugin_and_only_then_it_needs_pytest(tmp_path: Path) -> None:
    recording(tmp_path / "night.h5")
    (tmp_path / "test_night.py").write_text(USERS_TEST)
    code = (
        "import sys, pvapy_stream.testing as t; sys.exit('pytest' in sys.modules or t.INPUT == '')"
    )
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], timeout=60).returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "."],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout
