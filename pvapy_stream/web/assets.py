"""Files that come with the pages: styles, scripts, templates."""

from __future__ import annotations

from functools import cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"
TEMPLATES = Path(__file__).parent / "templates"


@cache
def styles() -> str:
    """All styles, for a page."""
    return _text("uPlot.min.css") + _text("style.css")


@cache
def chart_scripts() -> str:
    """The script that draws charts, for a page."""
    return _text("uPlot.iife.min.js") + "\n" + _text("charts.js")


def _text(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")
