"""The table of a campaign, and the page it is put into."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.chain import KINDS, TRANSPORTS, Plan

BEGIN, END = "<!-- campaign -->", "<!-- end of campaign -->"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        plan: what was done.
        violations: what was wrong, a sentence each.
        gone: how many frames are not in the files.
        repaired: how many frames came late, as a stage asked for them.
        folder: where its logs, ledgers and files are; "" where they were removed.
        starts: how many programs were started, those that were started again included.
    """

    plan: Plan
    violations: tuple[str, ...]
    gone: int = 0
    folder: str = ""
    starts: int = 0
    repaired: int = 0


def table(outcomes: Sequence[Outcome]) -> str:
    """Runs by kind and transport, with those that had a violation, as Markdown."""
    runs = Counter((one.plan.kind, one.plan.transport) for one in outcomes)
    bad = Counter((one.plan.kind, one.plan.transport) for one in outcomes if one.violations)
    faults = Counter(one.plan.kind for one in outcomes for _ in one.plan.faults)
    repaired: Counter[str] = Counter()
    gone: Counter[str] = Counter()
    for one in outcomes:
        repaired[one.plan.kind] += one.repaired
        gone[one.plan.kind] += one.gone
    lines = [
        f"| kind of run | {' | '.join(TRANSPORTS)} | faults | frames repaired | frames gone |"
        " violations |",
        "|---|" + "--:|" * (len(TRANSPORTS) + 4),
    ]
    for kind in (one for one in KINDS if any(runs[one, name] for name in TRANSPORTS)):
        cells = [
            str(runs[kind, name]) + (f" ({bad[kind, name]} bad)" if bad[kind, name] else "")
            for name in TRANSPORTS
        ]
        total = sum(bad[kind, name] for name in TRANSPORTS)
        lines.append(
            f"| {kind} | {' | '.join(cells)} | {faults[kind]} | {repaired[kind]} | {gone[kind]} |"
            f" {total} |"
        )
    summary = (
        f"{len(outcomes)} runs with {sum(one.plan.n_frames for one in outcomes)} frames and"
        f" {sum(one.starts for one in outcomes)} starts of programs,"
        f" {sum(bad.values())} with a violation, {time.strftime('%Y-%m-%d')}."
    )
    return "\n".join([*lines, "", summary])


def check(page: Path) -> None:
    """End the program, before anything runs, if a page has no place for the table."""
    try:
        _parts(page)
    except (OSError, ValueError) as error:
        raise SystemExit(f"--table: {error}") from error


def write(page: Path, text: str) -> None:
    """Put the table between the markers of a page.

    Raises:
        ValueError: the page has no markers.
    """
    head, tail = _parts(page)
    page.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")


def _parts(page: Path) -> tuple[str, str]:
    """What stands before and after the table."""
    head, begin, rest = page.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the table: {BEGIN} and {END}")
    return head, tail
