"""Protocols that come with the package; importing them registers their names."""

from pvapy_stream.workflow import kinds

__all__ = ["kinds"]
