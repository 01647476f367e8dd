"""Monitors: what they see is stored as series; alarms are told to notifiers."""

from pvapy_stream.monitor.alarms import Alarm, AlarmEvent
from pvapy_stream.monitor.base import Clock, Monitor, Sample, SamplingMonitor
from pvapy_stream.monitor.kinds import MonitorKind
from pvapy_stream.monitor.notifiers import LogNotifier, Notifier, PrintNotifier
from pvapy_stream.settings import AlarmRule, parse_rule

__all__ = [
    "Alarm",
    "AlarmEvent",
    "AlarmRule",
    "Clock",
    "LogNotifier",
    "Monitor",
    "MonitorKind",
    "Notifier",
    "PrintNotifier",
    "Sample",
    "SamplingMonitor",
    "parse_rule",
]
