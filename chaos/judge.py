"""Compares the account of a run with the truth, which is in the pixels."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.chain import REMOTE, Plan
from chaos.pixels import marks_of
from chaos.truth import Saved, Sent
from pvapy_stream.files.completeness import verify

_MOST = 10  # ids that a message names
_WIDE = 20_000  # ids of a range that are looked at; those of a jump need not be
_FATES = ("left", "missed", "unknown", "without_fate", "skipped")
_OF_IDS = ("more than once", "ids go back")
_CANNOT_KNOW = "source without ledger"
# Faults after which an audit has no reason to fail when nothing is gone.
_HARMLESS = {"calm", "pause", "puts", "filter", "stall", "irregular", "jump"}


@dataclass(slots=True)
class Account:
    """What an audit says.

    Attributes:
        ok: whether every id has a fate; strict: whether all were processed too.
        lost: ids that are lost; named: those that are lost or met another fate than processing.
        dropped: of these, what a stage received, and did not process, by stage and fate.
        twice: ids that came or became results more than once.
        doubts: what cannot be known, in words.
        arrived: ids that the first stages received.
    """

    ok: bool
    strict: bool
    lost: set[int] = field(default_factory=set)
    named: set[int] = field(default_factory=set)
    dropped: dict[str, set[int]] = field(default_factory=dict)
    twice: set[int] = field(default_factory=set)
    doubts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    arrived: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, report: Mapping[str, Any], first: str) -> Account:
        """Read what `pvapy-stream audit --json` printed; `first` names the first stage."""
        made = cls(report["ok"], report["ok"] and not report["drops"])
        made.notes += report.get("notes", [])
        for channel in report["channels"]:
            for one in channel["subscribers"]:
                made.lost |= _ids(one["lost"]).union(*map(_ids, one["lost_by"].values()))
                made.named |= _ids(one.get("unknown")) | _ids(one.get("unprocessed"))
                made.twice |= _ids(one.get("surplus"))
                made.doubts += one.get("doubts", [])
        for stage in report["stages"]:
            made._add(stage)
            if stage["stage"] == first or (first == "consumer" and stage["stage"] == first):
                made.arrived |= _ids(stage["received"])
        made.named |= made.lost
        return made

    def _add(self, stage: Mapping[str, Any]) -> None:
        processed = _ids(stage["processed"])
        for name in _FATES:
            self.named |= _ids(stage.get(name))
        self.lost |= _ids(stage["without_fate"])
        self.twice |= _ids(stage.get("duplicate"))
        by_fate = {**stage["rejected"], **stage["failed"], "left": stage["left"]}
        for fate, ranges in by_fate.items():
            ids = _ids(ranges)
            self.named |= ids
            if ids - processed:
                self.dropped[f"{fate} by {stage['stage']}"] = ids - processed


def judge(plan: Plan, sent: Sent, saved: Saved, audits: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with a run; nothing for a clean one.

    Args:
        plan: what was done.
        sent: what was published.
        saved: what is in the files at the end.
        audits: reports, before and after the repair of files.
    """
    wrong = [f"unreadable file: {one}" for one in saved.unreadable]
    wrong += _pixels(plan, sent, saved)
    for when, report in zip(("", " (after repair)"), audits, strict=False):
        if "channels" not in report:
            wrong.append(f"the audit{when} gives no report: {report.get('error', '')}")
            continue
        account = Account.of(report, plan.stages[0])
        found = _account(plan, sent, saved, account)
        # What both say is told once.
        wrong += [f"{one}{when}" for one in found if one not in wrong]
    return wrong


def _pixels(plan: Plan, sent: Sent, saved: Saved) -> list[str]:
    """Frames that cannot be in the files, whatever the account says."""
    expected = sent.expected(plan.filters) | sent.perhaps
    marks = marks_of(plan.stages)
    wrong: dict[str, list[int]] = {}
    for value, number, found in saved.rows:
        if found == -1:
            wrong.setdefault("frames with damaged pixels in the files", []).append(value)
        elif found != marks:
            wrong.setdefault("raw frames as results", []).append(value)
        if number not in sent.ids and number not in sent.perhaps:
            wrong.setdefault("frames that nobody published in the files", []).append(value)
        elif number not in expected:
            wrong.setdefault("frames in the files that were to be dropped", []).append(value)
    return [f"{what}: {_some(ids)}" for what, ids in wrong.items()]


