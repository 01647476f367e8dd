"""How fast and how evenly the simulators publish."""

from __future__ import annotations

import json
import time

from benchmarks.run import OURS, PVAPY, SIDES, Child, Simulator, alternate, rounds
from benchmarks.table import Row

_START_DELAY = 2.0  # s; for the client to connect
_PACED = 1000.0  # frames/s


def run(quick: bool) -> list[Row]:
    """Frames/s without a limit, then the error at 1 kHz."""
    n, seconds = rounds(quick), 2 if quick else 3
    rows = []
    for what, client in (("no client", False), ("one client", True)):
        rate = alternate(n, lambda side, client=client: _unlimited(side, client, seconds))
        met = rate[OURS] >= 1.3 * rate[PVAPY]
        name = f"simulator, 128x128, {what}: highest rate"
        rows.append(Row(name, "frames/s", rate[OURS], rate[PVAPY], "ratio >= 1.3", met))
    paced = {side: _paced(side, 3 if quick else 10) for side in SIDES}
    error = {side: abs(rate - _PACED) / _PACED * 100 for side, (rate, _) in paced.items()}
    met = error[OURS] < 0.1
    name = "simulator, 1 kHz: error of the rate"
    rows.append(Row(name, "%", error[OURS], error[PVAPY], "< 0.1 %", met))
    for key, what in (
        ("median", "median interval"),
        ("p99", "99 % of intervals off the median by at most"),
        ("largest", "largest distance of an interval to the median"),
    ):
        ours, pvapy = paced[OURS][1][key], paced[PVAPY][1][key]
        rows.append(Row(f"simulator, 1 kHz: {what}", "us", ours, pvapy))
    return rows


def _unlimited(side: str, client: bool, seconds: float) -> float:
    delay = _START_DELAY if client else 0.3
    with Simulator(side, "-fps", 0, "-rt", seconds, "-std", delay, "-shd", 0) as simulator:
        if not client:
            return simulator.rate(seconds + 20)[1]
        with _client(simulator, "field()") as monitor:
            found = simulator.rate(seconds + 20)
            if _end(monitor)["received"] < 100:
                raise RuntimeError(f"the client of the simulator of {side} received nothing")
            return found[1]


def _paced(side: str, seconds: float) -> tuple[float, dict[str, float]]:
    """Rate at 1 kHz, and how intervals spread."""
    with (
        Simulator(
            side, "-fps", _PACED, "-rt", seconds, "-std", _START_DELAY, "-shd", 1
        ) as simulator,
        _client(simulator, "field(uniqueId,timeStamp)") as monitor,
    ):
        rate = simulator.rate(seconds + 20)[1]
        return rate, _end(monitor)


def _client(simulator: Simulator, fields: str) -> Child:
    return Child("benchmarks.client", simulator.channel, f"record[queueSize=1000]{fields}")


def _end(monitor: Child) -> dict[str, float]:
    """End a client; what it found."""
    assert monitor.process.stdin is not None
    time.sleep(0.2)
    monitor.process.stdin.close()
    return json.loads(monitor.wait(20).splitlines()[-1])
