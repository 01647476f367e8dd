"""Which channels are meant: names, patterns with ids, patterns alone, workflow files.

PVAccess has no search by pattern. A name with ``*`` is therefore made complete by ids that the
user gives, or compared with the channels that the servers within reach list (program `pvlist`).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pvapy_stream.errors import MonitorError, SettingsError
from pvapy_stream.settings import ChannelsSettings

_PVLIST_TIMEOUT = 15.0  # s
_SERVER = re.compile(r"tcp@\[\s*([^\s\]]+)")


class ChannelFinder:
    """Finds the status channels that settings mean; stages that start later are found later.

    Raises:
        SettingsError: a pattern cannot be made complete.
        MonitorError: the workflow file cannot be read.
    """

    def __init__(self, settings: ChannelsSettings) -> None:
        names = [*settings.status_channels, *workflow_channels(settings.workflow)]
        self.fixed = unique(
            name
            for text in names
            if not is_pattern(text) or settings.ids is not None
            for name in with_ids(text, settings.ids, settings.id_format_spec)
        )
        self.patterns = [text for text in names if is_pattern(text) and settings.ids is None]
        self._pvlist = find_pvlist() if self.patterns else ""

    def find(self) -> list[str]:
        """All channels there are now; takes about a second when there are patterns."""
        if not self.patterns:
            return self.fixed
        listed = list_channels(self._pvlist)
        matching = (
            name for name in listed if any(fnmatchcase(name, pattern) for pattern in self.patterns)
        )
        return unique([*self.fixed, *sorted(matching, key=natural)])


def is_pattern(name: str) -> bool:
    """Whether a name stands for several channels."""
    return "*" in name


def with_ids(name: str, ids: Sequence[int] | None, spec: str = "") -> Iterator[str]:
    """A name for each id; the name itself when it has no ``*``."""
    if not is_pattern(name):
        yield name
        return
    for number in ids or ():
        yield name.replace("*", format(number, spec))


def unique(names: Iterable[str]) -> list[str]:
    """Names in their order, each once."""
    return list(dict.fromkeys(names))


def natural(name: str) -> list[Any]:
    """Sorts numbers in names as numbers."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def find_pvlist() -> str:
    """Path of EPICS' `pvlist`.

    Raises:
        SettingsError: it is not installed.
    """
    beside = Path(sys.executable).parent / "pvlist"
    found = str(beside) if beside.exists() else shutil.which("pvlist")
    if not found:
        raise SettingsError(
            "--status-channel: a name with * needs --ids, or the program pvlist to find channels:"
            " pip install 'pvapy-stream[tools]'"
        )
    return found


def list_channels(pvlist: str) -> list[str]:
    """Channels that the servers within reach of EPICS_PVA_ADDR_LIST list.

    Raises:
        MonitorError: pvlist does not answer.
    """
    try:
        servers = _run(pvlist)
        addresses = unique(_SERVER.findall(servers))
        return unique(_run(pvlist, *addresses).split()) if addresses else []
    except (OSError, subprocess.SubprocessError) as error:
        raise MonitorError(f"{pvlist} does not list channels: {error}") from error


def _run(*command: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_PVLIST_TIMEOUT,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return done.stdout


def workflow_channels(file: str) -> list[str]:
    """Status channels of the stages of a workflow file.

    A stage is an object of the list with `statusChannel` (or `status_channel`); ``*`` in it stands
    for the ids that its `consumerIdList`, or `consumerId` and `nConsumers`, tell.

    Raises:
        MonitorError: the file cannot be read, is no workflow, or has no such stage.
    """
    if not file:
        return []
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise MonitorError(f"--workflow: cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise MonitorError(f"--workflow: {file} is not JSON: {error}") from error
    stages = [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []
    names = [name for stage in stages for name in _stage_channels(stage)]
    if not names:
        raise MonitorError(
            f"--workflow: {file} has no stage with a statusChannel; give it a list of objects, at"
            " least one of them with that key"
        )
    return unique(names)


def _stage_channels(stage: dict[str, Any]) -> list[str]:
    values = {_snake(key): value for key, value in stage.items()}
    name = values.get("status_channel")
    if not isinstance(name, str) or not name:
        return []
    try:
        listed = values.get("consumer_id_list")
        if listed:
            ids = [int(n) for n in (listed.split(",") if isinstance(listed, str) else listed)]
        else:
            first = int(values.get("consumer_id") or values.get("collector_id") or 1)
            ids = list(range(first, first + int(values.get("n_consumers") or 1)))
        spec = str(values.get("id_format_spec") or "")
        if name == "_":
            kind = "collector" if values.get("collector_id") else "consumer"
            return [f"pvapy:{kind}:{format(number, spec)}:status" for number in ids]
        return list(with_ids(name, ids, spec))
    except (TypeError, ValueError) as error:
        raise MonitorError(
            f"--workflow: the ids of the stage with status channel {name} cannot be told: {error}"
        ) from error


def _snake(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower()
