"""Imports files as they appear in a folder; thumbnails of images; a page that shows them."""

from __future__ import annotations

import base64
import fnmatch
import html
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pvapy_stream.errors import PvapyStreamError, WorkflowError
from pvapy_stream.plugins import require
from pvapy_stream.sim.images import open_image
from pvapy_stream.workflow.model.parameters import (
    Boolean,
    Float,
    Folder,
    Form,
    Int,
    Pointer,
    String,
)
from pvapy_stream.workflow.model.registry import register
from pvapy_stream.workflow.model.validators import GE, GT, Positive
from pvapy_stream.workflow.run.step_protocol import Protocol

_LOOK = 0.1  # s; how often files that grow are looked at


@register
class FolderImport(Protocol):
    """Registers files of a folder as they appear, once they have stopped growing."""

    label = "Import from a folder"
    outputs: ClassVar[Mapping[str, str]] = {"files": "set"}
    check_interval = 1.0

    def define_params(self, form: Form) -> None:
        form.add("watched", Folder(None, label="Folder", important=True))
        form.add("pattern", String("*", label="Pattern of file names"))
        form.add("with_subfolders", Boolean(False))
        form.add("stable", Float(0.5, help="s without a change of size", validators=(GT(0),)))
        form.add(
            "idle", Float(0, help="s without a new file that end it; 0: stop", validators=(GE(0),))
        )
        form.add("amount", Int(0, help="files that end it; 0: no limit", validators=(GE(0),)))
        form.add("polling", Boolean(False, help="for network drives, which tell no changes"))

    def insert_all_steps(self) -> None:
        self._watch = Watch(
            Path(self.watched), self.pattern, self.with_subfolders, self.stable, self.polling
        )
        self._last_new = time.monotonic()
        self._n = 0
        # The set is there from the start: others need not wait for the first file.
        self.output("files", folder=str(self.watched))
        self.steps_check()

    def steps_check(self) -> None:
        for path in self._watch.whole():
            if self.amount and self._n >= self.amount:
                break
            self._n += 1
            self._last_new = time.monotonic()
            self.insert_step(self.register, path, prerequisites=[])

    def register(self, path: str) -> None:
        """Append a file to the set."""
        file = Path(path)
        self.output("files").append(
            {"file": path, "name": file.name, "bytes": file.stat().st_size}, key=path
        )

    def more_to_come(self) -> bool:
        if self.amount and self._n >= self.amount:
            return False
        return not self.idle or time.monotonic() - self._last_new < self.idle

    def finish(self) -> None:
        self._watch.close()


class Watch:
    """Follows a folder; tells files once each, when they have stopped growing.

    Raises:
        MissingExtraError: watchfiles is not installed.
    """

    def __init__(
        self, folder: Path, pattern: str, recursive: bool, stable: float, polling: bool
    ) -> None:
        self._folder = folder.resolve()
        self._pattern = pattern
        self._recursive = recursive
        self._stable = stable
        self._stop = threading.Event()
        self._lock = threading.Lock()
        # Files that may still grow: size and time of the last change, and since when they stand.
        self._growing: dict[str, tuple[tuple[int, int], float]] = {}
        self._whole: list[str] = []
        self._told: set[str] = set()
        watchfiles = require("watchfiles", "watch")
        changes = watchfiles.watch(
            self._folder,
            recursive=recursive,
            stop_event=self._stop,
            force_polling=polling or None,
            rust_timeout=500,
            yield_on_timeout=True,
            watch_filter=None,
        )
        for target in (lambda: self._follow(changes), self._look):
            threading.Thread(target=target, name="watch", daemon=True).start()

    def _follow(self, changes: Any) -> None:
        first = True
        for found in changes:
            if first:
                # The watch stands now: what came before is seen by looking.
                first = False
                for path in sorted(
                    self._folder.rglob("*") if self._recursive else self._folder.iterdir()
                ):
                    self._note(str(path))
            for _, path in found:
                self._note(path)

    def _note(self, path: str) -> None:
        if fnmatch.fnmatch(Path(path).name, self._pattern) and not path.endswith(".part"):
            with self._lock:
                if path not in self._told:
                    self._growing.setdefault(path, ((-1, -1), time.monotonic()))

    def _look(self) -> None:
        while not self._stop.wait(_LOOK):
            with self._lock:
                watched = dict(self._growing)
            for path, (before, since) in watched.items():
                self._look_at(path, before, since)

    def _look_at(self, path: str, before: tuple[int, int], since: float) -> None:
        try:
            status = Path(path).stat()
            now = (status.st_size, status.st_mtime_ns) if Path(path).is_file() else None
        except OSError:
            now = None
        with self._lock:
            if now is None:
                self._growing.pop(path, None)
            elif now != before:
                self._growing[path] = (now, time.monotonic())
            elif time.monotonic() - since >= self._stable:
                del self._growing[path]
                self._told.add(path)
                self._whole.append(path)

    def whole(self) -> list[str]:
        """Files that have stopped growing since the last call."""
        with self._lock:
            found, self._whole = self._whole, []
        return found

    def close(self) -> None:
        """Follow it no more."""
        self._stop.set()


@register
class Thumbnails(Protocol):
    """Makes small PNG pictures of the images of a set."""

    label = "Thumbnails"
    outputs: ClassVar[Mapping[str, str]] = {"thumbnails": "set"}
    threads = 2
    check_interval = 1.0

    def define_params(self, form: Form) -> None:
        form.add("images", Pointer(None, accepts="set", label="Images"))
        form.add("size", Int(256, help="pixels of the longer side", validators=(Positive,)))

    def insert_all_steps(self) -> None:
        self.output("thumbnails")
        self.steps_check()

    def steps_check(self) -> None:
        for (item,) in self.take("images"):
            self.insert_step(self.make, item["id"], item["file"], prerequisites=[])

    def make(self, number: int, file: str) -> list[str]:
        """Make one picture; a file that is no image is noted as such, and is no failure."""
        picture = self.extra(f"{number:06d}.png")
        entry: dict[str, Any] = {"file": file, "thumbnail": str(picture), "problem": ""}
        try:
            thumbnail(Path(file), picture, self.size)
        except PvapyStreamError as error:
            entry |= {"thumbnail": "", "problem": str(error)}
        self.output("thumbnails").append(entry, key=file)
        return [str(picture)] if entry["thumbnail"] else []


def thumbnail(file: Path, target: Path, size: int) -> None:
    """Write a small grey picture of an image; of a stack, its first.

    Raises:
        PvapyStreamError: the image cannot be read.
    """
    pillow: Any = require("PIL.Image", "images")
    picture = pillow.fromarray(grey(_first_image(file)))
    picture.thumbnail((size, size))
    picture.save(target)


def grey(image: Any) -> np.ndarray:
    """An image as bytes, the darkest and brightest hundredth cut off."""
    pixels = np.asarray(image, dtype=float)
    low, high = np.percentile(pixels, (1, 99))
    return (np.clip((pixels - low) / ((high - low) or 1.0), 0, 1) * 255).astype(np.uint8)


def _first_image(file: Path) -> Any:
    if file.suffix in (".mrc", ".mrcs"):
        mrcfile: Any = require("mrcfile", "movies")
        try:
            with mrcfile.mmap(file, mode="r") as movie:
                return movie.data[0] if movie.data.ndim > 2 else movie.data[:]
        except (ValueError, OSError) as error:
            raise WorkflowError(f"{file} cannot be read: {error}") from error
    source = open_image(file)
    try:
        return source.frame(0).image
    finally:
        source.close()


@register
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
