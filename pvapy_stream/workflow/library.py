"""Protocols that come with the package; importing them registers their names."""

from pvapy_stream.workflow import folders, kinds, movies

__all__ = ["folders", "kinds", "movies"]
