"""Reports of real stages and stored series: what they show, and how they fail."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pvapy_stream.errors import MonitorError, SettingsError
from pvapy_stream.monitor import Sample
from pvapy_stream.monitor.alarms import AlarmEvent
from pvapy_stream.monitor.pictures import to_png
from pvapy_stream.monitor.series_store import SeriesStore
from pvapy_stream.settings import ReportSettings, parse_rule
from pvapy_stream.web.content import short
from pvapy_stream.web.html_report import ReportMonitor, ReportPublisher, write_whole
from pvapy_stream.web.render import Renderer, clock, count, seconds, si
from tests.in_process import call
from tests.support import Commands, Source, command, wait_for_monitors, wait_until
from tests.web.browser import needs_chromium, overflow, page

HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Series of all kinds of monitors, with alarms and an image."""
    file = tmp_path / "series.sqlite"
    store = SeriesStore(file)
    now = time.time()
    times = [now - 300 + n for n in range(300)]
    for kind, quantity, unit in (
        ("disk", "free", "GB"), ("system", "cpu", "%"), ("streams", "latency_p90", "s"),
    ):  # fmt: skip
        samples = [Sample("one", quantity, 50 + n % 7, unit, t) for n, t in enumerate(times)]
        store.add(kind, samples, (), now)
        store.note_monitor(kind, kind, "FINISHED", now)
    store.add(
        "gain", [Sample(HOSTILE, "mean", float(n), "", t) for n, t in enumerate(times)], (), now
    )
    store.note_monitor("gain", "table", "FINISHED", now)
    store.add("disk", [], [AlarmEvent("enter", parse_rule("free < 60"), "one", 50, "GB")], now)
    store.add_image("image", "det:image", to_png(np.eye(30)), "id 3", now)
    store.close()
    return file


def write(output: Path, **values: Any) -> str:
    ReportMonitor(ReportSettings.of(output=str(output), once=True, **values)).loop()
    return output.read_text()


def test_series_alone(series: Path, tmp_path: Path) -> None:
    html = write(tmp_path / "report.html", series=str(series), title="<b>Run</b>")
    assert "&lt;b&gt;Run&lt;/b&gt;" in html
    assert ">FINISHED</span>" in html
    headings = re.findall("<h2>(.*?)</h2>", html)
    assert headings == [
        "Active alarms", "Latest images", "Time series", "Histograms", "System", "Past alarms",
        "Monitors",
    ]  # fmt: skip
    assert "one: free is 50 GB; the rule is free &lt; 60" in html
    assert "data:image/png;base64," in html
    charts = json.loads(re.search('id="charts">(.*?)</script>', html)[1])
    assert [c["title"] for c in charts] == ["Mean", "Latency, 90 %", "CPU", "Free"]
    assert charts[0]["series"][0]["label"] == HOSTILE
    assert len(charts[0]["series"][0]["times"]) == 300
    assert HOSTILE not in html
    # Nothing is fetched from anywhere.
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", html)
    assert "@import" not in html


def test_sections_without_data_are_absent(tmp_path: Path) -> None:
    SeriesStore(tmp_path / "empty.sqlite").close()
    html = write(tmp_path / "report.html", series=str(tmp_path / "empty.sqlite"))
    assert "<h2>" not in html
    assert "<script" not in html


def test_a_run_from_beginning_to_end(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    status, output, published = f"{prefix}status", tmp_path / "report.html", tmp_path / "published"
    commands(
        "consumer", "-ic", source.channel, "-sc", status, "-cc", f"{prefix}control",
        "--status-period", "0.2", "-sqs", "500",
    )  # fmt: skip
    wait_for_monitors([status])
    report = commands(
        "report", "-sc", f"{prefix}stat*", "-ic", source.channel, "-o", output, "--interval", "0.3",
        "--publish", f"cp %(REPORT_PATH)s {published}",
    )  # fmt: skip

    def shows(name: str, value: int) -> bool:
        return output.exists() and f'data-label="{name}" data-value="{value}"' in output.read_text()

    wait_until(lambda: shows("processed", 0), what="first version")
    assert ">RUNNING</span>" in output.read_text()
    source.publish([*range(1, 31), *range(33, 43)])
    wait_until(lambda: shows("processed", 40) and shows("missed", 2))
    wait_until(lambda: "missed_rate" in output.read_text(), what="the alarm of missed frames")
    command(f"{prefix}control", "stop")
    assert report.wait() == 0, report.text
    html = output.read_text()
    assert ">FINISHED</span>" in html
    assert "This is the final state." in html
    assert 'data-total="processed">40<' in html
    assert ">stopped</span>" in html
    assert published.read_text() == html
    assert [p.name for p in tmp_path.iterdir() if ".part" in p.name] == []


def test_a_stage_that_is_not_there(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvapy_stream.web.html_report._FIRST_LOOK", 0.5)
    html = write(tmp_path / "report.html", status_channels=f"{prefix}none")
    assert f"{prefix}none" in html
    assert ">absent</span>" in html


def test_a_template_of_the_user(series: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.html"
    mine.write_text(
        '{% extends "report.html" %}{% block content %}<p>Mine: {{ active[0].subject }}</p>'
        "{% endblock %}"
    )
    html = write(tmp_path / "report.html", series=str(series), template=str(mine))
    assert "<p>Mine: one</p>" in html
    assert "<h2>" not in html


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% if %}", "mine.html, line 1"),
        ("{{ 1 / 0 }}", "fails: ZeroDivisionError"),
        ("{{ nothing }}", "fails: UndefinedError: 'nothing' is undefined"),
        (None, "there is no template mine.html"),
    ],
)
def test_a_broken_template(text: str | None, message: str, series: Path, tmp_path: Path) -> None:
    mine, output = tmp_path / "mine.html", tmp_path / "report.html"
    output.write_text("the one before")
    if text is not None:
        mine.write_text(text)
    report = call("report", "--series", series, "-o", output, "--template", mine, "--once")
    assert report.code == 1
    assert message in report.text
    assert output.read_text() == "the one before"


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    # Every write to this device fails as on a full disk.
    class Full(type(tmp_path)):
        def write_text(self, *_: Any, **__: Any) -> int:
            with open("/dev/full", "w") as full:
                full.write("x")
            return 0

        def with_name(self, name: str) -> Full:
            return Full(super().with_name(name))

    output = tmp_path / "report.html"
    output.write_text("the one before")
    with pytest.raises(MonitorError, match=r"report.html: No space left .* is unchanged"):
        write_whole(Full(output), "new")
    assert output.read_text() == "the one before"


