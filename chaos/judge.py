"""Compares the account of a run with the truth, which is in the pixels."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import psutil

from chaos.chain import Chain
from chaos.plan import Plan
from chaos.processors import DONE, is_hit

_DATASET = "entry/data/data"
_MOST = 12  # ids that a message names


def judge(plan: Plan, chain: Chain, slow: list[str]) -> list[str]:
    """What is wrong with a run; nothing for a clean one."""
    folder = chain.folder
    wrong = [f"{name} did not end when it was asked to" for name in slow]
    saved, raw, unreadable = _saved(folder)
    wrong += [f"unreadable file: {one}" for one in unreadable]
    if raw:
        wrong.append(f"raw frames as results: {_some(raw)}")
    code, report = _audit(folder)
    if report is None:
        return [*wrong, "the audit gives no report"]
    sent = Counter(_sent(plan, folder))
    expected = Counter({i: n for i, n in sent.items() if is_hit(i)}) if plan.filters else sent
    named, lost, doubts = _named(report)
    foreign = sorted(set(saved) - set(expected))
    if foreign:
        wrong.append(f"frames that were not to be there: {_some(foreign)}")
    twice = {i for i in saved if saved[i] > expected[i]} - _twice(report) - set(foreign)
    if twice:
        wrong.append(f"frames twice, and not named: {_some(twice)}")
    missing = {i for i in expected if saved[i] < expected[i]}
    unnamed = missing - named
    if unnamed and not doubts:
        wrong.append(f"lost, and not named: {_some(unnamed)}")
    if missing and code == 0:
        wrong.append(f"strict audit says OK while {len(missing)} frames are gone: {_some(missing)}")
    false = {i for i in lost if i in expected and saved[i] >= expected[i]}
    if false:
        wrong.append(f"named lost, but in the files: {_some(false)}")
    if not missing and not plan.faults and not plan.foreign and code and plan.kind != "puts":
        wrong.append(f"audit fails though nothing is gone: {report['failures'][:2]}")
    return [*wrong, *_left(chain)]


def _saved(folder: Path) -> tuple[Counter[int], list[int], list[str]]:
    """Ids in the files, from the pixels; raw ones; files that cannot be read."""
    saved: Counter[int] = Counter()
    raw: list[int] = []
    unreadable: list[str] = []
    for path in sorted(folder.glob("run.*.h5*")):
        if path.name.endswith(".part"):
            done = subprocess.run(
                [sys.executable, "-m", "pvapy_stream.cli.main", "verify", "--repair", str(path)],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            path = path.with_suffix("")
            if not path.exists():
                # A file without any whole image cannot be repaired, and needs not be.
                if "no image" not in done.stdout + done.stderr:
                    unreadable.append(f"{path.name}.part ({(done.stdout + done.stderr)[-200:]})")
                continue
        try:
            with h5py.File(path, "r") as file:
                pixels = file[_DATASET][:, 0, 0].tolist()
        except (OSError, KeyError) as error:
            unreadable.append(f"{path.name} ({error})")
            continue
        saved.update(pixel & (DONE - 1) for pixel in pixels)
        raw += [pixel for pixel in pixels if not pixel & DONE]
    return saved, raw, unreadable


def _audit(folder: Path) -> tuple[int, dict[str, Any] | None]:
    ledgers = sorted(map(str, folder.glob("*.ledger.json")))
    done = subprocess.run(
        [sys.executable, "-m", "pvapy_stream.cli.main", "audit", "--strict", "--json", *ledgers],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    (folder / "audit.json").write_text(done.stdout + done.stderr)
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        return done.returncode, None


def _sent(plan: Plan, folder: Path) -> Iterable[int]:
    if plan.foreign:
        return map(int, (folder / "sent.txt").read_text().split())
    return range(1, plan.n_frames + 1)


def _ids(ranges: Iterable[tuple[int, int]]) -> Iterable[int]:
    for first, last in ranges:
        # Ids in a jump need not be counted one by one.
        yield from range(first, min(last, first + 10_000) + 1)


def _named(report: dict[str, Any]) -> tuple[set[int], set[int], bool]:
    """Ids that the audit names as not processed, those it says are lost, and whether it doubts."""
    lost: set[int] = set()
    named: set[int] = set()
    doubts = False
    for channel in report["channels"]:
        for one in channel["subscribers"]:
            lost.update(_ids(one["lost"]))
            for ids in one["lost_by"].values():
                lost.update(_ids(ids))
            named.update(_ids(one["unknown"]))
            named.update(_ids(one["unprocessed"]))
            doubts = doubts or bool(one["doubts"])
    for stage in report["stages"]:
        lost.update(_ids(stage["without_fate"]))
        named.update(_ids(stage["left"]))
        named.update(_ids(stage["skipped"]))
        named.update(_ids(stage["missed"]))
        for fates in (stage["rejected"], stage["failed"]):
            for ids in fates.values():
                named.update(_ids(ids))
    return named | lost, lost, doubts


def _twice(report: dict[str, Any]) -> set[int]:
    """Ids that the audit names as having come, or become results, more than once."""
    found: set[int] = set()
    for stage in report["stages"]:
        found.update(_ids(stage["duplicate"]))
    for channel in report["channels"]:
        for one in channel["subscribers"]:
            found.update(_ids(one["surplus"]))
    return found


def _left(chain: Chain) -> list[str]:
    """Processes and shared memory that are still there."""
    wrong: list[str] = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(chain.prefix in word for word in words) and "--json" not in words:
            wrong.append(f"process {process.pid} is left: {' '.join(words[2:5])}")
    return wrong


def _some(ids: Iterable[int]) -> str:
    found = sorted(ids)
    return ", ".join(map(str, found[:_MOST])) + (f" … ({len(found)})" if len(found) > _MOST else "")
