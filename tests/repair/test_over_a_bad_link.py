"""Over a connection that is cut and stalled, a file is complete if it is written with --repair."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pvapy_stream.accounting.ledger import Ledger, read_ledgers
from tests.repair.links import Link, N, audit_of, ids_in
from tests.support import Commands, Program, image, status, wait_until


def written(
    commands: Commands, link: Link, prefix: str, folder: Path, *options: object
) -> tuple[Program, Any]:
    """Write what comes over the link; the ended writer, and its last status."""
    stage = commands(
        "write", "-ic", link.channel, "-o", folder / "out.h5", "-sc", f"{prefix}writer", "-dc",
        "--drain-timeout", 30, "--ledger", folder / "writer.json", *options, **link.found_at,
    )  # fmt: skip
    link.disturb()
    stage.signal()
    stage.wait()
    link.source.signal()
    link.source.wait()
    ledgers = read_ledgers(folder / "writer.json")
    assert len(ledgers) == 1
    return stage, ledgers[0]


def test_a_file_is_complete(
    commands: Commands, link: Callable[..., Link], prefix: str, tmp_path: Path
) -> None:
    stage, ledger = written(commands, link("--keep-past", 100), prefix, tmp_path, "--repair")
    assert stage.process.returncode == 0, stage.text
    assert isinstance(ledger, Ledger)
    assert len(ledger.repaired) >= 100
    assert not ledger.missed
    assert not ledger.unrepairable
    assert sorted(ids_in(tmp_path / "out.h5")) == list(range(1, N + 1))
    code, text = audit_of(commands, tmp_path / "sim.json", tmp_path / "writer.json")
    assert (code, "repaired" in text) == (0, True), text
    verified = commands("verify", tmp_path / "out.h5")
    assert verified.wait() == 0, verified.text


def test_without_repair_it_is_not(
    commands: Commands, link: Callable[..., Link], prefix: str, tmp_path: Path
) -> None:
    _, ledger = written(commands, link("--keep-past", 100), prefix, tmp_path)
    assert len(ids_in(tmp_path / "out.h5")) <= N - 100
    assert not ledger.repaired


def test_what_the_source_keeps_no_longer_is_named(
    commands: Commands, link: Callable[..., Link], prefix: str, tmp_path: Path
) -> None:
    _, ledger = written(commands, link("--keep-past", 0.01), prefix, tmp_path, "--repair")
    (why,) = ledger.unrepairable
    assert "too little of the past" in why
    assert ledger.unrepairable[why] == ledger.missed
    assert ledger.missed
    code, text = audit_of(commands, tmp_path / "sim.json", tmp_path / "writer.json")
    assert (code, "could not be repaired" in text) == (1, True), text


def test_another_program_is_not_asked(
    commands: Commands, link: Callable[..., Link], prefix: str, tmp_path: Path
) -> None:
    source = link("--keep-past", 100)
    stage = commands(
        "write", "-ic", source.channel, "-o", tmp_path / "out.h5", "-sc", f"{prefix}writer", "-dc",
        "--repair", "--repair-timeout", 20, "--ledger", tmp_path / "writer.json",
        **source.found_at,
    )  # fmt: skip
    wait_until(lambda: source.newest() >= 100)
    source.proxy.cut()
    end = source.newest() + 50
    wait_until(lambda: source.newest() >= end)
    source.source.signal(signal.SIGKILL)
    source.source.wait()
    # The ids are the same, the images are not.
    source.source = source.start(more=10_000, clients=0)
    wait_until(lambda: source.newest() >= 30)
    source.proxy.mend()
    wait_until(lambda: source.newest() == N)
    wait_until(lambda: status(f"{prefix}writer").get("processorStats", {}).get("lastObjectId") == N)
    stage.signal()
    stage.wait()
    source.source.signal()
    assert source.source.wait() == 0
    first, second = read_ledgers(tmp_path / "writer.json")
    assert not first.repaired
    assert second.repaired
    assert not second.missed
    assert not second.unknown
    with h5py.File(tmp_path / "out.h5") as opened:
        rows = [
            *zip(opened["/entry/data/id"][()].tolist(), opened["/entry/data/data"], strict=True)
        ]
    of_first = len(first.processed)
    assert [value for value, _ in rows[:of_first]] == list(range(1, of_first + 1))
    for number, (value, pixels) in enumerate(rows):
        assert np.array_equal(pixels, image(value + 10_000 * (number >= of_first)))
    assert sorted(value for value, _ in rows[of_first:]) == list(range(1, N + 1))
