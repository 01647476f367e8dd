"""Rows of figures, shown on the terminal and written as Markdown."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

START = "<!-- figures: start -->"
END = "<!-- figures: end -->"
_HEADING = "## "

_INTRODUCTION = f"""\
# Benchmarks

pvapy's own streaming framework and this package do the same work on the same machine, in turns in
one run; figures are medians of three rounds (seven for building, five for files and for a watched
consumer), but for the search for the highest rate, chains, flatness, tuning, pacing, a late source,
memory and streams of bsread, which are one run each. Run them with `make bench`,
and write this page's figures anew with `python -m benchmarks [TOPIC…] --write docs/benchmarks.md`.

- **CPU per frame** is the CPU time (user and system, all threads) of the consumer process between
  the first and the last frame, seen from outside, over the frames it processed. It counts only
  when both processed every frame; else the rate is lowered. Both have an output channel that
  nobody monitors.
- **Highest lossless rate** is the highest rate of a burst that was processed whole, the last frame
  within a quarter of a second after it was published, with a server queue of 1000 frames.
- **A late source** of ours waits for its client; pvapy's has no such option and starts at once. It
  streams for two seconds and stays for three more; "never" is a consumer that saw none of it.
- **A chain** is a source and two consumers (or four), all pass-through. Over PVA the rate is
  searched as above (but within 0.3 s); over shared memory the source sends as fast as it is let,
  and all must arrive.
- **Ratio** is ours over pvapy's. Rows without pvapy's figure have no counterpart there, or compare
  with something else that is named.

{START}
{END}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure for both sides; None for a side that has none."""

    what: str
    unit: str
    ours: float | None
    pvapy: float | None
    target: str = ""
    met: bool | None = None

    @property
    def ratio(self) -> float | None:
        """Ours over pvapy's."""
        if self.ours is None or not self.pvapy or math.isinf(self.pvapy):
            return None
        return self.ours / self.pvapy

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        verdict = "" if self.met is None else "yes" if self.met else "no"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        figures = _number(self.ours), _number(self.pvapy)
        return self.what, *figures, self.unit, ratio, self.target, verdict


HEAD = ("", "ours", "pvapy", "unit", "ratio", "target", "met")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if value == 0 or abs(value) >= 100 else f"{value:.3g}"


def show(rows: Sequence[Row]) -> None:
    """Print rows in columns."""
    table = [HEAD, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        print(line.rstrip(), flush=True)


def section(topic: str, rows: Sequence[Row], made: str) -> str:
    """A topic's part of the page: its rows as a Markdown table, and how they were made."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---|--:|--:|---|--:|---|---|"]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    return "\n".join([f"{_HEADING}{topic}", "", *lines, "", made])


def facts(quick: bool) -> str:
    """What the figures were measured on, and how."""
    how = "one short round each (--quick)" if quick else "rounds as said above"
    return (
        f"{time.strftime('%Y-%m-%d')}: {os.cpu_count()} cores ({platform.machine()}),"
        f" Python {platform.python_version()}, pvapy {version('pvapy')},"
        f" numpy {version('numpy')}, pvapy_stream {version('pvapy_stream')}; {how}."
    )


def write(path: Path, sections: Mapping[str, str], order: Sequence[str]) -> None:
    """Put sections between the marks of a Markdown file, in the place of older ones.

    Args:
        path: the file, which is made when it is not there.
        sections: what is new, by topic.
        order: of all topics.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else _INTRODUCTION
    head, start, rest = text.partition(START)
    figures, end, tail = rest.partition(END)
    if not start or not end:
        raise ValueError(f"{path} lacks the lines {START} and {END}; add them to it")
    older = (_HEADING + part.strip() for part in figures.split(_HEADING)[1:])
    kept = {part.partition("\n")[0].removeprefix(_HEADING): part for part in older}
    kept |= sections
    body = "\n\n".join(kept[topic] for topic in order if topic in kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}{START}\n\n{body}\n\n{END}{tail}", encoding="utf-8")
