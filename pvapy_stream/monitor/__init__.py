"""Monitors: samples are stored as series; alarms are sent to notifiers."""

from pvapy_stream.monitor.alarms import Alarm, AlarmEvent
from pvapy_stream.monitor.base import Clock, Monitor, Sample, SamplingMonitor
from pvapy_stream.monitor.kinds import MonitorKind
from pvapy_stream.monitor.notifiers import (
    AppriseNotifier,
    CommandNotifier,
    EmailNotifier,
    LogNotifier,
    Notifier,
    PrintNotifier,
    PvNotifier,
)
from pvapy_stream.settings import AlarmRule, parse_rule

__all__ = [
    "Alarm",
    "AlarmEvent",
    "AlarmRule",
    "AppriseNotifier",
    "Clock",
    "CommandNotifier",
    "EmailNotifier",
    "LogNotifier",
    "Monitor",
    "MonitorKind",
    "Notifier",
    "PrintNotifier",
    "PvNotifier",
    "Sample",
    "SamplingMonitor",
    "parse_rule",
]
