"""Imports files as they appear in a folder."""

from __future__ import annotations

import fnmatch
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pvapy_stream.plugins import require
from pvapy_stream.workflow.model.parameters import (
    Boolean,
    Float,
    Folder,
    Form,
    Int,
    String,
)
from pvapy_stream.workflow.model.protocol_classes import register
from pvapy_stream.workflow.model.validators import GE, GT
from pvapy_stream.workflow.run.step_protocol import Protocol

_LOOK = 0.1  # s; how often files that grow are looked at


@register("FolderImport")
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
            "idle",
            Float(
                0,
                help="s without a new file after which it ends; 0: until stopped",
                validators=(GE(0),),
            ),
        )
        form.add(
            "amount",
            Int(0, help="number of files after which it ends; 0: no limit", validators=(GE(0),)),
        )
        form.add("polling", Boolean(False, help="for network drives, which do not report changes"))

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
    """Follows a folder; reports each file once, when it has stopped growing.

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
        # Files that may still grow: size and time of the last change, and since when.
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
                # The watch is set up now: what came before is found by listing the folder.
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
