"""Protocols that come with the package; importing them registers their names."""

from pvapy_stream.workflow import checking, folders, kinds, movies

__all__ = ["checking", "folders", "kinds", "movies"]