def _account(plan: Plan, sent: Sent, saved: Saved, account: Account) -> list[str]:
    expected = sent.expected(plan.filters)
    counts = Counter(number for _, number, _ in saved.rows)
    wanted = set(expected.values())
    missing = {value for number, value in expected.items() if not counts[number]}
    twice = {value for value, number, _ in saved.rows if counts[number] > 1}
    wrong: list[str] = []
    if unnamed := twice - account.twice:
        wrong.append(f"frames twice in the files, and not named: {_some(unnamed)}")
    unnamed = missing - account.named - _unknowable(plan, account)
    if unnamed and (account.ok or not account.doubts):
        verdict = "audit OK" if account.ok else "audit not OK"
        wrong.append(f"frames gone, and not named ({verdict}): {_some(unnamed)}")
    if missing - _unknowable(plan, account) and account.strict:
        wrong.append(f"strict audit OK while frames are gone: {_some(missing)}")
    if twice and (plan.complete or plan.kind in ("calm", "puts", "irregular", "jump")):
        wrong.append(f"frames twice without any reason: {_some(twice)}")
    if missing and plan.kind == "calm":
        wrong.append(f"frames gone without any fault: {_some(missing)}")
    if missing and plan.complete:
        wrong.append(f"frames gone that could be repaired: {_some(missing)}")
    if false := (account.lost & wanted) - missing:
        wrong.append(f"named lost, but in the files: {_some(false)}")
    published = set(sent.ids.values()) | set(sent.perhaps.values())
    if plan.accounted and plan.base != "source-kill" and (never := account.lost - published):
        wrong.append(f"named lost, but never published: {_some(never)}")
    if plan.transport not in REMOTE and plan.id_kind not in ("again", "far"):
        for fate, ids in account.dropped.items():
            if plan.base != "source-kill" and (false := (ids & wanted) - missing):
                wrong.append(f"named {fate}, but in the files: {_some(false)}")
    harmless = plan.complete or plan.kind in _HARMLESS
    if plan.accounted and harmless and not missing and not twice and not account.ok:
        wrong.append("audit not OK though nothing is gone")
    return wrong


def _unknowable(plan: Plan, account: Account) -> set[int]:
    """Ids of which an audit without the source's ledger says that it cannot know them."""
    if plan.accounted or not any(_CANNOT_KNOW in note for note in account.notes):
        return set()
    arrived = account.arrived
    if not arrived:
        return set(range(_WIDE))
    return set(range(min(arrived))) | set(range(max(arrived) + 1, max(arrived) + _WIDE))


# -- running the commands ------------------------------------------------------------------------


def audit_of(ledgers: Sequence[Path], report: Path) -> dict[str, Any]:
    """What ``pvapy-stream audit`` says; also written to a file."""
    done = _command("audit", "--json", *map(str, ledgers))
    report.write_text(done.stdout + done.stderr)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {"error": (done.stdout + done.stderr)[-300:]}


def repaired(folder: Path, full: bool) -> list[str]:
    """Repair all that was not closed, as docs/saving.md says; what could not be.

    Args:
        folder: of the files.
        full: whether its disk is full; there must be room to repair.
    """
    parts = sorted(folder.glob("*.h5.part"))
    if parts and full:
        subprocess.run(["mount", "-o", "remount,size=256m", str(folder)], check=True)
    wrong: list[str] = []
    for path in parts:
        done = _command("verify", "--repair", str(path))
        text = done.stdout + done.stderr
        if path.exists() and not _is_empty(text):
            wrong.append(f"cannot be repaired: {path.name}: {text.strip()[-250:]}")
    return wrong


def _is_empty(text: str) -> bool:
    """Whether a writer was killed before it had written any image, which leaves no file to save."""
    return "no image" in text


def verified(plan: Plan, sent: Sent, files: Sequence[Path]) -> list[str]:
    """Whether `verify` tells the truth of each file."""
    wrong: list[str] = []
    expected = set(sent.expected(plan.filters).values())
    for path in files:
        report = verify(path)
        inside = _members(report.ids.ranges().tolist())
        # Ids that came again are told by verify too, which knows nothing of a source's epochs.
        told = () if plan.complete else _OF_IDS
        wrong += [
            f"verify of {path.name}: {one}"
            for one in report.problems
            if not any(words in one for words in told)
        ]
        lost = set().union(*(_members(ids.ranges().tolist()) for ids in report.lost.values()))
        plain = plan.id_kind == "plain" and plan.base != "source-kill"
        if plain and lost & inside:
            wrong.append(f"verify says lost, but it is in {path.name}: {_some(lost & inside)}")
        if plain and len(files) == 1 and inside and report.ok:
            gone = {i for i in expected if min(inside) < i < max(inside)} - inside
            if gone:
                wrong.append(f"verify of {path.name} says ok while frames are gone: {_some(gone)}")
        whole = plan.kind == "calm" or (plan.complete and plan.id_kind == "plain")
        if whole and len(files) == 1 and not report.ok:
            wrong.append(f"verify of {path.name} of a whole run is not ok: {sorted(report.lost)}")
    return wrong


def _command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pvapy_stream.cli.main", *words],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def _members(ranges: Iterable[Sequence[int]]) -> set[int]:
    """Of half-open ranges."""
    return {i for first, end in ranges for i in range(first, min(end, first + _WIDE))}


def _ids(ranges: Iterable[Sequence[int]] | None) -> set[int]:
    """Of ranges with their last ids."""
    return _members([first, last + 1] for first, last in ranges or ())


def _some(ids: Iterable[int]) -> str:
    """Some ids, as intervals."""
    found = sorted(ids)
    runs: list[list[int]] = []
    for value in found:
        if runs and value <= runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    shown = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs[:_MOST]]
    return f"{len(found)} frames: " + ", ".join(shown) + (" …" if len(runs) > _MOST else "")
