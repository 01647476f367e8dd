"""The records over Channel Access, with the tools of EPICS."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from caproto import ChannelType

from pvapy_stream.areadetector.ca_server import _channel
from pvapy_stream.areadetector.plugin_records import FIELDS
from pvapy_stream.areadetector.records import Records
from pvapy_stream.pva.net.server import Server
from tests.areadetector.clients import Plugin, ids_in
from tests.support import PATIENCE, TOOLS, Commands, Source, wait_until


@pytest.fixture
def plugin(prefix: str, source: Source, commands: Commands, tmp_path: Path) -> Plugin:
    made = Plugin(commands, prefix, source.channel, tmp_path, "--channel-access")
    made.connected(source)
    return made


def tool(*words: object) -> str:
    """What a tool prints; with what it complains about."""
    done = subprocess.run(
        [str(TOOLS / str(words[0])), "-w", "30", *map(str, words[1:])],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "Duplicate EPICS CA" not in line]
    return "\n".join([*done.stdout.splitlines(), *said])


def caget(plugin: Plugin, name: str, *options: str) -> str:
    return tool("caget", "-t", *options, plugin.prefix + name)


def caput(plugin: Plugin, name: str, value: object, *options: str) -> str:
    """Put a value; all that the tool prints."""
    return tool("caput", *options, plugin.prefix + name, value)


def test_types_are_those_of_areadetector(plugin: Plugin) -> None:
    types = {
        "FilePath": "DBF_CHAR", "FilePath_RBV": "DBF_CHAR", "FullFileName_RBV": "DBF_CHAR",
        "NDArrayPort": "DBF_STRING", "NumCapture": "DBF_LONG", "NumCaptured_RBV": "DBF_LONG",
        "Capture": "DBF_ENUM", "Capture_RBV": "DBF_ENUM", "UniqueId_RBV": "DBF_LONG",
        "RunTime": "DBF_DOUBLE", "Dimensions_RBV": "DBF_LONG",
    }  # fmt: skip
    for name, kind in types.items():
        told = tool("cainfo", plugin.prefix + name)
        assert f"Native data type: {kind}" in told
        writable = ("FilePath", "NDArrayPort", "NumCapture", "Capture")
        assert ("read, write" in told) == (name in writable)
    assert caget(plugin, "FilePath", "-S") == f"{plugin.folder}/"
    assert caget(plugin, "Capture_RBV.VAL") == "Done"


def test_a_capture_with_a_put_that_waits(plugin: Plugin, source: Source) -> None:
    ids = [*range(plugin.last + 1, plugin.last + 11)]
    caput(plugin, "FileTemplate", "%s%s.h5", "-S")
    caput(plugin, "FileName", "scan", "-S")
    caput(plugin, "NumCapture", 10)
    waiting = subprocess.Popen(
        [TOOLS / "caput", "-c", "-w", "100", plugin.prefix + "Capture", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    wait_until(lambda: caget(plugin, "Capture_RBV") == "Capturing", what=plugin.program.text)
    source.publish(ids[:9], 0.01)
    wait_until(lambda: caget(plugin, "NumCaptured_RBV") == "9")
    assert waiting.poll() is None
    source.publish(ids[9:])
    told, _ = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 0, told
    assert caget(plugin, "Capture_RBV") == "Done"
    assert caget(plugin, "NumCaptured_RBV") == "10"
    wait_until(lambda: caget(plugin, "UniqueId_RBV") == str(ids[-1]))
    assert caget(plugin, "WriteStatus") == "Write OK"
    path = plugin.folder / "scan.h5"
    assert caget(plugin, "FullFileName_RBV", "-S") == str(path)
    assert ids_in(path) == ids
    # Clients of both protocols see the same.
    assert plugin.get("NumCaptured_RBV") == 10
    plugin.program.signal()
    assert plugin.program.wait() == 0


def test_what_cannot_be_done_is_refused_with_an_alarm(plugin: Plugin) -> None:
    outside = plugin.folder.parent
    assert "failed" in caput(plugin, "FilePath", outside, "-c", "-S").lower()
    assert caget(plugin, "FilePath", "-S") == f"{plugin.folder}/"
    assert "MAJOR" in tool("caget", "-a", plugin.prefix + "FilePath")
    caput(plugin, "FileWriteMode", "Single", "-c")
    assert caget(plugin, "FileWriteMode") == "Stream"
    caput(plugin, "NumCapture", -1, "-c")
    assert caget(plugin, "NumCapture") == "0"
    caput(plugin, "NumCaptured_RBV", 7)
    assert caget(plugin, "NumCaptured_RBV") == "0"
    caput(plugin, "Capture", "Perhaps", "-s")
    assert caget(plugin, "Capture_RBV") == "Done"
    # A good value ends the alarm.
    caput(plugin, "FilePath", plugin.folder, "-S", "-c")
    assert "MAJOR" not in tool("caget", "-a", plugin.prefix + "FilePath")
    plugin.program.signal()
    assert plugin.program.wait() == 0
    assert "Traceback" not in plugin.program.text


def test_a_client_that_goes_leaves_its_capture(plugin: Plugin, source: Source) -> None:
    caput(plugin, "FileTemplate", "%s%s.h5", "-S")
    caput(plugin, "FileName", "scan", "-S")
    waiting = subprocess.Popen(
        [TOOLS / "caput", "-c", "-w", "100", plugin.prefix + "Capture", "1"],
        stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: caget(plugin, "Capture_RBV") == "Capturing")
    waiting.kill()
    waiting.wait(PATIENCE)
    first = plugin.last + 1
    source.publish(range(first, first + 5), 0.01)
    wait_until(lambda: caget(plugin, "NumCaptured_RBV") == "5")
    assert caput(plugin, "Capture", 0, "-c")
    assert ids_in(plugin.folder / "scan.h5") == [*range(first, first + 5)]


def test_only_some_may_put(prefix: str, source: Source, commands: Commands, tmp_path: Path) -> None:
    options = ("--channel-access", "--control-from", "nobody@192.0.2.1")
    plugin = Plugin(commands, prefix, source.channel, tmp_path, *options)
    caput(plugin, "NumCapture", 5, "-c")
    assert caget(plugin, "NumCapture") == "0"
    assert caget(plugin, "Capture_RBV") == "Done"


def test_a_port_that_cannot_be_used_is_an_error(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    program = commands(
        "ad-writer", "-p", f"{prefix}HDF1:", "-ic", source.channel, "--folder", tmp_path,
        "--channel-access", EPICS_CAS_INTF_ADDR_LIST="192.0.2.1",
    )  # fmt: skip
    assert program.wait() == 1
    told = next(line for line in program.err if line.startswith("error:"))
    assert "cannot be served over Channel Access" in told
    assert "Cannot assign requested address" in told


def test_an_id_of_64_bits_starts_again_as_those_of_areadetector() -> None:
    field = next(one for one in FIELDS if one.name == "UniqueId_RBV")
    server = Server(version="0")
    server.start()
    try:
        records = Records("p:", [field], server, lambda record, put: None, lambda *_: True)
        [record] = records
        channel = _channel(record)
    finally:
        server.stop()
    for number, shown in ((5, 5), (2**31 - 1, 2**31 - 1), (2**31, -(2**31)), (2**40 + 7, 7)):
        asyncio.run(channel.show(number, 0))
        assert asyncio.run(channel.read(ChannelType.LONG))[1][0] == shown
