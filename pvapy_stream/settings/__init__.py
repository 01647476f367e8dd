"""The only home of option names, defaults, units and help.

One frozen model per kind of stage. A model comes from a command line (`cli.options` makes the
parser from it), from a file or from Python; it pickles, so it crosses to a spawned process; it
rejects unknown keys by name.

Classes are imported when they are asked for: a program needs its own, and to make them takes long.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvapy_stream.base_settings import Opt, Settings, option_of
    from pvapy_stream.settings.ad_writer_settings import AdWriterSettings
    from pvapy_stream.settings.bsread_sim_settings import BsreadSimSettings, SimChannel
    from pvapy_stream.settings.buffer_settings import BufferSettings
    from pvapy_stream.settings.collector_settings import CollectorSettings
    from pvapy_stream.settings.common import (
        HostSettings,
        LedgerSettings,
        LoggingSettings,
        MetricsSettings,
    )
    from pvapy_stream.settings.consumer_settings import ConsumerSettings
    from pvapy_stream.settings.dectris_sim_settings import DectrisSimSettings
    from pvapy_stream.settings.mirror_settings import MirrorSettings
    from pvapy_stream.settings.monitor_settings import (
        ChannelsSettings,
        MonitorSettings,
    )
    from pvapy_stream.settings.notify import NotifySettings
    from pvapy_stream.settings.preflight_settings import PreflightSettings
    from pvapy_stream.settings.recorder_settings import RecordSettings
    from pvapy_stream.settings.replayer_settings import ReplaySettings
    from pvapy_stream.settings.rules import AlarmRule, parse_rule
    from pvapy_stream.settings.simulator_settings import SimulatorSettings
    from pvapy_stream.settings.stage_settings import StageSettings
    from pvapy_stream.settings.text_types import MetadataChannel, parse_id_list
    from pvapy_stream.settings.transport import TransportSettings
    from pvapy_stream.settings.watch_settings import DashboardSettings, ReportSettings, TopSettings
    from pvapy_stream.settings.write_settings import FileSettings, WriteSettings
    from pvapy_stream.settings.writer_settings import WriterClientSettings, WriterSettings
    from pvapy_stream.transport.pva_library import PvaSettings
    from pvapy_stream.transport.shm_settings import ShmSettings

_HOMES = {
    "pvapy_stream.base_settings": (
        "Opt",
        "Settings",
        "option_of",
    ),
    "pvapy_stream.settings.ad_writer_settings": ("AdWriterSettings",),
    "pvapy_stream.settings.bsread_sim_settings": (
        "BsreadSimSettings",
        "SimChannel",
    ),
    "pvapy_stream.settings.buffer_settings": ("BufferSettings",),
    "pvapy_stream.settings.collector_settings": ("CollectorSettings",),
    "pvapy_stream.settings.common": (
        "HostSettings",
        "LedgerSettings",
        "LoggingSettings",
        "MetricsSettings",
    ),
    "pvapy_stream.settings.consumer_settings": ("ConsumerSettings",),
    "pvapy_stream.settings.dectris_sim_settings": ("DectrisSimSettings",),
    "pvapy_stream.settings.mirror_settings": ("MirrorSettings",),
    "pvapy_stream.settings.monitor_settings": (
        "ChannelsSettings",
        "MonitorSettings",
    ),
    "pvapy_stream.settings.notify": ("NotifySettings",),
    "pvapy_stream.settings.preflight_settings": ("PreflightSettings",),
    "pvapy_stream.settings.recorder_settings": ("RecordSettings",),
    "pvapy_stream.settings.replayer_settings": ("ReplaySettings",),
    "pvapy_stream.settings.rules": (
        "AlarmRule",
        "parse_rule",
    ),
    "pvapy_stream.settings.simulator_settings": ("SimulatorSettings",),
    "pvapy_stream.settings.stage_settings": ("StageSettings",),
    "pvapy_stream.settings.transport": ("TransportSettings",),
    "pvapy_stream.settings.text_types": (
        "MetadataChannel",
        "parse_id_list",
    ),
    "pvapy_stream.settings.watch_settings": (
        "DashboardSettings",
        "ReportSettings",
        "TopSettings",
    ),
    "pvapy_stream.settings.write_settings": (
        "FileSettings",
        "WriteSettings",
    ),
    "pvapy_stream.settings.writer_settings": (
        "WriterClientSettings",
        "WriterSettings",
    ),
    "pvapy_stream.transport.pva_library": ("PvaSettings",),
    "pvapy_stream.transport.shm_settings": ("ShmSettings",),
    # Kinds of monitors bring their own settings; these were here before.
    "pvapy_stream.monitor.disk_monitor": ("DiskSettings",),
    "pvapy_stream.monitor.image_monitor": ("ImageSettings",),
    "pvapy_stream.monitor.streams_monitor": ("StreamsSettings",),
    "pvapy_stream.monitor.system_monitor": ("SystemSettings",),
    "pvapy_stream.monitor.table_monitor": ("TableSettings",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AdWriterSettings",
    "AlarmRule",
    "BsreadSimSettings",
    "BufferSettings",
    "ChannelsSettings",
    "CollectorSettings",
    "ConsumerSettings",
    "DashboardSettings",
    "DectrisSimSettings",
    "FileSettings",
    "HostSettings",
    "LedgerSettings",
    "LoggingSettings",
    "MetadataChannel",
    "MetricsSettings",
    "MirrorSettings",
    "MonitorSettings",
    "NotifySettings",
    "Opt",
    "PreflightSettings",
    "PvaSettings",
    "RecordSettings",
    "ReplaySettings",
    "ReportSettings",
    "Settings",
    "ShmSettings",
    "SimChannel",
    "SimulatorSettings",
    "StageSettings",
    "TopSettings",
    "TransportSettings",
    "WriteSettings",
    "WriterClientSettings",
    "WriterSettings",
    "option_of",
    "parse_id_list",
    "parse_rule",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
