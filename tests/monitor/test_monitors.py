"""Disk, system, table and image monitors on real disks, files and channels."""

from __future__ import annotations

import math
import sqlite3
import time
from pathlib import Path

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.errors import SettingsError
from pvapy_stream.frame import Frame
from pvapy_stream.monitor.disk_monitor import DiskMonitor, DiskSettings, Trend
from pvapy_stream.monitor.image_monitor import ImageMonitor, ImageSettings, statistics
from pvapy_stream.monitor.pictures import COLORMAPS, to_png
from pvapy_stream.monitor.run import make_monitor, read_monitors
from pvapy_stream.monitor.series_reader import SeriesReader
from pvapy_stream.monitor.series_store import SeriesStore
from pvapy_stream.monitor.system_monitor import SystemMonitor, SystemSettings
from pvapy_stream.monitor.table_monitor import TableMonitor, TableSettings
from tests.monitor.fakes import FakeClock, Listener
from tests.support import Commands, Source, image, wait_until

# -- disk ----------------------------------------------------------------------------------------


def disk(folder: Path, **values: object) -> DiskMonitor:
    settings = DiskSettings.of(
        paths=[str(folder)], working_dir=str(folder), sampling_interval=1, monitor_time=0.05,
        **values,
    )  # fmt: skip
    return DiskMonitor(settings, notifiers=[], clock=FakeClock())


def test_the_table_of_a_disk(tmp_path: Path) -> None:
    disk(tmp_path).loop()
    lines = (tmp_path / "disk_usage.txt").read_text().splitlines()
    assert lines[0] == "time\tpath\ttotal_gb\tused_gb\tfree_gb"
    assert 3 <= len(lines) - 1 <= 5
    _, path, total, used, free = lines[1].split("\t")
    assert path == str(tmp_path)
    assert float(total) > float(used) > 0
    assert float(total) > float(free) > 0


def test_a_notice_only_below_the_threshold(tmp_path: Path) -> None:
    disk(tmp_path).loop()
    free = float((tmp_path / "disk_usage.txt").read_text().splitlines()[-1].split("\t")[4])
    for threshold, notices in ((math.floor(free) - 1, 0), (math.floor(free) + 2, 1)):
        monitor, listener = disk(tmp_path, min_free=threshold), Listener()
        monitor.add_notifier(listener)
        monitor.loop()
        assert len(listener.told) == notices


def test_when_a_disk_will_be_full() -> None:
    trend = Trend(100)
    assert [math.isnan(trend.add(t, 50 - t)) for t in (0.0, 10.0)] == [True, True]
    assert trend.add(20, 30) == pytest.approx(30)
    # What is older than the span no longer counts.
    for t in range(200, 300, 10):
        left = trend.add(t, 1000 - 2 * t)
    assert left == pytest.approx(1000 / 2 - 290)
    assert math.isnan([Trend(100).add(t, 5) for t in range(5)][-1])
    rising = Trend(100)
    assert math.isnan([rising.add(t, 5 + t) for t in range(5)][-1])


def test_a_path_that_is_not_there_and_a_table_that_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "disk_usage.txt").mkdir()
    settings = DiskSettings.of(
        paths=[str(tmp_path), "/no/such/path"], working_dir=str(tmp_path), monitor_time=3
    )
    monitor = DiskMonitor(settings, clock=FakeClock())
    monitor.loop()
    assert monitor.n_failures == monitor.n_steps == 4
    assert caplog.text.count("/no/such/path: No such file") == 1
    assert caplog.text.count("cannot write") == 1


# -- system --------------------------------------------------------------------------------------


def test_this_machine(tmp_path: Path) -> None:
    settings = SystemSettings.of(
        working_dir=str(tmp_path), sampling_interval=0.3, monitor_time=0.01, series="s.sqlite"
    )
    monitor = SystemMonitor(settings, SeriesStore(tmp_path / "s.sqlite"))
    monitor.loop()
    reader = SeriesReader(tmp_path / "s.sqlite")
    last = {series.quantity: reader.last(series.id) for series in reader.series()}
    reader.close()
    assert set(last) >= {"cpu", "memory", "swap", "load", "network_in", "network_out"}
    assert 0 < (last["memory"] or 0) < 100
    assert monitor.n_failures == 0


# -- table ---------------------------------------------------------------------------------------


def table(file: Path, **values: object) -> tuple[TableMonitor, Listener]:
    listener = Listener()
    settings = TableSettings.of(file=str(file), **values)
    return TableMonitor(settings, notifiers=[listener], clock=FakeClock(1000)), listener


def values_of(monitor: TableMonitor) -> list[tuple[str, float]]:
    return [(s.quantity, s.value) for s in monitor.sample()]


