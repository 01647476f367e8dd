"""Protocols that come with the package; importing them registers their names."""

from pvapy_stream.workflow import acquisitions, bsread_stages, checking, folders, kinds, movies

__all__ = ["acquisitions", "bsread_stages", "checking", "folders", "kinds", "movies"]
