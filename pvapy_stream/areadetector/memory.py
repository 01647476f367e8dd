"""What a writer that was ended in the middle leaves for the next one: which file it wrote."""

from __future__ import annotations

import json
from pathlib import Path

from pvapy_stream.files.disk import file_error


class Memory:
    """A small file in the folder of the command line, there while a capture runs.

    Args:
        folder: where it is.
        prefix: of the records, which distinguishes it from that of other writers.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        name = "".join(one if one.isalnum() or one in "-_" else "_" for one in prefix)
        self._path = folder / f".capture-{name}.json"

    def unfinished(self) -> Path | None:
        """The file whose writer was ended in the middle; None if there is none."""
        try:
            found = json.loads(self._path.read_text("utf-8"))
            return Path(str(found["file"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return self._path

    def begin(self, path: Path) -> None:
        """Note that a capture begins.

        Raises:
            FileError: that is not possible.
        """
        made = self._path.with_suffix(".new")
        try:
            made.write_text(json.dumps({"file": str(path)}), "utf-8")
            made.replace(self._path)
        except OSError as error:
            raise file_error("write", self._path, error) from error

    def end(self) -> None:
        """It is over, and its file is closed or left as the records say."""
        self._path.unlink(missing_ok=True)
