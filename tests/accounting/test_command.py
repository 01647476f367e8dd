"""``pvapy-stream audit`` reads files, prints tables and exits by the outcome."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.keeper import write_ledgers
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.cli.audit import main

IDS = range(1, 11)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A run without loss, in which one id failed."""
    sim = Ledger("sim", output_channel="a:long:channel:name", published=IdSet(IDS))
    consumer = Ledger("consumer", 1, "a:long:channel:name", received=IdSet(IDS))
    consumer.processed = IdSet(range(1, 10))
    consumer.fail("process: ValueError", 10)
    paths = [tmp_path / "sim.json", tmp_path / "consumer.json"]
    for path, ledger in zip(paths, (sim, consumer), strict=True):
        write_ledgers(path, [ledger])
    return [str(path) for path in paths]


def test_all_well(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(files) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "audit: published 10, processed 9, missed 0, without a fate 0: OK"
    assert lines[-2] == "id 10 failed (process: ValueError) by consumer 1"
    row = next(line for line in lines if line.startswith("│ consumer"))
    # Received, processed, filtered, skipped, duplicate, missed, unknown, rejected, failed …
    counts = "10 9 0 0 0 0 0 0 1 0 0".split()
    assert row.replace("│", " ").split() == ["consumer", "1", "a:long:channel:name", *counts]


def test_strict(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--strict", *files]) == 1
    assert "FAILED: id 10 failed" in capsys.readouterr().out.splitlines()[-1]


def test_loss(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_ledgers(files[1], [Ledger("consumer", 1, "a:long:channel:name")])
    assert main(files) == 1
    text = capsys.readouterr().out
    assert "10 ids: 1-10 lost between sim 0 and consumer 1" in text.splitlines()[-1]


def test_json(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", *files]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ok"]
    assert result["stages"][1]["failed"] == {"process: ValueError": [[10, 10]]}
    assert result["channels"][0]["subscribers"][0]["lost"] == []


def test_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.json"
    path.write_text("{}")
    assert main([str(path)]) == 1
    assert f"error: {path} is not a ledger" in capsys.readouterr().err


def test_no_file_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
