"""Which channels are meant: names, patterns with ids, patterns alone, workflow files.

PVAccess has no search by pattern. A name with ``*`` is therefore made complete by ids that the
user gives, or compared with the channels that the servers within reach list (program `pvlist`).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pvaccess as pva

from pvapy_stream.errors import MonitorError, SettingsError
from pvapy_stream.settings import ChannelsSettings
from pvapy_stream.status.snapshot import KINDS

_PVLIST_TIMEOUT = 15.0  # s
_STRUCTURE_TIMEOUT = 1.0  # s
_SOME_RUN = "?:"  # in place of the prefix of a run that is not known
_SERVER = re.compile(r"tcp@\[\s*([^\s\]]+)")


class ChannelFinder:
    """Finds the status channels that settings mean; stages that start later are found later.

    Raises:
        SettingsError: a pattern cannot be made complete, or the workflow file is wrong.
        MonitorError: the workflow has no stage to look at.
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
        # Names that are known to be of a status channel, or not, where all stages are looked for.
        self._statuses: dict[str, bool] | None = None if names else {}
        if not names:
            self.patterns = ["*"]
        self._pvlist = find_pvlist() if self.patterns else ""

    def find(self) -> list[str]:
        """All channels there are now; takes about a second when there are patterns."""
        if not self.patterns:
            return self.fixed
        listed = list_channels(self._pvlist)
        matching = (
            name for name in listed if any(fnmatchcase(name, pattern) for pattern in self.patterns)
        )
        if self._statuses is not None:
            matching = filter(self._is_status, matching)
        return unique([*self.fixed, *sorted(matching, key=natural)])

    def _is_status(self, name: str) -> bool:
        known = self._statuses if self._statuses is not None else {}
        if name not in known:
            try:
                fields = _fields_of(name)
            except pva.PvaException:
                # It is asked again at the next look.
                return False
            known[name] = "command" not in fields and any(f"{one}Id" in fields for one in KINDS)
        return known[name]


def _fields_of(name: str) -> Mapping[str, object]:
    channel = pva.Channel(name)
    channel.setTimeout(_STRUCTURE_TIMEOUT)
    return channel.getIntrospectionDict()


def is_pattern(name: str) -> bool:
    """Whether a name is a pattern for several channels."""
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


def natural(name: str) -> list[object]:
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
            "--status-channel: a name with * needs --ids, or the program pvlist to find channels;"
            " without a name, pvlist finds all:  pip install 'pvapy-stream[tools]'"
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
        raise MonitorError(f"{pvlist} failed to list channels: {error}") from error


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

    A workflow that does not say what its `channels` begin with gets a new prefix for each run: then
    these are patterns.

    Raises:
        SettingsError: the file cannot be read or is no workflow.
        MonitorError: it has no stage with a status channel.
    """
    if not file:
        return []
    # Imported late: most monitors need no workflow.
    from pvapy_stream.workflow.model.streaming_stage import Site
    from pvapy_stream.workflow.model.workflow_file import read_workflow

    flow = read_workflow(file)
    plan = flow.plan(Site(flow.channels or _SOME_RUN, sources=flow.sources))
    plan.check()
    names = [
        _status_channel(program.settings)
        for wired in plan.stages.values()
        for program in wired.programs
    ]
    found = unique(name.replace(_SOME_RUN, "wf*:") for name in names if name)
    if not found:
        raise MonitorError(f"--workflow: {file} has no stage with a status channel")
    return found


def _status_channel(settings: Mapping[str, Any]) -> str:
    number = settings.get("consumer_id") or settings.get("collector_id") or 1
    (name,) = with_ids(
        str(settings.get("status_channel") or ""), [number], settings.get("id_format_spec") or ""
    )
    return name
