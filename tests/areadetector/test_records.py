"""The records: which there are, and what may be put to them."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.client_errors import RefusedError
from tests.areadetector.clients import Plugin
from tests.support import PATIENCE, Commands, Source, wait_until

MAJOR = 2

# What clients of areaDetector look for, and with which types.
INTEGERS = (
    "FileNumber NumCapture NumCapture_RBV NumCaptured_RBV CreateDirectory ArraySize0 ArraySize1"
    " ArraySize0_RBV ArraySize1_RBV ArraySize2_RBV ArraySizeX_RBV ArraySizeY_RBV ArraySizeZ_RBV"
    " ArrayCounter ArrayCounter_RBV NDArrayAddress NDArrayAddress_RBV QueueSize QueueSize_RBV"
    " NumExtraDims NumExtraDims_RBV NumFramesChunks NumFramesChunks_RBV UniqueId_RBV"
    " DroppedArrays_RBV QueueFree NumFramesFlush NumFramesFlush_RBV"
).split()
TEXTS = (
    "FilePath FilePath_RBV FileName FileName_RBV FileTemplate FileTemplate_RBV FullFileName_RBV"
    " NDArrayPort NDArrayPort_RBV XMLFileName XMLFileName_RBV NDAttributesFile WriteMessage"
    " PortName_RBV ADCoreVersion_RBV DriverVersion_RBV TempSuffix TempSuffix_RBV"
).split()
PAIRS = (
    "Capture Capture_RBV FilePathExists_RBV AutoIncrement PositionMode PositionMode_RBV SWMRMode"
    " SWMRMode_RBV FlushNow ChunkSizeAuto ChunkSizeAuto_RBV LazyOpen LazyOpen_RBV EnableCallbacks"
    " EnableCallbacks_RBV WriteStatus SWMRActive_RBV"
).split()
CHOICES = {
    "FileWriteMode": "Single Capture Stream",
    "FileWriteMode_RBV": "Single Capture Stream",
    "Compression": "None N-bit szip zlib Blosc BSLZ4 LZ4 JPEG",
    "Compression_RBV": "None N-bit szip zlib Blosc BSLZ4 LZ4 JPEG",
    "DataType_RBV": "Int8 UInt8 Int16 UInt16 Int32 UInt32 Int64 UInt64 Float32 Float64",
    "ColorMode_RBV": "Mono Bayer RGB1 RGB2 RGB3 YUV444 YUV422 YUV421",
}


# What clients may change, and what later tests find as it was at the start.
SETTINGS = ("FilePath", "FileName", "FileTemplate", "CreateDirectory")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Plugin, dict[str, object]]]:
    """A writer for all tests, and its settings at the start."""
    prefix = f"t{uuid.uuid4().hex[:8]}:"
    source, commands = Source(f"{prefix}image"), Commands()
    try:
        made = Plugin(commands, prefix, source.channel, tmp_path_factory.mktemp("records"))
        yield made, {name: made.get(name) for name in SETTINGS}
        made.program.signal()
        assert made.program.wait() == 0, made.program.text
    finally:
        commands.close()
        source.close()


@pytest.fixture
def plugin(running: tuple[Plugin, dict[str, object]]) -> Plugin:
    """The writer, with an empty folder and its settings at the start."""
    made, settings = running
    for one in made.folder.iterdir():
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)
        else:
            one.unlink()
    made.set(**settings)
    assert made.get("Capture_RBV") == 0
    return made


def test_clients_find_all_records_with_their_types(plugin: Plugin) -> None:
    for name in INTEGERS:
        assert isinstance(plugin.shown(name).get("value"), int), name
    for name in TEXTS:
        assert isinstance(plugin.shown(name).get("value"), str), name
    for name in PAIRS:
        assert len(plugin.shown(name)["value"]["choices"]) == 2, name
    for name, choices in CHOICES.items():
        assert plugin.shown(name)["value"]["choices"] == choices.split(), name


def test_the_form_of_images_is_known_before_the_first_capture(plugin: Plugin) -> None:
    wait_until(lambda: plugin.get("ArraySizeX_RBV") == 6)
    assert (plugin.get("ArraySizeY_RBV"), plugin.get("ArraySizeZ_RBV")) == (4, 0)
    assert plugin.get("DataType_RBV") == 3
    assert plugin.get("Dimensions_RBV") == [6, 4]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("FileWriteMode", "Single", "only Stream is supported"),
        ("Compression", "szip", "only None, Blosc, BSLZ4 and LZ4"),
        ("SWMRMode", "Off", "always written"),
        ("NumExtraDims", 2, "not supported"),
        ("XMLFileName", "/etc/passwd", "the layout is fixed"),
        ("NumCapture", -3, "cannot be negative"),
        ("FilePath", "/etc/", "is not below"),
        ("FilePath", "a/../../../etc", "must not contain"),
        ("FileName", "two\nlines", "cannot be printed"),
        ("FilePath", "x" * 100_000, "is too long"),
        ("NDAttributesFile", "<Attributes/>", "give the file to the driver"),
    ],
)
def test_what_cannot_be_done_is_refused_with_an_alarm(
    plugin: Plugin, name: str, value: object, why: str
) -> None:
    wait_until(lambda: plugin.get("ArraySizeX_RBV") == 6)
    before = plugin.get(name)
    assert why in plugin.put(name, value)
    assert plugin.get(name) == before
    severity, message = plugin.alarm(name)
    assert severity == MAJOR
    assert why in message


def test_hostile_puts_change_nothing(plugin: Plugin) -> None:
    # The tool itself refuses these, or the server does.
    assert plugin.put("FileNumber", "many")
    assert plugin.put("FileWriteMode", 17)
    assert "not allowed" in plugin.put("NumCaptured_RBV", 99)
    assert "not allowed" in plugin.put("WriteStatus", 0)
    client = Client()
    try:
        for name, value in (
            ("FileName", "y" * 1_000_000),
            ("FileName", "a\0b"),
            ("FileWriteMode", {"index": -1, "choices": []}),
            ("FileWriteMode", {"index": 2**31 - 1, "choices": ["x"] * 1000}),
            ("Capture", {"index": 2, "choices": ["Done", "Capture", "Destroy"]}),
        ):
            channel = client.channel(plugin.prefix + name)
            kind = channel.put_kind(PATIENCE)
            with pytest.raises(RefusedError):
                channel.put(kind, {**channel.get().value, "value": value}, PATIENCE, PATIENCE)
    finally:
        client.stop()
    assert plugin.shown("FileWriteMode")["value"]["choices"] == ["Single", "Capture", "Stream"]
    assert plugin.get("FileName") == ""
    assert not list(plugin.folder.iterdir())
    assert "only the value" in plugin.put("Capture", '{"alarm": {"severity": 3}}')
    assert plugin.get("Capture_RBV") == 0


def test_a_link_does_not_lead_out_of_the_folder(plugin: Plugin, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (plugin.folder / "link").symlink_to(outside)
    assert "is not below" in plugin.put("FilePath", plugin.folder / "link")
    assert plugin.get("FilePathExists_RBV") == 0
    # What is written next must not go to the folder before.
    plugin.set(FileName="scan")
    assert "is not below" in plugin.put("Capture", 1)
    plugin.set(FilePath=plugin.folder)
    assert "FileTemplate" in plugin.put("FileTemplate", "%d%d%s") + plugin.put("Capture", 1)
    plugin.set(FileTemplate="%slink/%s.h5")
    assert "is not below" in plugin.put("Capture", 1)
    severity, message = plugin.alarm("WriteStatus")
    assert severity == MAJOR
    assert "is not below" in message
    assert not list(outside.iterdir())


def test_folders_are_made_as_far_as_a_client_says(plugin: Plugin) -> None:
    folder = plugin.folder
    assert plugin.put("FilePath", "a/b") == ""
    assert plugin.get("FilePathExists_RBV") == 0
    assert plugin.alarm("FilePathExists_RBV")[0] == MAJOR
    plugin.set(CreateDirectory=-1, FilePath="a/b")
    assert plugin.get("FilePathExists_RBV") == 0
    plugin.set(CreateDirectory=-2, FilePath="a/b")
    assert plugin.get("FilePathExists_RBV") == 1
    assert plugin.get("FilePath_RBV") == f"{folder}/a/b/"
    depth = len((folder / "c").parts) - 1
    plugin.set(CreateDirectory=depth, FilePath="c/d")
    assert not (folder / "c").exists()
    plugin.set(CreateDirectory=1, FilePath="c/d")
    assert (folder / "c/d").is_dir()


def test_an_existing_file_is_refused(plugin: Plugin) -> None:
    (plugin.folder / "scan.h5").write_text("precious")
    plugin.set(FileTemplate="%s%s.h5", FileName="scan")
    assert "is not replaced" in plugin.put("Capture", 1)
    assert plugin.get("WriteStatus") == 1
    assert "is not replaced" in plugin.get("WriteMessage")
    assert plugin.get("Capture_RBV") == 0
    assert (plugin.folder / "scan.h5").read_text() == "precious"
    plugin.set(FileName="")
    assert "set FileName" in plugin.put("Capture", 1)


def test_puts_are_allowed_to_some_only(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    plugin = Plugin(
        commands, prefix, source.channel, tmp_path, "--control-from", "nobody@127.0.0.1"
    )
    assert "not allowed" in plugin.put("FileName", "scan")
    other = Plugin(commands, f"{prefix}2:", source.channel, tmp_path, "--control-from", "127.0.0.1")
    assert other.put("FileName", "scan") == ""
    assert other.get("FileName_RBV") == "scan"
