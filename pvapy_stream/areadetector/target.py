"""Names of files from path, name, number and template, as areaDetector makes them.

No name leads out of the folder of the command line.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pvapy_stream.errors import FileError, SettingsError
from pvapy_stream.files.disk import file_error
from pvapy_stream.files.folder import check_below

_CONVERSION = re.compile(r"%(%|[-+ 0#]*(\d*)(?:\.(\d*))?([a-zA-Z]))")
_WIDEST = 99
_LONGEST = 4096  # bytes of a path


class Target:
    """Where files go.

    Args:
        root: no file may be outside of this folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))

    def path(self, text: str, create: int) -> tuple[str, bool]:
        """The folder that a client asks for, with a slash at its end, and whether it is there.

        Args:
            text: the path; one without a slash at its begin is relative to the root.
            create: how many folders may be created, as in areaDetector's CreateDirectory.

        Raises:
            FileError: it is not below the root, or cannot be created.
        """
        folder = self._checked(Path(text), "file").parent
        if not folder.is_dir() and create:
            _create(folder, create)
        good = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
        return f"{folder}/", good

    def file(self, template: str, path: str, name: str, number: int) -> Path:
        """The name of a file.

        Raises:
            SettingsError: the template is wrong.
            FileError: the name is not below the root.
        """
        text = formatted(template, (path, name, number))
        uses_name = formatted(template, (path, "?", number)) != text
        if not text or text.endswith("/") or (uses_name and not name):
            raise SettingsError(f"FileTemplate {template!r} gives no name; set FileName")
        return self._checked(Path(text))

    def _checked(self, given: Path, *below: str) -> Path:
        if ".." in given.parts:
            raise FileError(f"{given}: a name must not contain '..'")
        path = Path(os.path.normpath(self.root / given), *below)
        if len(os.fsencode(path)) > _LONGEST:
            raise FileError(f"a name of {len(os.fsencode(path))} bytes is too long")
        try:
            check_below(path, self.root)
        except (OSError, RuntimeError) as error:
            raise file_error("write", path, error) from error
        return path


def formatted(template: str, values: tuple[str, str, int]) -> str:
    """What `printf` makes of a template and path, name and number, in this order.

    Raises:
        SettingsError: it has other conversions, or more of them.
    """
    left = list(values)

    def one(found: re.Match[str]) -> str:
        if found[1] == "%":
            return "%"
        wanted = {"s": str, "d": int, "i": int}.get(found[4])
        if not left or not isinstance(left[0], wanted or ()):
            raise SettingsError(
                f"FileTemplate {template!r}: {found[0]} does not fit; path and name are %s, and"
                " the number, which comes last, is %d"
            )
        if max(int(found[2] or 0), int(found[3] or 0)) > _WIDEST:
            raise SettingsError(f"FileTemplate {template!r}: {found[0]} is too wide")
        return found[0] % left.pop(0)

    made = _CONVERSION.sub(one, template)
    if "%" in _CONVERSION.sub("", template):
        raise SettingsError(f"FileTemplate {template!r}: write %% for a percent sign")
    return made


def _create(folder: Path, number: int) -> None:
    """Create a folder and those above it.

    Args:
        folder: to be created.
        number: if negative, at most so many; if positive, so many parts of the path must exist.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    depth = len(folder.parts) - 1 - len(missing)
    allowed = len(missing) <= -number if number < 0 else depth >= number
    if not allowed:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error("make the folder", folder, error) from error
