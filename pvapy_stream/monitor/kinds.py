"""The kinds of monitors: what each declares of itself, and where they are found.

A kind is a file ``NAME_monitor.py`` of this folder with a `MONITOR`. Another package brings one
with an entry point of the group ``pvapy_stream.monitors``, which has its name.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pvapy_stream.errors import SettingsError
from pvapy_stream.monitor.base import SamplingMonitor
from pvapy_stream.monitor.outbox import Notifier
from pvapy_stream.monitor.series_store import SeriesStore
from pvapy_stream.plugins import entries_of, load_named
from pvapy_stream.settings import MonitorSettings

GROUP = "pvapy_stream.monitors"
SUFFIX = "_monitor"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MonitorKind:
    """A kind of monitor, as the command and files name it.

    Attributes:
        name: of the kind.
        settings: its settings, with the quantities that rules may name.
        make: makes one from its settings, a store and notifiers.
        help: what is watched, one line.
        rank: place in lists; those of other packages come last.
    """

    name: str
    settings: type[MonitorSettings]
    make: Callable[..., SamplingMonitor]
    help: str
    rank: int = 100

    def monitor(
        self,
        settings: MonitorSettings,
        store: SeriesStore | None = None,
        notifiers: Iterable[Notifier] = (),
    ) -> SamplingMonitor:
        """The monitor of these settings."""
        return self.make(settings, store, notifiers)


@functools.cache
def kinds() -> dict[str, MonitorKind]:
    """All kinds by their names, in the order of lists.

    One of another package that cannot be loaded is logged and left out.
    """
    found = [_own(path.stem) for path in Path(__file__).parent.glob(f"*{SUFFIX}.py")]
    own = {kind.name for kind in found}
    for name, entry in entries_of(GROUP).items():
        if name in own:
            continue
        try:
            found.append(load_named(entry, "monitor", MonitorKind))
        except SettingsError as error:
            _log.warning("%s", error)
    return {kind.name: kind for kind in sorted(found, key=lambda kind: (kind.rank, kind.name))}


def _own(module: str) -> MonitorKind:
    kind: MonitorKind = importlib.import_module(f"pvapy_stream.monitor.{module}").MONITOR
    return kind


def kind_of(settings: MonitorSettings) -> MonitorKind:
    """The kind whose settings these are.

    Raises:
        SettingsError: there is none.
    """
    for kind in kinds().values():
        if type(settings) is kind.settings:
            return kind
    raise SettingsError(f"{type(settings).__name__} are no settings of a monitor")
