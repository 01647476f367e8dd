"""Measures link, processor and disk before a run, and tries the rate that follows."""

from pvapy_stream.preflight.findings import Findings, queue_for
from pvapy_stream.preflight.measure import Preflight

__all__ = ["Findings", "Preflight", "queue_for"]
