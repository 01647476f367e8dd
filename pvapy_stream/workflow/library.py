"""Protocols that come with the package; importing them registers their names."""

from pvapy_stream.workflow import stages

__all__ = ["stages"]
