"""What watching costs: a report of a million samples, a dashboard of 50 stages, a watched chain."""

from __future__ import annotations

import itertools
import socket
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from statistics import median

from benchmarks.consumer import burst
from benchmarks.run import OURS, Child, Source, channel, rounds, wait_for
from benchmarks.table import Row
from pvapy_stream.monitor import Sample
from pvapy_stream.monitor.series_reader import SeriesReader
from pvapy_stream.monitor.series_store import SeriesStore
from pvapy_stream.web.content import gather
from pvapy_stream.web.html_report import write_whole
from pvapy_stream.web.render import Renderer

_N_SERIES = 20
_N_SAMPLES = 1_000_000
_N_STAGES = 50
_RATE = 2000.0
_SECONDS = 10.0  # CPU time comes in steps of 10 ms: in this time, half a percent of what is used


def run(quick: bool) -> list[Row]:
    """Seconds, and shares of a core."""
    report, dashboard, cost = _report(), _dashboard(3 if quick else 10), _cost(quick)
    return [
        Row("report of 1 million samples in 20 series", "s", report, None, "< 2", report < 2),
        Row(
            f"dashboard with {_N_STAGES} stages and a reader: CPU", "% of a core", dashboard, None,
            "< 10", dashboard < 10,
        ),
        Row(
            "consumer with metrics, monitor and dashboard: more CPU, so less of its highest rate",
            "% of a core", cost, None, "< 2", cost < 2,
        ),
    ]  # fmt: skip


def _report() -> float:
    with tempfile.TemporaryDirectory(prefix="bench-report-") as name:
        file = Path(name) / "series.sqlite"
        store = SeriesStore(file)
        now, n = time.time(), _N_SAMPLES // _N_SERIES
        for k in range(_N_SERIES):
            samples = [
                Sample(f"det:{k}", ("queued", "latency_p90")[k % 2], 1.0 + t % 97, "", now - n + t)
                for t in range(n)
            ]
            store.add("streams", samples, (), now)
        store.note_monitor("streams", "streams", "RUNNING", now)
        store.close()
        start = time.perf_counter()
        reader = SeriesReader(file)
        content = gather([], [reader], 2 * n)
        reader.close()
        content |= {"state": "RUNNING", "title": "Benchmark", "refresh": 0}
        write_whole(Path(name) / "report.html", Renderer().render(content))
        return time.perf_counter() - start


def _dashboard(seconds: float) -> float:
    name = channel("status")
    with Child("benchmarks.stages", name, _N_STAGES) as stages:
        wait_for(lambda: "ready" in stages.text, 20, "the stages")
        with _Dashboard("-sc", f"{name}:*", "--ids", f"range(1,{_N_STAGES + 1})") as page:
            page.read()
            time.sleep(3.0)
            return page.share(seconds)


class _Dashboard(Child):
    """A dashboard, and what reads its news as a browser does."""

    def __init__(self, *args: object) -> None:
        super().__init__("pvapy_stream.cli.main", "dashboard", "--port", 0, *args)
        wait_for(lambda: "dashboard:" in self.text, 20, "the dashboard")
        self.url = self.text.split()[1]

    def read(self) -> None:
        """Begin to read."""
        threading.Thread(target=self._read_news, daemon=True).start()

    def _read_news(self) -> None:
        try:
            with urllib.request.urlopen(f"{self.url}api/events", timeout=30) as news:
                for _ in news:
                    pass
        except OSError:
            pass  # the dashboard has ended

    def share(self, seconds: float) -> float:
        """CPU in the next seconds, % of a core."""
        before = self.cpu()
        time.sleep(seconds)
        return 100 * (self.cpu() - before) / seconds


def _cost(quick: bool) -> float:
    """How much more CPU time a consumer needs when it is watched, % of a core.

    Watching goes by the clock, not by frames: at the rate at which a consumer needs a whole core,
    it is the part of that rate that is lost.
    """
    n = rounds(quick) + (0 if quick else 2)
    plain: list[float] = []
    watched: list[float] = []
    with Source(128) as source:
        for _ in range(n):
            status = channel("status")
            plain.append(_cpu(source, "-sc", status))
            port, status = _free_port(), channel("status")
            with (
                _Dashboard("-sc", status) as page,
                Child(
                    "pvapy_stream.cli.main", "monitor", "streams", "-sc", status, "-si", 1,
                    "--series", "",
                ),
                _Scraper(port),
            ):  # fmt: skip
                page.read()
                watched.append(_cpu(source, "-sc", status, "--metrics-port", port))
    return 100 * (median(watched) - median(plain)) * _RATE / 1e6


def _cpu(source: Source, *args: object) -> float:
    found = burst(OURS, source, args, _RATE, _SECONDS)
    if found.lost:
        raise RuntimeError(f"{found.lost} frames lost at {_RATE:g} frames/s")
    return found.cpu


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _Scraper:
    """Asks for metrics once a second, as Prometheus does."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Scraper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        for _ in itertools.count():
            if self._stop.wait(1.0):
                return
            try:
                with urllib.request.urlopen(self._url, timeout=5) as answer:
                    answer.read()
            except OSError:
                continue  # the consumer is not there yet, or no more
