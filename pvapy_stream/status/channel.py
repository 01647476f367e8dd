"""Status channels of stages: snapshots on the server that hosts their other channels."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from typing import Any

import pvaccess as pva
from msgspec.structs import replace

from pvapy_stream.pva.channel_structures import bounded
from pvapy_stream.pva.serving import host_readonly
from pvapy_stream.status.fields import Field, fields_of, values
from pvapy_stream.status.snapshot import Snapshot

_TIME = pva.PvTimeStamp()

Stats = dict[str, Any]

_log = logging.getLogger(__name__)


def structure(snapshot: Snapshot) -> Stats:
    """The PVA structure of a snapshot; the statistics of the processor are last."""
    made: Stats = {}
    for name, kind in _types(fields_of(snapshot)).items():
        if name == "dropStats":
            made |= _user_types(snapshot)
        made[name] = kind
    return {**made, **_user_types(snapshot)}


def _user_types(snapshot: Snapshot) -> Stats:
    # A structure without fields cannot be served.
    return {"userStats": dict(snapshot.user_types)} if snapshot.user_types else {}


def _types(found: Iterable[Field]) -> Stats:
    return {one.name: _type(one) for one in found}


def _type(one: Field) -> object:
    if one.kind == "TIME":
        return _TIME
    return getattr(pva, one.kind) if one.kind else _types(one.value)


class StatusChannel:
    """Hosts a status channel on a server; any thread may publish.

    Args:
        first: has the fields of all later snapshots.
    """

    def __init__(self, server: pva.PvaServer, name: str, first: Snapshot) -> None:
        self.name = name
        self._server = server
        self._structure = structure(first)
        self._lock = threading.Lock()
        self._told: set[str] = set()
        host_readonly(server, name, pva.PvObject(self._structure))

    def restructure(self, snapshot: Snapshot) -> None:
        """Change the structure, if it differs; clients then reconnect."""
        made = structure(snapshot)
        with self._lock:
            if made == self._structure:
                return
            self._server.removeRecord(self.name)
            self._structure = made
            host_readonly(self._server, self.name, pva.PvObject(made))

    def publish(self, snapshot: Snapshot) -> None:
        """Publish a snapshot; fields outside of the structure are omitted, with one warning."""
        now = time.time()
        stamped = replace(snapshot, object_time=now, message=bounded(snapshot.message))
        with self._lock:
            known = self._known(values(stamped), self._structure, "")
            known["objectTimestamp"] = pva.PvTimeStamp(now)
            status = pva.PvObject(self._structure)
            try:
                status.set(known)
            except Exception as error:
                # One user value of a wrong type must not hide all the others.
                self._report(
                    "userStats",
                    f"statistics do not fit their types ({error}); userStats is not published",
                )
                known.pop("userStats", None)
                status.set(known)
            self._server.update(self.name, status)

    def _known(self, stats: Stats, types: Stats, path: str) -> Stats:
        known: Stats = {}
        for name, value in stats.items():
            if name not in types:
                if path:
                    self._report(
                        path + name,
                        f"{path + name} has no type in getStatsPvaTypes(); it is not published",
                    )
            elif isinstance(value, dict) and isinstance(types[name], dict):
                known[name] = self._known(value, types[name], f"{path}{name}.")
            else:
                known[name] = value
        return known

    def _report(self, key: str, message: str) -> None:
        if key not in self._told:
            self._told.add(key)
            _log.warning("status channel %s: %s", self.name, message)
