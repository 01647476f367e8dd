"""``PassThrough``: publishes objects unchanged."""

from __future__ import annotations

from pvapy_stream.hpc.processor import UserDataProcessor

__all__ = ["PassThrough"]


class PassThrough(UserDataProcessor):
    """Publishes each object unchanged: to distribute a stream, or to measure without user code."""
