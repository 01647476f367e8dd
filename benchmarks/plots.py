"""Curves, kept as SVG files beside the page of figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of one line; None where there is no figure."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure.

    Attributes:
        name: of its file, without the ending.
        ticks: what stands below the values of x, where that is not the value.
        logarithmic: axes that are, of "xy".
        band: y that the curves are to stay between.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    ticks: dict[float, str] = field(default_factory=dict)
    logarithmic: str = ""
    band: tuple[float, float] | None = None


def save(plots: Sequence[Plot], folder: Path) -> list[Path]:
    """Draw each in a file of its own; the same figures give the same bytes."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "pvapy_stream", "svg.fonttype": "none", "font.size": 10})
    folder.mkdir(parents=True, exist_ok=True)
    return [_draw(plot, folder / f"{plot.name}.svg") for plot in plots]


def _draw(plot: Plot, path: Path) -> Path:
    from matplotlib.figure import Figure

    # White, as pages may be dark.
    figure = Figure(figsize=(7, 4), layout="constrained", facecolor="white")
    axes: Any = figure.subplots()
    for curve, marker in zip(plot.curves, "osD^v", strict=False):
        axes.plot(curve.x, curve.y, marker=marker, label=curve.label)
    if plot.band:
        axes.axhspan(*plot.band, color="0.9", zorder=0)
    if "x" in plot.logarithmic:
        axes.set_xscale("log")
    if "y" in plot.logarithmic:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    values = sorted({x for curve in plot.curves for x in curve.x})
    axes.set_xticks(values, [plot.ticks.get(x, f"{x:g}") for x in values])
    axes.minorticks_off()
    axes.set_title(plot.title)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    axes.grid(visible=True, alpha=0.3)
    if len(plot.curves) > 1:
        axes.legend()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    return path
