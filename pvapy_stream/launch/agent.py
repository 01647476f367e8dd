"""What runs on a worker of a cluster: starts programs there and reports their state."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pvapy_stream.launch.programs import LocalProgram, ProgramSpec

_programs: dict[str, LocalProgram] = {}
_folder: list[Path] = []


def start(key: str, spec: ProgramSpec, incarnation: int) -> int:
    """Start a program on this worker; its process id."""
    if not _folder:
        # Logs and ledgers are fetched from here: hosts need not share a disk for them.
        _folder.append(Path(tempfile.mkdtemp(prefix="pvapy-stream-")))
    # Another run on this worker may have a program of the same name.
    _programs[key] = LocalProgram(spec, _folder[0] / key, incarnation)
    return _programs[key].pid


def look(keys: list[str]) -> dict[str, dict[str, object]]:
    """How programs of this worker do; those it does not know are left out."""
    found: dict[str, dict[str, object]] = {}
    for key in keys:
        program = _programs.get(key)
        if program is not None:
            accounts = program.ledgers()
            found[key] = {
                "code": program.poll(),
                "state": program.state(),
                "ledgers": None if accounts is None else [one.to_dict() for one in accounts],
                "log": program.log_tail(),
            }
    return found


def send_word(key: str, word: str) -> None:
    """Send a program a word."""
    if key in _programs:
        _programs[key].send_word(word)


def kill(key: str) -> None:
    """End a program by force."""
    if key in _programs:
        _programs[key].kill()
