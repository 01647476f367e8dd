"""Runs of the campaign, and their table."""

from __future__ import annotations

import shutil
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from chaos.chain import Chain
from chaos.judge import judge
from chaos.plan import KINDS, Plan, plan

_BEGIN, _END = "<!-- campaign -->", "<!-- end of campaign -->"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    plan: Plan
    violations: list[str]
    folder: str


def one_run(seed: int, kind: str = "") -> Outcome:
    """Do the run of a seed; its folder stays when something is wrong."""
    made = plan(seed, kind)
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    chain = Chain(made, folder)
    try:
        chain.start()
        chain.run()
        slow = chain.end()
        violations = judge(made, chain, slow)
    except Exception:
        violations = [f"the run itself failed: {traceback.format_exc()[-400:]}"]
    finally:
        chain.kill()
    if not violations:
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(made, violations, str(folder))


def table(outcomes: list[Outcome]) -> str:
    """Runs and violations by kind and transport, as Markdown."""
    runs = Counter((o.plan.kind, o.plan.transport) for o in outcomes)
    bad = Counter((o.plan.kind, o.plan.transport) for o in outcomes if o.violations)
    lines = ["| fault | pva | shm | both |", "|---|--:|--:|--:|"]
    for kind in KINDS:
        cells = [
            f"{runs[kind, t]}" + (f" ({bad[kind, t]} bad)" if bad[kind, t] else "")
            for t in ("pva", "shm", "both")
        ]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    n_bad = sum(bad.values())
    made = time.strftime("%Y-%m-%d")
    return "\n".join([*lines, "", f"{made}: {len(outcomes)} runs, {n_bad} with a violation."])


def write_table(page: Path, text: str) -> None:
    """Put the table between the markers of a page."""
    content = page.read_text()
    head, _, rest = content.partition(_BEGIN)
    tail = rest.partition(_END)[2]
    page.write_text(f"{head}{_BEGIN}\n{text}\n{_END}{tail}")
