"""The only home of option names, defaults, units and help.

One frozen model per kind of stage. A model comes from a command line (`cli.options` makes the
parser from it), from a file or from Python; it pickles, so it crosses to a spawned process; it
rejects unknown keys by name.
"""

from pvapy_stream.base_settings import Opt, Settings, option_of
from pvapy_stream.settings.bsread_sim import BsreadSimSettings, SimChannel
from pvapy_stream.settings.buffer import BufferSettings
from pvapy_stream.settings.collector import CollectorSettings
from pvapy_stream.settings.common import (
    HostSettings,
    LedgerSettings,
    LoggingSettings,
    MetricsSettings,
)
from pvapy_stream.settings.consumer import ConsumerSettings
from pvapy_stream.settings.mirror import MirrorSettings
from pvapy_stream.settings.monitor import (
    ChannelsSettings,
    DiskSettings,
    ImageSettings,
    MonitorSettings,
    StreamsSettings,
    SystemSettings,
    TableSettings,
)
from pvapy_stream.settings.notify import NotifySettings
from pvapy_stream.settings.preflight import PreflightSettings
from pvapy_stream.settings.rules import AlarmRule, parse_rule
from pvapy_stream.settings.simulator import SimulatorSettings
from pvapy_stream.settings.stage import StageSettings
from pvapy_stream.settings.transport import TransportSettings
from pvapy_stream.settings.values import MetadataChannel, parse_id_list
from pvapy_stream.settings.watch import DashboardSettings, ReportSettings, TopSettings
from pvapy_stream.settings.write import FileSettings, WriteSettings
from pvapy_stream.settings.writer import WriterClientSettings, WriterSettings
from pvapy_stream.transport.shm_mode import ShmSettings

__all__ = [
    "AlarmRule",
    "BsreadSimSettings",
    "BufferSettings",
    "ChannelsSettings",
    "CollectorSettings",
    "ConsumerSettings",
    "DashboardSettings",
    "DiskSettings",
    "FileSettings",
    "HostSettings",
    "ImageSettings",
    "LedgerSettings",
    "LoggingSettings",
    "MetadataChannel",
    "MetricsSettings",
    "MirrorSettings",
    "MonitorSettings",
    "NotifySettings",
    "Opt",
    "PreflightSettings",
    "ReportSettings",
    "Settings",
    "ShmSettings",
    "SimChannel",
    "SimulatorSettings",
    "StageSettings",
    "StreamsSettings",
    "SystemSettings",
    "TableSettings",
    "TopSettings",
    "TransportSettings",
    "WriteSettings",
    "WriterClientSettings",
    "WriterSettings",
    "option_of",
    "parse_id_list",
    "parse_rule",
]