def test_a_folder_that_is_not_there_is_made_and_a_file_is_none(
    series: Path, tmp_path: Path, commands: Commands
) -> None:
    assert "FINISHED" in write(tmp_path / "new" / "report.html", series=str(series))
    report = commands("report", "--series", series, "-o", series / "report.html", "--once")
    assert report.wait() == 1
    assert "cannot make the folder" in report.text


def test_publish_commands_that_fail(series: Path, tmp_path: Path) -> None:
    common = ("report", "--series", series, "-o", tmp_path / "r.html", "--once", "--publish")
    report = call(*common, "ls /no/such/place")
    assert report.code == 1
    assert "the report could not be published" in report.text
    report = call(*common, "ls %(FOLDER)s")
    assert report.code == 2
    assert "use %(REPORT_FOLDER)s and %(REPORT_PATH)s" in report.text


def test_the_last_version_decides_whether_a_report_was_published(tmp_path: Path) -> None:
    # A command notes that it runs, waits, and fails or succeeds as it is told.
    steps = tmp_path / "steps.sh"
    steps.write_text(
        "echo x >> count; n=$(wc -l < count);"
        " until [ -e go$n ]; do sleep 0.01; done; exit $(cat go$n)"
    )

    def runs(number: int) -> bool:
        return (tmp_path / "count").read_text().count("x") == number

    def end(number: int, code: int) -> None:
        (tmp_path / "code").write_text(str(code))
        (tmp_path / "code").replace(tmp_path / f"go{number}")

    publisher = ReportPublisher(f"sh -c 'cd {tmp_path}; . ./steps.sh'", tmp_path / "report.html")
    (tmp_path / "count").touch()
    publisher.publish()
    wait_until(lambda: runs(1))
    end(1, 3)
    wait_until(lambda: "status 3" in publisher.last_error)
    publisher.publish()
    wait_until(lambda: runs(2))
    # As `cp` fails, if a newer version replaces the page while it copies.
    publisher.publish()
    end(2, 4)
    wait_until(lambda: runs(3))
    assert "status 3" in publisher.last_error
    end(3, 0)
    wait_until(lambda: not publisher.last_error)
    publisher.publish()
    end(4, 5)
    publisher.close()
    assert runs(4)
    assert "status 5" in publisher.last_error


def test_series_that_are_no_series(tmp_path: Path) -> None:
    with pytest.raises(MonitorError, match="there is no file"):
        write(tmp_path / "r.html", series=str(tmp_path / "none.sqlite"))
    with pytest.raises(SettingsError, match="give --status-channel or --workflow"):
        ReportSettings.of(output="r.html")


def test_numbers_for_people() -> None:
    assert [count(v) for v in (0, 1234567, None)] == ["0", "1\u202f234\u202f567", "\u2013"]
    assert [si(v) for v in (0.0123, 999, 12345, 2.5e6, None)] == [
        "0.0123", "999", "12.3 k", "2.5 M", "\u2013",
    ]  # fmt: skip
    assert [seconds(v) for v in (0.0, 1.5, 0.0021, 5e-7)] == ["0 µs", "1.5 s", "2.1 ms", "0.5 µs"]
    assert re.fullmatch(r"\d\d:\d\d:\d\d", clock(time.time()))
    assert re.fullmatch(r"2001-09-0\d \d\d:\d\d", clock(1e9))
    assert short(["det:status:1", "det:status:12"]) == ["1", "12"]
    assert short(["a", "ab"]) == ["a", "ab"]
    Renderer()


@needs_chromium
def test_a_browser_without_a_network_shows_it(series: Path, tmp_path: Path) -> None:
    write(tmp_path / "report.html", series=str(series))
    with page(offline=True) as shown:
        for width, scheme in ((390, "light"), (1400, "dark")):
            shown.set_viewport_size({"width": width, "height": 844})
            shown.emulate_media(color_scheme=scheme)
            shown.goto(f"file://{tmp_path}/report.html")
            assert shown.evaluate("innerWidth") == width
            assert shown.evaluate(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
            assert shown.locator(".chart canvas").count() == 4
            assert shown.locator("#state").inner_text() == "FINISHED"
            drawn = shown.evaluate(
                "[...document.querySelectorAll('.chart canvas')].every(c => c.getContext('2d')"
                ".getImageData(0, 0, c.width, c.height).data.some(v => v))"
            )
            assert drawn
            assert overflow(shown) <= 0
            assert shown.problems == []
