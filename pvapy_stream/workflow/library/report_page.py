"""Writes a page that shows the items of a set."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pvapy_stream.workflow.model.parameters import (
    Form,
    Int,
    Pointer,
    String,
)
from pvapy_stream.workflow.model.protocol_classes import register
from pvapy_stream.workflow.model.validators import Positive
from pvapy_stream.workflow.run.step_protocol import Protocol


@register("ReportPage")
class ReportPage(Protocol):
    """Writes an HTML page of a set, with its thumbnails in it; it needs no network."""

    label = "Report"
    outputs: ClassVar[Mapping[str, str]] = {"page": "file"}
    check_interval = 2.0

    def define_params(self, form: Form) -> None:
        form.add("items", Pointer(None, accepts="set", label="Set"))
        form.add("title", String("Report"))
        form.add("newest", Int(100, help="items that are shown", validators=(Positive,)))

    def insert_all_steps(self) -> None:
        self.steps_check()

    def steps_check(self) -> None:
        batches = self.take("items", 1000)
        new = [item["id"] for batch in batches for item in batch]
        if new or not self.extra("report.html").exists():
            self.insert_step(self.write, new[-1] if new else 0)

    def write(self, last: int) -> str:
        """Write the page up to an item."""
        shown = self.items.page(max(0, last - self.newest), self.newest)
        rows = "".join(_row(item) for item in reversed(shown))
        page = self.extra("report.html")
        part = page.with_suffix(".part")
        part.write_text(
            '<!DOCTYPE html><html lang="en"><meta charset="utf-8">'
            f"<title>{html.escape(self.title)}</title>"
            "<style>body{font-family:sans-serif}td{padding:.3em;vertical-align:top}</style>"
            f"<h1>{html.escape(self.title)}</h1><p>{last} items</p><table>{rows}</table></html>"
        )
        part.replace(page)
        self.output_file("page", page)
        return str(page)


def _row(item: dict[str, Any]) -> str:
    picture = item.get("thumbnail")
    shown = ""
    if picture:
        data = base64.b64encode(Path(picture).read_bytes()).decode()
        shown = f'<img alt="" src="data:image/png;base64,{data}">'
    words = "<br>".join(
        f"{html.escape(str(name))}: {html.escape(str(value))}"
        for name, value in item.items()
        if name != "thumbnail" and value != ""
    )
    return f"<tr><td>{shown}</td><td>{words}</td></tr>"
