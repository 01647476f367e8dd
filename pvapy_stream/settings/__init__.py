"""The only home of option names, defaults, units and help.

One frozen model per kind of stage. A model comes from a command line (`cli.options` makes the
parser from it), from a file or from Python; it pickles, so it crosses to a spawned process; it
rejects unknown keys by name.
"""

from pvapy_stream.settings.base import Opt, Settings, option_of
from pvapy_stream.settings.bsread_sim import BsreadSimSettings, SimChannel
from pvapy_stream.settings.buffer import BufferSettings
from pvapy_stream.settings.collector import CollectorSettings
from pvapy_stream.settings.common import LedgerSettings, LoggingSettings
from pvapy_stream.settings.consumer import ConsumerSettings
from pvapy_stream.settings.mirror import MirrorSettings
from pvapy_stream.settings.simulator import SimulatorSettings
from pvapy_stream.settings.stage import StageSettings
from pvapy_stream.settings.values import MetadataChannel, parse_id_list
from pvapy_stream.settings.write import FileSettings, WriteSettings

__all__ = [
    "BsreadSimSettings",
    "BufferSettings",
    "CollectorSettings",
    "ConsumerSettings",
    "FileSettings",
    "LedgerSettings",
    "LoggingSettings",
    "MetadataChannel",
    "MirrorSettings",
    "Opt",
    "Settings",
    "SimChannel",
    "SimulatorSettings",
    "StageSettings",
    "WriteSettings",
    "option_of",
    "parse_id_list",
]
