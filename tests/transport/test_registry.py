"""What the registry knows of the modes of this package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pvapy_stream.transport
from pvapy_stream.errors import SettingsError, TransportError
from pvapy_stream.settings import ConsumerSettings, SimulatorSettings
from pvapy_stream.transport import registry
from pvapy_stream.transport.mode import PublisherOptions
from tests.transport.pairs import MODES

LAZILY = """
import sys
import pvapy_stream.cli.consumer
from pvapy_stream.hpc.parts import make_receiver
from pvapy_stream.settings import ConsumerSettings
make_receiver(ConsumerSettings.of(input_channel="a"), "a", None)
for name in ("zmq", "iceoryx2", "pvapy_stream.transport.pvas", "pvapy_stream.transport.rpc",
             "pvapy_stream.transport.ejfat", "cbor2", "wsgiref"):
    assert name not in sys.modules, name
"""


def test_each_file_declares_the_mode_of_its_name_and_the_list_is_complete() -> None:
    folder = Path(next(iter(pvapy_stream.transport.__path__)))
    files = {file.name.removesuffix("_mode.py") for file in folder.glob("*_mode.py")}
    assert files == {registry.find(name).name for name in files}
    assert files == {mode.name for mode in registry.modes(everywhere=True)}
    listed = ("pva", "ca", "pvas", "rpc", "shm", "auto", "both", "dectris", "ejfat")
    assert registry.names() == listed


def test_the_contract_covers_each_mode_with_both_ends() -> None:
    covered = {name for pair in MODES for name in pair.split("-")} | {"memory"}
    modes = registry.modes(everywhere=True)
    ended = {mode.name for mode in modes if mode.input is not None and mode.output is not None}
    assert ended == {"pva", "pvas", "rpc", "shm", "ejfat", "memory"}
    assert ended <= covered


def test_a_program_imports_what_its_mode_needs() -> None:
    done = subprocess.run([sys.executable, "-c", LAZILY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_end_that_a_mode_has_not_is_named() -> None:
    with pytest.raises(SettingsError, match="mode both has no input; choose one of pva, ca, pvas"):
        registry.input_mode("both")
    with pytest.raises(SettingsError, match="mode ca has no source; choose one of pva, shm, both"):
        registry.source_mode("ca")
    with pytest.raises(SettingsError, match="unknown mode 'tcp'; known are pva, ca"):
        registry.find("tcp")


@pytest.mark.parametrize("mode", ["ca", "auto", "tcp", "memory_mode"])
def test_settings_refuse_a_mode_without_the_end_they_need(mode: str) -> None:
    with pytest.raises(SettingsError, match="Input should be 'pvas', 'pva', 'rpc', 'shm', 'both'"):
        ConsumerSettings.of(input_channel="a", output_channel="b", output_mode=mode)
    with pytest.raises(SettingsError, match="Input should be 'pva', 'shm' or 'both'"):
        SimulatorSettings.of(output_mode=mode)


def test_a_program_without_a_server_hosts_nothing() -> None:
    with pytest.raises(TransportError, match="this program has no PVA server"):
        registry.make_publisher("pvas", PublisherOptions("a"))
    with pytest.raises(TransportError, match="this program has no PVA server"):
        registry.make_publisher("both", PublisherOptions("a"))
