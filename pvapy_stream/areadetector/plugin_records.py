"""The records of areaDetector's HDF5 plugin (NDFileHDF5) that are served, and their values.

Names, types and choices are those of areaDetector, so that its clients find what they expect.
What the writer cannot do otherwise has one permitted value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pvapy_stream.pva.wire.types import Kind

Value = int | float | str | list[int]

OFF_ON = ("Off", "On")
NO_YES = ("No", "Yes")
_ENABLE = ("Disable", "Enable")
_WRITE_MODES = ("Single", "Capture", "Stream")
DATA_TYPES = (
    "Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32", "Float64",
)  # fmt: skip
_COLOR_MODES = ("Mono", "Bayer", "RGB1", "RGB2", "RGB3", "YUV444", "YUV422", "YUV421")
MONO, RGB = 0, 2
_COMPRESSIONS = ("None", "N-bit", "szip", "zlib", "Blosc", "BSLZ4", "LZ4", "JPEG")
_BLOSC = ("BloscLZ", "LZ4", "LZ4HC", "SNAPPY", "ZLIB", "ZSTD")
# The settings of files by the index of Compression.
CODECS = {0: "none", 4: "blosc", 5: "bslz4", 6: "lz4"}
TEMPORARY = ".part"


@dataclass(frozen=True, slots=True)
class RecordField:
    """A record.

    Attributes:
        name: without the prefix.
        kind: type of the value; for one of several texts, INT.
        text: what it is.
        value: at the start.
        choices: texts of which the value is an index.
        permitted: values that may be put; None for any.
        why: why no others may be put.
        writable: whether clients may put.
        twin: name of a record that shows the value, "" for none.
        twin_choices: its texts, if they differ.
        units: of the value.
        array: whether it is an array.
    """

    name: str
    kind: Kind
    text: str
    value: Value = 0
    choices: tuple[str, ...] = ()
    permitted: tuple[Value, ...] | None = None
    why: str = ""
    writable: bool = False
    twin: str = ""
    twin_choices: tuple[str, ...] = ()
    units: str = ""
    array: bool = False


def _control(
    name: str,
    kind: Kind,
    text: str,
    value: Value = 0,
    choices: tuple[str, ...] = (),
    permitted: tuple[Value, ...] | None = None,
    why: str = "",
    *,
    twin: bool = True,
    twin_choices: tuple[str, ...] = (),
    units: str = "",
) -> RecordField:
    shown = f"{name}_RBV" if twin else ""
    return RecordField(
        name, kind, text, value, choices, permitted, why, True, shown, twin_choices, units
    )


def _yes(name: str, text: str, why: str, choices: tuple[str, ...] = NO_YES) -> RecordField:
    return _control(name, Kind.INT, text, 1, choices, (1,), why)


def _no(name: str, text: str, why: str, choices: tuple[str, ...] = NO_YES) -> RecordField:
    return _control(name, Kind.INT, text, 0, choices, (0,), why)


def _files() -> Iterator[RecordField]:
    yield _control("FilePath", Kind.STRING, "folder of the file", "")
    yield _control("FileName", Kind.STRING, "name of the file", "")
    yield _control("FileTemplate", Kind.STRING, "format of path, name and number", "%s%s_%3.3d.h5")
    yield _control("FileNumber", Kind.INT, "number of the file", 1)
    yield _control("AutoIncrement", Kind.INT, "add 1 to the number after each file", 1, NO_YES)
    yield _control("CreateDirectory", Kind.INT, "how many folders may be created")
    yield _control(
        "TempSuffix", Kind.STRING, "end of the name of a file that is not closed", "",
        (), ("", TEMPORARY), f'it may be empty or "{TEMPORARY}"',
    )  # fmt: skip
    yield _control(
        "FileWriteMode", Kind.INT, "how files are written", 2, _WRITE_MODES, (2,),
        "only Stream is supported: all images of a capture are written to one file",
    )  # fmt: skip
    yield _control("NumCapture", Kind.INT, "images of a capture; 0: until it is stopped")
    yield _control(
        "Capture", Kind.INT, "start or stop", 0, ("Done", "Capture"),
        twin_choices=("Done", "Capturing"),
    )  # fmt: skip
    yield _control(
        "WriteFile", Kind.INT, "write one image", 0, ("Done", "Write"), (0,),
        "single images are not written; use Capture", twin_choices=("Done", "Writing"),
    )  # fmt: skip
    yield _control(
        "ReadFile", Kind.INT, "read a file", 0, ("Done", "Read"), (0,), "files are not read",
        twin_choices=("Done", "Reading"),
    )  # fmt: skip
    yield _no("AutoSave", "write each image by itself", "use Capture")
    yield _no("DeleteDriverFile", "delete the file of the driver", "no file is ever deleted")
    yield _control("FileFormat", Kind.INT, "format of files", 0, ("HDF5", "Invalid"), (0,))
    yield _control("LazyOpen", Kind.INT, "create the file with the first image", 0, NO_YES)
    yield RecordField(
        "FilePathExists_RBV", Kind.INT, "whether the folder can be written to", 0, NO_YES
    )
    yield RecordField("FullFileName_RBV", Kind.STRING, "the newest file", "")
    yield RecordField("NumCaptured_RBV", Kind.INT, "images that were flushed, up to the first loss")
    yield RecordField(
        "WriteStatus", Kind.INT, "whether all went well", 0, ("Write OK", "Write error")
    )
    yield RecordField("WriteMessage", Kind.STRING, "what went wrong", "")


def _hdf5() -> Iterator[RecordField]:
    swmr = "files are always written so that others can read them meanwhile"
    yield _yes("SWMRMode", "others may read while it is written", swmr, OFF_ON)
    yield RecordField(
        "SWMRSupported_RBV", Kind.INT, "whether others may read", 1,
        ("Not Supported", "Supported"),
    )  # fmt: skip
    yield RecordField(
        "SWMRActive_RBV", Kind.INT, "whether a file can be read now", 0, ("Off", "Active")
    )
    yield RecordField("SWMRCbCounter_RBV", Kind.INT, "flushes of this capture")
    yield _control(
        "FlushNow", Kind.INT, "flush all images received until now", 0, ("Done", "Flush"),
        twin=False,
    )  # fmt: skip
    yield _control("NumFramesFlush", Kind.INT, "flush after so many images; 0: by time")
    chunk = "each image is one chunk"
    yield _yes("ChunkSizeAuto", "chunks have the size of images", chunk)
    yield _control("NumFramesChunks", Kind.INT, "images in a chunk", 1, (), (0, 1), chunk)
    yield RecordField("NumRowChunks_RBV", Kind.INT, "rows in a chunk")
    yield RecordField("NumColChunks_RBV", Kind.INT, "columns in a chunk")
    yield _control(
        "NumExtraDims", Kind.INT, "further dimensions", 0, (), (0,), "they are not supported"
    )
    yield _no("PositionMode", "images at given places", "it is not supported", OFF_ON)
    yield _control(
        "XMLFileName", Kind.STRING, "file that describes the layout", "", (), ("",),
        "the layout is fixed",
    )  # fmt: skip
    yield RecordField("XMLValid_RBV", Kind.INT, "whether that file is valid", 1, NO_YES)
    yield RecordField("XMLErrorMsg_RBV", Kind.STRING, "what is wrong with it", "")
    yield _yes("StoreAttr", "store attributes", "attributes are always stored")
    yield _no("StorePerform", "store times of writing", "they are not stored")
    yield _control(
        "Compression", Kind.INT, "compression of images that arrive uncompressed", 0,
        _COMPRESSIONS, tuple(CODECS), "only None, Blosc, BSLZ4 and LZ4 are supported",
    )  # fmt: skip
    yield _control("BloscCompressor", Kind.INT, "of Blosc", 1, _BLOSC, (1,), "only LZ4 is used")
    yield _control(
        "BloscShuffle", Kind.INT, "of Blosc", 1, ("None", "Byte", "Bit"), (1,),
        "only Byte is used",
    )  # fmt: skip
    yield _control("BloscLevel", Kind.INT, "of Blosc", 5, (), (5,), "only 5 is used")
    yield RecordField("RunTime", Kind.DOUBLE, "from first image to end", 0.0, units="s")
    yield RecordField("IOSpeed", Kind.DOUBLE, "mean over that time", 0.0, units="Mbit/s")


def _plugin() -> Iterator[RecordField]:
    yield RecordField("PortName_RBV", Kind.STRING, "name of the writer", "")
    yield RecordField("PluginType_RBV", Kind.STRING, "kind of the plugin", "NDFileHDF5")
    yield RecordField(
        "ADCoreVersion_RBV", Kind.STRING, "version of areaDetector's records", "3.12.1"
    )
    yield RecordField("DriverVersion_RBV", Kind.STRING, "version of this program", "")
    yield _control("NDArrayPort", Kind.STRING, "source of images; only shown", "")
    yield _control("NDArrayAddress", Kind.INT, "address of the source; only shown")
    yield _control("EnableCallbacks", Kind.INT, "whether images are taken", 1, _ENABLE)
    yield _no("BlockingCallbacks", "whether the source waits", "it never does")
    yield _control(
        "MinCallbackTime", Kind.DOUBLE, "shortest time between images", 0.0, (), (0.0,),
        "all images are taken", units="s",
    )  # fmt: skip
    yield _control("ArrayCounter", Kind.INT, "images received")
    yield RecordField("ArrayRate_RBV", Kind.DOUBLE, "images received", 0.0, units="Hz")
    yield RecordField("DroppedArrays_RBV", Kind.INT, "images lost since the start")
    yield _control("QueueSize", Kind.INT, "images that may wait", 0, (), (), "set --queue-size")
    yield RecordField("QueueFree", Kind.INT, "places left for images")
    yield RecordField("QueueUse", Kind.INT, "images that wait")
    yield _control(
        "NDAttributesFile", Kind.STRING, "attributes of the images, as XML", "", (), ("",),
        "attributes come with the images; give the file to the driver", twin=False,
    )  # fmt: skip


def _array() -> Iterator[RecordField]:
    yield RecordField("NDimensions_RBV", Kind.INT, "number of dimensions")
    yield RecordField("Dimensions_RBV", Kind.INT, "dimensions, fastest first", [], array=True)
    for number in range(3):
        yield RecordField(
            f"ArraySize{number}", Kind.INT, "one dimension", twin=f"ArraySize{number}_RBV"
        )
    yield RecordField("ArraySizeX_RBV", Kind.INT, "columns")
    yield RecordField("ArraySizeY_RBV", Kind.INT, "rows")
    yield RecordField("ArraySizeZ_RBV", Kind.INT, "colours; 0 for none")
    yield RecordField("ArraySize_RBV", Kind.INT, "size of an image", units="bytes")
    yield RecordField("DataType_RBV", Kind.INT, "type of pixels", 1, DATA_TYPES)
    yield RecordField("ColorMode_RBV", Kind.INT, "colour mode", MONO, _COLOR_MODES)
    yield RecordField("Codec_RBV", Kind.STRING, "compression in which images arrive", "")
    yield RecordField("UniqueId_RBV", Kind.LONG, "id of the newest image")
    yield RecordField("TimeStamp_RBV", Kind.DOUBLE, "its time, since 1970", 0.0, units="s")


FIELDS: Sequence[RecordField] = (*_files(), *_hdf5(), *_plugin(), *_array())
