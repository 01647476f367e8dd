"""Monitors: what they see is stored as series; alarms are told to notifiers."""

from pvapy_stream.monitor.base import Clock, Monitor, Sample, SamplingMonitor
from pvapy_stream.monitor.notifiers import LogNotifier, Notifier, PrintNotifier

__all__ = [
    "Clock",
    "LogNotifier",
    "Monitor",
    "Notifier",
    "PrintNotifier",
    "Sample",
    "SamplingMonitor",
]
