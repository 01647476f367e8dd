"""``UserMpWorkerPool`` by the path of the other built-in processors."""

from pvapy_stream.hpc.workers import UserMpWorkerPool

__all__ = ["UserMpWorkerPool"]
