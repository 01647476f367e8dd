"""Distributed, real-time streaming of detector data over EPICS PVAccess."""

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

import pvapy_stream.early  # noqa: F401 - before all that takes long to import

if os.environ.get("EPICS_PVA_NAME_SERVERS"):
    # Before anything uses the binding, which reads the environment once.
    from pvapy_stream.pva.name_servers import relay

    relay()

from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.frame import ColorMode, Frame

try:
    from pvapy_stream.hpc.processor import FrameProcessor, UserDataProcessor
except ModuleNotFoundError as error:
    # Without pvapy `doctor` says what to do; others meet the error where they use it.
    if error.name != "pvaccess":
        raise

if TYPE_CHECKING:
    from pvapy_stream.streams.publication import AsyncPublication, Publication, publish
    from pvapy_stream.streams.subscription import Subscription, subscribe

__all__ = [
    "AsyncPublication",
    "ColorMode",
    "Frame",
    "FrameProcessor",
    "Publication",
    "PvapyStreamError",
    "Subscription",
    "UserDataProcessor",
    "__version__",
    "publish",
    "subscribe",
]

# What takes long to import, and most programs do without.
_LATER = {
    "AsyncPublication": "pvapy_stream.streams.publication",
    "Publication": "pvapy_stream.streams.publication",
    "Subscription": "pvapy_stream.streams.subscription",
    "publish": "pvapy_stream.streams.publication",
    "subscribe": "pvapy_stream.streams.subscription",
}


def __getattr__(name: str) -> Any:
    """What is imported when it is first used."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
    return found
