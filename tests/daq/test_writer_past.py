"""Images of a PVA channel that came before somebody asked for them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pvapy_stream.daq.states import Phase
from pvapy_stream.daq.writer import AcquisitionWriter
from pvapy_stream.errors import SettingsError
from pvapy_stream.files.completeness import verify
from pvapy_stream.settings import WriterSettings
from tests.daq.sending import Rest
from tests.support import Commands, Source, image, wait_until

PERIOD = 0.003


def settings_of(stream: str, file: Path, **options: Any) -> WriterSettings:
    return WriterSettings.of(
        stream=stream, output_file=str(file), user_id=-1, rest_port=0, **options
    )


def newest(writer: AcquisitionWriter) -> int | None:
    assert writer._past is not None
    return writer._past.ring.pulses.newest


def test_ranges_of_the_past_over_rest(source: Source, commands: Commands, tmp_path: Path) -> None:
    program = commands(
        "writer", f"pva://{source.channel}", tmp_path, -1, 0, "--service", "--parallel", 2,
        "--keep-memory", 100, "--layout", "nexus",
    )  # fmt: skip
    found = wait_until(lambda: re.search(r"http://\S+", program.text), what=program.text)
    rest = Rest(f"{found[0]}/")
    # A range that begins now tells when the channel is followed.
    rest.put("start_now", {"output_file": "now.h5"})
    wait_until(lambda: source.publish([1]) or rest.get("statistics")["statistics"]["n_rows"])
    rest.put("stop_now")
    source.publish(range(2, 101), PERIOD)
    for name, first, last in (("a", 5, 60), ("b", 40, 120)):
        body = {"output_file": f"{name}.h5", "stop_pulse_id": last}
        assert rest.put(f"start_pulse_id/{first}", body)["missing"] == []
    source.publish(range(101, 131), PERIOD)
    wait_until(lambda: len(list(tmp_path.glob("[ab].h5"))) == 2, what=program.text)
    for name, ids in (("a", "5-60"), ("b", "40-120")):
        report = verify(tmp_path / f"{name}.h5")
        assert (str(report.ids), report.problems, report.n_lost) == (ids, [], 0)
    with h5py.File(tmp_path / "b.h5") as file:
        assert np.array_equal(file["entry/data/data"][2], image(42))
    rest.get("kill")
    assert program.wait() == 0, program.text


def test_all_that_is_kept_and_what_comes(source: Source, tmp_path: Path) -> None:
    writer = AcquisitionWriter(
        settings_of(f"pva://{source.channel}", tmp_path / "run.h5", keep_seconds=60)
    )
    wait_until(lambda: newest(writer) == 0)
    source.publish(range(1, 31), PERIOD)
    one = writer.start(None, oldest=True)
    source.publish(range(31, 51), PERIOD)
    wait_until(lambda: one.progress().last_pulse_id == 50)
    one.stop(45)
    assert one.over.wait(10), one.progress()
    assert (one.phase, one.progress().lost) == (Phase.DONE, [])
    with h5py.File(tmp_path / "run.h5") as file:
        assert file["acquisition/pulse_id"][()].tolist() == list(range(46))
    writer.close()


def test_what_is_kept_no_longer_is_lost(source: Source, tmp_path: Path) -> None:
    # Images of 4 x 6 pixels, and what keeping one takes.
    memory = 20 * 2048 / 2**20
    file = tmp_path / "run.h5"
    writer = AcquisitionWriter(settings_of(f"pva://{source.channel}", file, keep_memory=memory))
    wait_until(lambda: newest(writer) == 0)
    source.publish(range(1, 101), PERIOD)
    wait_until(lambda: newest(writer) == 100)
    one = writer.start(50, stop_pulse_id=95)
    assert one.over.wait(10), one.progress()
    assert one.phase is Phase.DONE
    ((first, last),) = one.progress().lost
    assert (first, 75 < last < 90) == (50, True)
    assert str(verify(file).ids) == f"{last + 1}-95"
    writer.close()


def test_only_images_are_kept(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="run a buffer and write from buffer://host:port"):
        settings_of("tcp://127.0.0.1:1", tmp_path / "run.h5", keep_memory=1)
