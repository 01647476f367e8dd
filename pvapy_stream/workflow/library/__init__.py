"""Protocols that come with the package; importing them registers their names."""

from pvapy_stream.workflow.library import (
    acquisitions,
    bsread_stages,
    folder_import,
    report_page,
    streaming_stages,
    thumbnails,
    verification,
)

__all__ = [
    "acquisitions",
    "bsread_stages",
    "folder_import",
    "report_page",
    "streaming_stages",
    "thumbnails",
    "verification",
]