@pytest.mark.parametrize(
    ("name", "header", "row"),
    [
        ("ctf.txt", "# film defocus x", "a{0} {0}  7\n"),
        ("ctf.csv", "film;defocus;x", "a{0};{0};7\n"),
    ],
)
def test_text_that_grows(name: str, header: str, row: str, tmp_path: Path) -> None:
    file = tmp_path / name
    monitor, listener = table(file, alarms="defocus > 30", columns="defocus")
    assert values_of(monitor) == []
    file.write_text(header + "\n" + row.format(10) + row.format(20))
    assert values_of(monitor) == [("defocus", 10), ("defocus", 20)]
    with file.open("a") as more:
        more.write("\n" + row.format(40) + row.format(50)[:-2])
        more.flush()
        monitor.clock.wait(monitor.stop, 10)
        monitor.step()
        more.write("9\n" + row.format(20))
    assert listener.titles == [f"ALARM: {name}: defocus > 30"]
    monitor.step()
    assert listener.titles[1:] == [f"OK: {name}: defocus > 30"]
    # A new file of the same name begins anew, with a header of its own.
    file.unlink()
    file.write_text(header.replace("x", "y") + "\n" + row.format(99))
    assert values_of(monitor) == [("defocus", 99)]
    monitor.close()


def test_rows_get_times_between_two_looks(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("x\n1\n2\n")
    monitor, _ = table(file)
    # When the first came nobody knows: only the last is taken.
    assert [(s.time, s.value) for s in monitor.sample()] == [(1000, 2)]
    monitor.clock.wait(monitor.stop, 10)
    with file.open("a") as more:
        more.write("3\n4\n")
    assert [(s.time, s.value) for s in monitor.sample()] == [(1005, 3), (1010, 4)]
    timed, _ = table(file, time_column="x")
    assert timed.sample() == []
    (tmp_path / "b.txt").write_text("t x\n5 1\n6 nan\n7 text\n")
    timed, _ = table(tmp_path / "b.txt", time_column="t", columns="x")
    found = timed.sample()
    assert [s.time for s in found] == [5, 6, 7]
    assert [math.isnan(s.value) for s in found] == [False, True, True]


def test_lines_that_do_not_fit_are_told_and_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("1 2\n1 2 3\n3 4\n")
    monitor, _ = table(file, header="a,b", time_column="a")
    assert values_of(monitor) == [("b", 2), ("b", 4)]
    assert "a line has 3 columns, not 2: '1 2 3'" in monitor.last_failure


def test_sqlite_that_grows(tmp_path: Path) -> None:
    file = tmp_path / "runs.sqlite"
    monitor, _ = table(file)
    assert values_of(monitor) == []
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE ctf (name TEXT, defocus REAL)")
        db.execute("INSERT INTO ctf VALUES ('a', 1.5)")
    monitor.step()
    with sqlite3.connect(file) as db:
        db.executemany("INSERT INTO ctf VALUES (?, ?)", [("b", 2.5), ("c", None)])
    assert values_of(monitor) == [("defocus", 2.5)]
    assert values_of(monitor) == []
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE other (x)")
    db.close()
    assert monitor._step_safely() is False
    assert "has the tables ctf, other; choose with --table" in monitor.last_failure


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    monitor, _ = table(tmp_path / "a.csv", columns="c")
    monitor._step_safely()
    assert "has no column c; it has a, b; see --column and --header" in monitor.last_failure


# -- images --------------------------------------------------------------------------------------


def test_statistics_of_images() -> None:
    pixels = np.array([[0, 7], [65535, 65535]], np.uint16)
    found = statistics(pixels)
    assert (found["min"], found["max"], found["mean"]) == (0, 65535, 32769.25)
    assert found["saturated"] == 2
    assert statistics(pixels, saturation=7)["saturated"] == 3
    floats = np.array([np.nan, 1.0, np.inf, 3.0])
    assert statistics(floats) == {"min": 1, "max": 3, "mean": 2, "std": 1, "saturated": 0}
    assert math.isnan(statistics(np.array([np.nan]))["mean"])


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_pictures(colormap: str) -> None:
    import io

    from PIL import Image

    pixels = np.add.outer(np.arange(100.0), np.arange(250.0))
    pixels[3, 4] = np.nan
    picture = Image.open(io.BytesIO(to_png(pixels, side=128, colormap=colormap, log=True)))
    assert picture.size == (125, 50)
    left, right = (picture.convert("RGB").getpixel((x, 25)) for x in (0, 124))
    assert left != right
    flat = Image.open(io.BytesIO(to_png(np.ones((1, 1000), np.uint8), side=100)))
    assert flat.size == (100, 1)
    colour = Image.open(io.BytesIO(to_png(np.zeros((40, 40, 3), np.uint8))))
    assert colour.mode == "RGB"
    to_png(np.full((3, 3), np.nan))
    with pytest.raises(SettingsError, match="no colour map 'pink'; there are viridis"):
        to_png(pixels, colormap="pink")


@pytest.mark.parametrize("every", [0, 5])
def test_images_on_a_channel(
    every: int, prefix: str, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvapy_stream.monitor.image_monitor._GET_TIMEOUT", 1.0)
    settings = ImageSettings.of(
        image_channels=[source.channel, f"{prefix}absent"] if not every else source.channel,
        every=every, saturation=1000, alarms="saturated > 0", working_dir=str(tmp_path),
    )  # fmt: skip
    store, listener = SeriesStore(tmp_path / "s.sqlite"), Listener()
    monitor = ImageMonitor(settings, store, [listener])
    if every:
        wait_until(lambda: monitor._channels[0]._receiver.connected)
    source.publish(range(1, 16), 0.005)
    bright = source.builder.build(Frame.of(20, image(5000)))

    def seen() -> bool:
        # Every fifth is looked at, and a busy machine may leave some out.
        source.put(bright)
        return not every or monitor._channels[0]._n >= 30

    wait_until(seen)
    monitor.step()
    monitor.end_loop()
    assert listener.titles == [f"ALARM: {source.channel}: saturated > 0"]
    reader = SeriesReader(tmp_path / "s.sqlite")
    last = {series.quantity: reader.last(series.id) for series in reader.series()}
    assert (last["max"], last["saturated"]) == (5023, 24)
    ((_, subject, _, caption, png),) = reader.images()
    assert (subject, caption) == (source.channel, "id 20, 4x6 uint16")
    assert png.startswith(b"\x89PNG")
    if not every:
        assert f"{prefix}absent does not answer" in monitor.last_failure
    reader.close()


def test_a_channel_without_images(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    server = pva.PvaServer(f"{prefix}x", pva.PvObject({"value": pva.INT}, {"value": 1}))
    try:
        monitor = ImageMonitor(ImageSettings.of(image_channels=f"{prefix}x"))
        monitor.step()
        assert "is not an NTNDArray image" in caplog.text
    finally:
        server.stop()


# -- files with monitors, and the command --------------------------------------------------------


def test_several_monitors_from_a_file(tmp_path: Path, commands: Commands) -> None:
    (tmp_path / "values.txt").write_text("x\n")
    file = tmp_path / "monitors.toml"
    file.write_text(
        f'[defaults]\nworking_dir = "{tmp_path}"\nsampling_interval = 0.2\nnotify = ["print"]\n'
        '[[monitor]]\nkind = "disk"\npaths = ["/"]\nalarms = ["used_percent >= 0 %"]\n'
        f'[[monitor]]\nkind = "table"\nname = "values"\nfile = "{tmp_path}/values.txt"\n'
        'alarms = ["x > 3"]\n'
    )
    program = commands("monitor", "run", file)
    wait_until(lambda: "ALARM: /: used_percent >= 0 %" in program.text)
    with (tmp_path / "values.txt").open("a") as values:
        values.write("5\n")
    wait_until(lambda: "ALARM: values.txt: x > 3" in program.text)
    program.signal()
    assert program.wait() == 0, program.text
    reader = SeriesReader(tmp_path / "monitors.sqlite")
    assert [row[:3] for row in reader.monitors()] == [
        ("disk", "disk", "FINISHED"), ("values", "table", "FINISHED"),
    ]  # fmt: skip
    assert {e.monitor for e in reader.active()} == {"disk", "values"}
    reader.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "lists no monitors; begin each with"),
        ("[[monitor]]\nkind = 'disk'\n[more]", "unknown more"),
        ("[[monitor]]\nkind = 'moon'", "monitor 1: kind must be one of disk, system, streams"),
        (
            "[[monitor]]\nkind = 'disk'\nmin_fre = 3",
            r"1 \(disk\): unknown setting 'min_fre'",
        ),
        ("[[monitor]]\nkind = 'disk'\nmin_free = 'x'", "--min-free"),
        ("[[monitor", "monitors.toml"),
    ],
)
def test_wrong_files(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "monitors.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_monitors(tmp_path / "monitors.toml")


def test_a_missing_file_and_json(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        read_monitors(tmp_path / "none.toml")
    (tmp_path / "m.json").write_text('{"monitor": [{"kind": "system", "series": ""}]}')
    (settings,) = read_monitors(tmp_path / "m.json")
    monitor = make_monitor(settings)
    assert (monitor.name, monitor.store) == ("system", None)


def test_wrong_options_and_a_monitor_that_cannot_work(tmp_path: Path, commands: Commands) -> None:
    program = commands("monitor", "disk", "--alarm", "fre < 3")
    assert program.wait() == 2
    assert "no quantity 'fre'" in program.text
    started = time.monotonic()
    program = commands("monitor", "disk", "-p", "/no/such", "-wd", tmp_path, "-si", "0.2",
                       "-mt", "0.01")  # fmt: skip
    assert program.wait() == 1
    assert time.monotonic() - started < 60
    assert "error: disk: 4 failures, the last: no disk can be monitored: /no/such" in program.text
