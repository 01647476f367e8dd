"""Distributed, real-time streaming of detector data over EPICS PVAccess.

The names of this module and of the modules in `PUBLIC_MODULES` are public. Everything else may
change.
"""

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

import pvapy_stream.early  # noqa: F401 - before all that takes long to import

if os.environ.get("EPICS_PVA_NAME_SERVERS"):
    # Before anything uses the binding, which reads the environment once.
    from pvapy_stream.pva.name_servers import relay

    relay()

if TYPE_CHECKING:
    from pvapy_stream.accounting.audit_result import AuditResult, audit
    from pvapy_stream.accounting.ledger import Ledger, read_ledgers
    from pvapy_stream.cli.from_python import run
    from pvapy_stream.daq.ranges import RangeReader, read_range
    from pvapy_stream.errors import PvapyStreamError
    from pvapy_stream.files.file_witness import witness
    from pvapy_stream.files.nexus import FrameWriter
    from pvapy_stream.frame import ColorMode, Frame
    from pvapy_stream.hpc.frame_batch import FrameBatch
    from pvapy_stream.hpc.processor import FrameProcessor, UserDataProcessor
    from pvapy_stream.hpc.workers import UserMpDataProcessor, UserMpWorkerPool
    from pvapy_stream.settings import (
        AdWriterSettings,
        BsreadSimSettings,
        BufferSettings,
        CollectorSettings,
        ConsumerSettings,
        FileSettings,
        MirrorSettings,
        SimulatorSettings,
        WriterSettings,
        WriteSettings,
    )
    from pvapy_stream.streams.publication import AsyncPublication, Publication, publish
    from pvapy_stream.streams.subscription import Subscription, subscribe

__all__ = [
    "AdWriterSettings",
    "AsyncPublication",
    "AuditResult",
    "BsreadSimSettings",
    "BufferSettings",
    "CollectorSettings",
    "ColorMode",
    "ConsumerSettings",
    "FileSettings",
    "Frame",
    "FrameBatch",
    "FrameProcessor",
    "FrameWriter",
    "Ledger",
    "MirrorSettings",
    "Publication",
    "PvapyStreamError",
    "RangeReader",
    "SimulatorSettings",
    "Subscription",
    "UserDataProcessor",
    "UserMpDataProcessor",
    "UserMpWorkerPool",
    "WriteSettings",
    "WriterSettings",
    "__version__",
    "audit",
    "publish",
    "read_ledgers",
    "read_range",
    "run",
    "subscribe",
    "witness",
]

PUBLIC_MODULES = ("errors", "monitor", "processors", "settings", "testing", "workflow")

# Imported when they are first used: a program needs few of them, and `--help` none.
_HOMES = {
    "pvapy_stream.accounting.audit_result": (
        "AuditResult",
        "audit",
    ),
    "pvapy_stream.accounting.ledger": (
        "Ledger",
        "read_ledgers",
    ),
    "pvapy_stream.cli.from_python": ("run",),
    "pvapy_stream.daq.ranges": (
        "RangeReader",
        "read_range",
    ),
    "pvapy_stream.errors": ("PvapyStreamError",),
    "pvapy_stream.files.nexus": ("FrameWriter",),
    "pvapy_stream.files.file_witness": ("witness",),
    "pvapy_stream.frame": (
        "ColorMode",
        "Frame",
    ),
    "pvapy_stream.hpc.frame_batch": ("FrameBatch",),
    "pvapy_stream.hpc.processor": (
        "FrameProcessor",
        "UserDataProcessor",
    ),
    "pvapy_stream.hpc.workers": (
        "UserMpDataProcessor",
        "UserMpWorkerPool",
    ),
    "pvapy_stream.settings": (
        "AdWriterSettings",
        "BsreadSimSettings",
        "BufferSettings",
        "CollectorSettings",
        "ConsumerSettings",
        "FileSettings",
        "MirrorSettings",
        "SimulatorSettings",
        "WriteSettings",
        "WriterSettings",
    ),
    "pvapy_stream.streams.publication": (
        "AsyncPublication",
        "Publication",
        "publish",
    ),
    "pvapy_stream.streams.subscription": (
        "Subscription",
        "subscribe",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = globals()[name] = getattr(importlib.import_module(_HOME_OF[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
