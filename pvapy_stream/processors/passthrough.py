"""``PassThrough``: publishes what it gets."""

from __future__ import annotations

from pvapy_stream.hpc.processor import UserDataProcessor

__all__ = ["PassThrough"]


class PassThrough(UserDataProcessor):
    """Publishes each object as it came: to split a stream, or to measure without user code."""
