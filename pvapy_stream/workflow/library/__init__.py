"""Protocols that come with the package; importing them registers their names."""

from pvapy_stream.workflow.library import (
    acquisitions,
    bsread_stages,
    folders,
    streaming_stages,
    verification,
)

__all__ = [
    "acquisitions",
    "bsread_stages",
    "folders",
    "streaming_stages",
    "verification",
]
