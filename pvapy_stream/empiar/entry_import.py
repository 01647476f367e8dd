"""Imports the movies of an EMPIAR entry: one after another, registered while others arrive."""

from __future__ import annotations

import fnmatch
import json
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pvapy_stream.empiar.downloads import download
from pvapy_stream.empiar.servers import list_folder, read, with_retries
from pvapy_stream.errors import WorkflowError
from pvapy_stream.plugins import require
from pvapy_stream.workflow.model.parameters import ADVANCED, Float, Form, Int, String
from pvapy_stream.workflow.model.validators import GE, Format
from pvapy_stream.workflow.run.step_protocol import Protocol
from pvapy_stream.workflow.run.steps import Step

_API = "https://www.ebi.ac.uk/empiar/api/entry/"
_FILES = "https://ftp.ebi.ac.uk/empiar/world_availability/"


class EmpiarImport(Protocol):
    """Fetches movies of an EMPIAR entry one by one and registers them while others arrive."""

    label = "Import of an EMPIAR entry"
    outputs: ClassVar[Mapping[str, str]] = {"movies": "set"}
    threads = 3
    check_interval = 0.5

    def define_params(self, form: Form) -> None:
        form.section("Data")
        form.add(
            "entry_id",
            String(
                "10200",
                label="Entry",
                important=True,
                help="number of the entry, as in EMPIAR-10200",
                validators=(Format(r"\d+", "must be a number, as in EMPIAR-10200"),),
            ),
        )
        form.add(
            "amount",
            Int(1, label="Number of images", help="0 for all", validators=(GE(0),)),
        )
        form.add("image_set", Int(1, help="which of the entry's, from 1 on", validators=(GE(1),)))
        form.add("pattern", String("*.mrc*", label="Pattern of file names"))
        form.section("Servers")
        form.add("api", String(_API, label="Address of metadata", expert_level=ADVANCED))
        form.add(
            "files",
            String(
                _FILES,
                label="Address of files",
                expert_level=ADVANCED,
                help="https:// or ftp://, without the entry",
            ),
        )
        form.add("retries", Int(5, validators=(GE(0),), help="of each request"))
        form.add(
            "max_size",
            Float(
                100.0,
                label="Largest movie",
                expert_level=ADVANCED,
                validators=(GE(0),),
                help="GB; a larger file is not fetched; 0 for no limit",
            ),
        )
        form.add("pause", Float(1.0, validators=(GE(0),), help="s before the first retry"))

    def insert_all_steps(self) -> None:
        self._fetched: Step | None = None
        self._first = self.insert_step(self.read_entry)

    def steps_check(self) -> None:
        if self._fetched is None and self._listing.exists():
            for url in json.loads(self._listing.read_text()):
                # One fetch after another; what is there is registered meanwhile.
                before = self._fetched or self._first
                self._fetched = self.insert_step(self.fetch, url, prerequisites=[before])
                self.insert_step(self.register, url, prerequisites=[self._fetched])

    @property
    def _listing(self) -> Path:
        return self.extra("files.json")

    def read_entry(self) -> list[str]:
        """Get the entry's metadata, and the list of its files."""
        address = f"{self.api.rstrip('/')}/{self.entry_id}"
        content = self._ask(address, lambda: read(address))
        name = f"EMPIAR-{self.entry_id}"
        try:
            entry = json.loads(content)[name]
            sets = entry["imagesets"]
        except (ValueError, KeyError, TypeError) as error:
            raise WorkflowError(
                f"{address} does not describe {name} ({error}); is that the number of an entry?"
            ) from error
        if self.image_set > len(sets):
            raise WorkflowError(f"{name} has {len(sets)} image sets, not {self.image_set}")
        chosen = sets[self.image_set - 1]
        folder = f"{self.files.rstrip('/')}/{self.entry_id}/{chosen['directory'].strip('/')}"
        names = fnmatch.filter(self._ask(folder, lambda: list_folder(folder)), self.pattern)
        if len(names) < max(1, self.amount):
            raise WorkflowError(
                f"{folder} holds {len(names)} files like {self.pattern}, and {self.amount or 1}"
                " are requested; give another number or pattern"
            )
        wanted = names[: self.amount] if self.amount else names
        urls = [f"{folder}/{urllib.parse.quote(one)}" for one in wanted]
        self.output("movies", **_properties(entry, chosen))
        entry_file = self.extra("entry.json")
        entry_file.write_bytes(content)
        # Last: it is what the steps are made from.
        part = self._listing.with_suffix(".part")
        part.write_text(json.dumps(urls))
        part.replace(self._listing)
        return [str(entry_file), str(self._listing)]

    def fetch(self, url: str) -> str:
        """Download one movie, going on where an earlier try ended."""
        target = self._movie(url)
        if not target.exists():
            limit = round(self.max_size * 1e9)
            self._ask(target.name, lambda: download(url, target, limit))
        return str(target)

    def register(self, url: str) -> None:
        """Check one movie and append it to the set."""
        path = self._movie(url)
        self.output("movies").append({"file": str(path), **_look_at(path)}, key=path.name)

    def _movie(self, url: str) -> Path:
        return self.extra(urllib.parse.unquote(url.rpartition("/")[2]))

    def _ask(self, what: str, attempt: Any) -> Any:
        return with_retries(what, attempt, self.retries, self.pause)

    def more_to_come(self) -> bool:
        return self._fetched is None

    def summary(self) -> list[str]:
        movies = len(list(self.extra().glob(self.pattern)))
        return [f"{movies} movies of EMPIAR-{self.entry_id}"]


def _properties(entry: dict[str, Any], image_set: dict[str, Any]) -> dict[str, Any]:
    """What holds for all movies: the title, and the sampling rate in A a pixel."""
    try:
        rate = float(image_set.get("pixel_width") or 0)
    except (TypeError, ValueError):
        rate = 0.0
    return {"title": str(entry.get("title") or ""), "sampling_rate": rate}


def _look_at(path: Path) -> dict[str, Any]:
    """Size of a movie: columns, rows, frames; of other files the bytes alone.

    Raises:
        WorkflowError: it is damaged.
    """
    found: dict[str, Any] = {"bytes": path.stat().st_size}
    if path.suffix not in (".mrc", ".mrcs"):
        return found
    mrcfile = require("mrcfile", "movies")
    try:
        with mrcfile.mmap(path, mode="r") as movie:
            header = movie.header
            nx, ny, nz = int(header.nx), int(header.ny), int(header.nz)
    except (ValueError, OSError) as error:
        raise WorkflowError(
            f"{path} is not a complete MRC file: {error}; remove it, then resume"
        ) from error
    return {**found, "columns": nx, "rows": ny, "frames": nz}
