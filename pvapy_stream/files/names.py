"""Names of data files, from a format with the id of the first image and the number of the file."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pvapy_stream.errors import SettingsError

PART = ".part"

_ID_KEYS = ("uniqueId", "id", "frameId", "objectId")
_FILE_KEYS = ("fileId", "index", "outputFileId")
_KEYS = (*_ID_KEYS, *_FILE_KEYS, "processorId")


class FileNames:
    """Makes the names of one writer's files.

    Args:
        name_format: path with ``{uniqueId}``, ``{fileId}``, ``{processorId}`` or their other names.
        processor_id: id of the processor that writes.
        rotates: whether there will be more than one file.

    Raises:
        SettingsError: an unknown key, or two files would have the same name.
    """

    def __init__(self, name_format: str, processor_id: int = 1, rotates: bool = False) -> None:
        _check_widths(name_format)
        self._format = name_format
        self._processor_id = processor_id
        self.depends_on_id = self.name(1, 1) != self.name(1, 2)
        if rotates and self.name(1, 1) == self.name(2, 2):
            raise SettingsError(
                f"file name {name_format!r} is the same for every file, so they would overwrite"
                " each other; put {fileId:06d} or {uniqueId} into it, or write all images to one"
                " file"
            )
        # Further files may also be needed for another reason than the number of images.
        self._differ = self.name(1, 1) != self.name(2, 2)
        self._numbered = self.name(1, 1) != self.name(2, 1)

    def name(self, file_id: int, first_id: int) -> Path:
        """Path of a file by its number, 1 for the first, and the id of its first image."""
        values = {
            **dict.fromkeys(_ID_KEYS, first_id),
            **dict.fromkeys(_FILE_KEYS, file_id),
            "processorId": self._processor_id,
        }
        try:
            return Path(self._format.format(**values))
        except (KeyError, IndexError) as error:
            raise SettingsError(
                f"file name {self._format!r} has an unknown key {{{error.args[0]}}}; known are"
                f" {', '.join(f'{{{key}}}' for key in _KEYS)}"
            ) from error
        except (ValueError, AttributeError, TypeError) as error:
            raise SettingsError(
                f"file name {self._format!r} cannot be formatted ({error}); write keys like"
                " {fileId:06d}, and a brace of the name itself twice"
            ) from error

    def next_name(self, file_id: int, first_id: int) -> Path:
        """Like `name`, but the second file and later ones get a number if they have none."""
        path = self.name(file_id, first_id)
        return path if self._differ or file_id == 1 else _with_number(path, file_id)

    def candidates(self, file_id: int, first_id: int) -> Iterator[tuple[int, Path]]:
        """Numbers and names for a file, to be tried until one is free; each differs."""
        yield file_id, self.next_name(file_id, first_id)
        for number in itertools.count(file_id + 1):
            path = self.name(number, first_id)
            yield number, path if self._numbered else _with_number(path, number)


def _check_widths(name_format: str) -> None:
    """Check that no number would be written with thousands of digits.

    Raises:
        SettingsError: one would.
    """
    if wide := re.search(r"\d{4,}", "".join(re.findall(r":([^{}]*)\}", name_format))):
        raise SettingsError(
            f"file name {name_format!r} asks for {wide[0]} digits; write keys like {{fileId:06d}}"
        )


def _with_number(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def check_parallel(name_format: str, processor_ids: Iterable[int], rotates: bool) -> None:
    """Check that a format gives different names to several processors.

    Raises:
        SettingsError: it does not, or it has a mistake.
    """
    names = [FileNames(name_format, number, rotates).name(1, 1) for number in processor_ids]
    if len(set(names)) < len(names):
        raise SettingsError(
            f"file name {name_format!r} is the same for several consumers; put {{processorId}} into"
            " it"
        )


def part_of(path: Path) -> Path:
    """Name of a file until it is closed."""
    return path.with_name(path.name + PART)


def final_of(path: Path) -> Path:
    """Name of a file once it is closed."""
    return path.with_name(path.name.removesuffix(PART))


def quoted(name: str) -> str:
    """Any name, encoded as one part of an HDF5 path."""
    key = name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    if key in (".", ".."):
        key = key.replace(".", "%2E")
    return key or "%20"


def written_since(name_format: str, since: float, *, unclosed: bool = False) -> list[Path]:
    """Files whose names follow a format and that were written since a time, s since 1970.

    Args:
        name_format: path with keys.
        since: time in s.
        unclosed: include files that are not closed, by their present names.
    """
    # Doubled braces are literal ones.
    parts = re.split(r"(\{\{|\}\}|\{[^{}]*\})", name_format)
    pattern = "".join(
        part[0] if part in ("{{", "}}") else "*" if part[:1] == "{" else glob.escape(part)
        for part in parts
    )
    stem, dot, suffix = pattern.rpartition(".")
    # The second file and later ones of a name without a number have one before the suffix.
    patterns = {pattern, f"{stem}.[0-9]*.{suffix}" if dot else f"{pattern}.[0-9]*"}
    if unclosed:
        patterns |= {pattern + PART for pattern in patterns}
    found = {Path(path) for one in patterns for path in glob.glob(one)}
    return sorted(path for path in found if path.stat().st_mtime >= since)
