"""Distributed, real-time streaming of detector data over EPICS PVAccess."""

import os

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

__all__ = [
    "ColorMode",
    "Frame",
    "FrameProcessor",
    "PvapyStreamError",
    "UserDataProcessor",
    "__version__",
]
