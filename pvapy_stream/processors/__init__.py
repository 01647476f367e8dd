"""Processors that come with the package: ``--processor-class pvapy_stream.processors.NAME``."""

from pvapy_stream.processors.passthrough import PassThrough

__all__ = ["PassThrough"]
