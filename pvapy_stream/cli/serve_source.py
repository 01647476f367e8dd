"""Serving a source from a command line: its names, metrics and status channel, and signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from pvapy_stream.early import importing
from pvapy_stream.pva.search import NameCheck
from pvapy_stream.settings.source_settings import SourceSettings
from pvapy_stream.signals import run_until_signal

if TYPE_CHECKING:
    from pvapy_stream.sim.source_server import SourceServer
    from pvapy_stream.status.snapshot import Snapshot

S = TypeVar("S", bound="SourceServer")


def serve_source(settings: SourceSettings, make: Callable[[], S]) -> tuple[S, int]:
    """Serve until the end, or until a signal comes.

    Args:
        settings: of the source.
        make: makes its server; called while others that serve its names are searched for.

    Returns:
        the server, and the exit code.

    Raises:
        PvapyStreamError: its data cannot be read, a channel cannot be hosted, or is served already.
    """
    names = NameCheck(settings.hosted)
    # Imported late: --help and wrong options need neither EPICS nor HDF5.
    with importing():
        from pvapy_stream.status.metrics import served
        from pvapy_stream.status.shown import shown_on

    server = make()
    names.refuse(settings.incarnation)

    def snapshots() -> list[Snapshot]:
        return [server.snapshot()]

    shown = settings.status_names("simulator")
    with (
        served(settings, snapshots),
        shown_on(shown, snapshots, incarnation=settings.incarnation, beside=True),
    ):
        return server, run_until_signal(server.run)
