"""What a hit finder drops on purpose is no loss, wherever one looks."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.in_process import call
from tests.ports import free_port
from tests.support import Commands, Program, command, status, wait_until, write_processor

N, HITS, DROPPED = 3000, 360, 2640
# Three frames in 25 are hits.
HIT_FINDER = """
from pvapy_stream import Frame, FrameProcessor

class HitFinder(FrameProcessor):
    def process_frame(self, frame: Frame) -> Frame | None:
        return frame if frame.id % 25 < 3 else None
"""


def adds_up(counts: dict[str, float]) -> bool:
    fates = ("processed", "filtered", "skipped", "rejected", "errors", "queued")
    return counts["received"] == sum(counts[name] for name in fates)


def asked(board: Program, path: str) -> bytes:
    line = wait_until(lambda: next((x for x in board.out if "dashboard:" in x), ""))
    with urllib.request.urlopen(line.split()[1] + path, timeout=20) as answer:
        return answer.read()


def dashboard_stages(board: Program) -> list[dict[str, Any]]:
    return json.loads(asked(board, "api/state"))["stages"]


def metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return {s.name.removeprefix("pvapy_stream_stage_"): s.value for s in samples}


def table(html: str, channel: str) -> dict[str, int]:
    (row,) = re.findall(f'<tr data-channel="{channel}">.*?</tr>', html, re.DOTALL)
    return {k: int(v) for k, v in re.findall(r'data-label="(\w+)" data-value="(\d+)"', row)}


def test_dashboard_report_metrics_top_terminal_and_audit_agree_on_what_a_hit_finder_drops(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    image, hits = f"{prefix}image", f"{prefix}hits"
    ledgers = [tmp_path / f"{name}.json" for name in ("sim", "find", "disk")]
    port, page = free_port(), tmp_path / "report.html"
    find, disk = (f"{prefix}{name}:status" for name in ("find", "disk"))
    finder = commands(
        "consumer", "-ic", image, "-oc", hits, "-sc", find, "-cc", f"{prefix}find:control",
        "-pf", write_processor(tmp_path, HIT_FINDER), "-pc", "HitFinder", "-sqs", N, "-rs", "all",
        "--metrics-port", port, "--ledger", ledgers[1],
    )  # fmt: skip
    writer = commands(
        "write", "-ic", hits, "-o", tmp_path / "hits.h5", "-sc", disk, "-cc",
        f"{prefix}disk:control", "-sqs", N, "--ledger", ledgers[2],
    )  # fmt: skip
    source = commands(
        "sim", "-cn", image, "-nx", 8, "-ny", 8, "-nf", 10, "-fps", 1000, "--n-publish", N,
        "--wait-for-stages", f"{find},{disk}", "-dc", "-shd", 60, "-rp", 0, "--ledger", ledgers[0],
    )  # fmt: skip
    board = commands("dashboard", "-sc", find, disk, "--port", 0, "--refresh", "0.3")
    report = commands("report", "-sc", find, disk, "-o", page, "--interval", "0.5")

    def done() -> bool:
        found = status(disk).get("processorStats", {})
        # Not for a moment: there may be alarms for it.
        assert found.get("nMissed", 0) == 0
        return found.get("nProcessed") == HITS and (
            status(find)["processorStats"]["nFiltered"] == DROPPED
        )

    wait_until(done, what="the last frame")
    expected = {"processed": HITS, "filtered": DROPPED, "missed": 0, "errors": 0}
    stages = wait_until(
        lambda: (s := dashboard_stages(board))[1]["counts"].get("processed") == HITS and s
    )
    assert stages[0]["counts"].items() >= expected.items()
    assert all(adds_up(one["counts"]) for one in stages), stages
    assert stages[1]["counts"]["missed"] == 0
    assert not any(one["counts"]["unknown"] for one in stages)
    # What its page makes columns of.
    assert b'data-count="filtered">filtered<' in asked(board, "")
    counted = metrics(port)
    assert counted["filtered_objects_total"] == DROPPED
    assert counted["missed_objects_total"] == counted["unknown_objects_total"] == 0
    top = commands("top", "-sc", find, disk, "-rt", "0.5", "--refresh", "0.3")
    assert top.wait() == 0, top.text
    assert str(DROPPED) in next(line for line in top.out if find in line)

    for name in ("find", "disk"):
        command(f"{prefix}{name}:control", "stop")
    assert finder.wait() == writer.wait() == report.wait() == 0, finder.text + writer.text
    assert f"nFiltered {DROPPED}" in finder.text
    html = page.read_text()
    for channel, here in ((find, expected), (disk, {"filtered": 0, "missed": 0})):
        counts = table(html, channel)
        assert counts.items() >= here.items()
        assert adds_up(counts), counts
    assert 'data-total="missed">0<' in html
    assert 'data-label="unknown"' not in html
    source.signal()
    assert source.wait() == 0, source.text
    audit = call("audit", "--json", *ledgers)
    assert audit.code == 0, audit.text
    told = json.loads("".join(audit.out))
    assert (told["published"], told["processed"], told["filtered"]) == (N, HITS, DROPPED)
    assert told["without_fate"] == told["missed"] == 0
