"""Checks the files that a workflow has written, and writes a report of them."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pvapy_stream.errors import MissingExtraError, WorkflowError
from pvapy_stream.files.names import written_since
from pvapy_stream.plugins import require
from pvapy_stream.workflow.library.thumbnails import grey
from pvapy_stream.workflow.model.parameters import Form, Int, Pointer, String
from pvapy_stream.workflow.model.protocol_classes import register
from pvapy_stream.workflow.model.validators import GE
from pvapy_stream.workflow.run.step_protocol import Protocol

if TYPE_CHECKING:
    from pvapy_stream.files.completeness import FileReport

_STYLE = "body{font-family:sans-serif}td,th{padding:.3em 1em;text-align:left}.bad{color:#b3261e}"


@register("VerifyFiles")
class VerifyFiles(Protocol):
    """Verifies the files of a writer when it has ended, and writes a report with pictures."""

    label = "Verification"
    outputs: ClassVar[Mapping[str, str]] = {"report": "file"}

    def define_params(self, form: Form) -> None:
        form.add("files", Pointer(None, accepts="file", label="Files", important=True))
        form.add("title", String("What was written"))
        form.add("pictures", Int(4, help="of each file", validators=(GE(0),)))

    def insert_all_steps(self) -> None:
        self.insert_step(self.look)

    def look(self) -> str:
        """Verify all files; the report is there also when one is not in order."""
        # Late, as HDF5 takes long to import, and most workflows have no such step.
        from pvapy_stream.files.completeness import verify

        reports = [verify(path) for path in written_since(self.files, 0)]
        page = self.extra("report.html")
        page.write_text(self._page(reports))
        self.output_file("report", page)
        bad = [one for one in reports if not one.ok]
        if bad or not reports:
            what = "; ".join(f"{one.path}: {_words(one)}" for one in bad)
            raise WorkflowError(f"{what or f'there is no file {self.files}'}; see {page}")
        for one in reports:
            self.log.info("%s: %d images, all in order", one.path, one.n_images)
        return str(page)

    def _page(self, reports: Sequence[FileReport]) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(str(one.path))}</td><td>{one.n_images}</td>"
            f"<td>{html.escape(str(one.ids))}</td><td>{one.n_lost}</td>"
            f"<td{'' if one.ok else ' class=bad'}>{html.escape(_words(one))}</td></tr>"
            for one in reports
        )
        pictures = "".join(_pictures(one.path, self.pictures) for one in reports if one.n_images)
        title = html.escape(self.title)
        return (
            f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
            f"<style>{_STYLE}</style><h1>{title}</h1><table>"
            "<tr><th>file</th><th>images</th><th>ids</th><th>lost</th><th>result</th></tr>"
            f"{rows}</table>{pictures}</html>"
        )


def _words(report: FileReport) -> str:
    if report.ok:
        return "in order"
    return "; ".join([*report.problems, *(f"{k}: {v}" for k, v in report.lost.items())])


def _pictures(path: Path, n: int) -> str:
    """Images of a file, spread over it."""
    from pvapy_stream.files.nexus_layout import IMAGES
    from pvapy_stream.files.reading import open_any, open_data

    try:
        pillow: Any = require("PIL.Image", "images")
    except MissingExtraError as error:
        return f"<p>No pictures: {html.escape(str(error))}</p>"
    found: list[str] = []
    with open_any(path) as file:
        if IMAGES not in file:
            # Columns of many channels; their file says what is in it.
            return ""
    with open_data(path) as file:
        images: Any = file[IMAGES]
        for index in np.unique(np.linspace(0, len(images) - 1, n).astype(int)) if n else ():
            picture = pillow.fromarray(grey(images[index]))
            picture.thumbnail((256, 256))
            data = io.BytesIO()
            picture.save(data, "PNG")
            encoded = base64.b64encode(data.getvalue()).decode()
            found.append(f'<img alt="image {index}" src="data:image/png;base64,{encoded}"> ')
    return f"<p>{''.join(found)}</p>"
