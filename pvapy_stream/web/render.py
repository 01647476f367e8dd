"""A report as HTML, from a Jinja2 template."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pvapy_stream.errors import MonitorError
from pvapy_stream.plugins import require
from pvapy_stream.web.assets import TEMPLATES, chart_scripts, styles

NONE = "\u2013"


class Renderer:
    """Renders reports.

    Args:
        template: the user's template; it may extend ``report.html``, ours. "" for ours.

    Raises:
        MonitorError: the template is missing or broken.
        MissingExtraError: Jinja2 is not installed.
    """

    def __init__(self, template: str = "") -> None:
        self._jinja = require("jinja2", "web")
        path = Path(template) if template else TEMPLATES / "report.html"
        folders = [str(path.parent), str(TEMPLATES)]
        environment = self._jinja.Environment(
            loader=self._jinja.FileSystemLoader(folders),
            autoescape=True,
            undefined=self._jinja.StrictUndefined,
        )
        environment.filters.update(count=count, si=si, seconds=seconds, clock=clock)
        self._path = path
        try:
            self._template = environment.get_template(path.name)
        except self._jinja.TemplateNotFound as error:
            raise MonitorError(
                f"--template: there is no template {error.name} at {path.parent}"
            ) from error
        except self._jinja.TemplateSyntaxError as error:
            raise MonitorError(f"--template: {path}, line {error.lineno}: {error}") from error

    def render(self, content: Mapping[str, object]) -> str:
        """The page.

        Raises:
            MonitorError: the template asks for what there is not, or fails.
        """
        charts = msgspec.json.encode(content["charts"]).decode()
        markup = require("markupsafe", "web").Markup
        try:
            return self._template.render(
                content,
                styles=markup(styles()),
                scripts=markup(chart_scripts()),
                # Nothing in a name may end the script that contains it.
                charts_json=markup(charts.replace("<", "\\u003c")),
            )
        except Exception as error:  # a template may raise whatever its expressions raise
            raise MonitorError(
                f"--template: {self._path} fails: {type(error).__name__}: {error}"
            ) from error


def count(value: float | None) -> str:
    """A whole number in groups of three."""
    return NONE if value is None or math.isnan(value) else f"{value:,.0f}".replace(",", "\u202f")


def si(value: float | None) -> str:
    """A number with three digits and a prefix."""
    if value is None or math.isnan(value):
        return NONE
    for size, prefix in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return f"{value / (1e3 if size == 1e4 else size):.3g}{prefix}"
    return f"{value:.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"


def seconds(value: float | None) -> str:
    """A duration in the unit that fits."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value) >= size or size == 1e-6:
            return f"{value / size:.3g} {unit}"
    return ""


def clock(value: float) -> str:
    """A time of day; with the date when it is of another day."""
    then, now = time.localtime(value), time.localtime()
    same = (then.tm_year, then.tm_yday) == (now.tm_year, now.tm_yday)
    return time.strftime("%H:%M:%S" if same else "%Y-%m-%d %H:%M", then)
