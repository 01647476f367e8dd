"""A client of the writer's records, with the tools of EPICS."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import h5py

from tests.support import PATIENCE, TOOLS, Commands, Program, Source, pvget, wait_until


class Plugin:
    """A writer that runs, and its records.

    Args:
        commands: starts it.
        prefix: of the records.
        channel: with the images.
        folder: of the files.
        options: further ones.
    """

    def __init__(
        self, commands: Commands, prefix: str, channel: str, folder: Path, *options: object
    ) -> None:
        self.prefix = f"{prefix}HDF1:"
        self.folder = folder
        self.program: Program = commands(
            "ad-writer", "-p", self.prefix, "-ic", channel, "--folder", folder, *options
        )
        wait_until(lambda: "writes" in self.program.text, what="the writer")

    def shown(self, name: str) -> dict[str, Any]:
        return pvget(self.prefix + name)

    def get(self, name: str) -> Any:
        value = self.shown(name)["value"]
        return value["index"] if isinstance(value, dict) else value

    def alarm(self, name: str) -> tuple[int, str]:
        found = self.shown(name)["alarm"]
        return found["severity"], found["message"]

    def put(self, name: str, value: object, request: str = "", wait: float = 30) -> str:
        """Put a value; what the tool says is wrong, "" if nothing is."""
        asked = ["-r", request] if request else []
        done = subprocess.run(
            [TOOLS / "pvput", "-w", str(wait), *asked, self.prefix + name, str(value)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        said = [line for line in (done.stdout + done.stderr).splitlines() if "Old" not in line]
        return "\n".join(line for line in said if not line.startswith("New"))

    def set(self, **values: object) -> None:
        for name, value in values.items():
            assert self.put(name, value) == ""

    def start(self, name: str = "scan", **values: object) -> Path:
        """Begin a capture; its file."""
        self.set(FileTemplate="%s%s.h5", FileName=name, LazyOpen=1, **values)
        assert self.put("Capture", 1) == ""
        assert self.get("Capture_RBV") == 1
        assert self.get("NumCaptured_RBV") == 0
        return self.folder / f"{name}.h5"

    def counted(self, number: int) -> None:
        wait_until(
            lambda: self.get("NumCaptured_RBV") == number,
            what=f"{number} images; {self.program.text}",
        )

    def connected(self, source: Source) -> None:
        """Wait until images arrive; those that show it are not captured."""

        def arrives() -> bool:
            source.publish([self._next(source)])
            return bool(self.get("ArrayCounter_RBV"))

        wait_until(arrives, what=f"an image; {self.program.text}")
        time.sleep(0.3)

    def _next(self, source: Source) -> int:
        self.last = getattr(self, "last", 0) + 1
        return self.last


def ids_in(path: Path) -> list[int]:
    """Ids in a file, each compared with the pixels of its image."""
    with h5py.File(path, "r") as file:
        ids = file["entry/data/id"][()].tolist()
        assert file["entry/data/data"][:, 0, 0].tolist() == ids
        return ids
