"""Settings of data files, and of the command that writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pvapy_stream.base_settings import Settings, lower, opt
from pvapy_stream.settings.consumer_settings import ConsumerSettings, FixedProcessorSettings


class FileSettings(Settings):
    """How frames are written to HDF5 files."""

    output: Annotated[str, opt("-o --output", "Files", metavar="FILE")] = Field(
        min_length=1,
        description=(
            "file to write; its name may contain {uniqueId} (id of the first image), {fileId} (1,"
            " 2, …) and {processorId}, with formats as in {fileId:06d}"
        ),
    )
    images_per_file: Annotated[
        int, opt("-nif --images-per-file", "Files", "images", metavar="N")
    ] = Field(
        0, ge=0, description="begin a new file after this number of images; 0: all in one file"
    )
    dataset_name: Annotated[str, opt("-dn --dataset-name", "Files", metavar="NAME")] = Field(
        "", description="another name for the images, as a link to /entry/data/data"
    )
    compression: Annotated[
        Literal["none", "lz4", "bslz4", "zstd", "blosc"],
        BeforeValidator(lower),
        opt("-cmp --compression", "Files"),
    ] = Field(
        "none",
        description="compression of images; those that arrive compressed are stored unchanged",
    )
    overwrite: Annotated[bool, opt("--overwrite", "Files")] = Field(
        False, description="replace existing files"
    )
    n_threads: Annotated[int, opt("-nt --n-threads", "Files", metavar="N")] = Field(
        2, ge=1, le=256, description="threads for compression and checksums"
    )


class WriteSettings(FixedProcessorSettings, ConsumerSettings, FileSettings):
    """A consumer, or several that share a stream, whose processor writes files."""

    processor_name = "writer"

    master: Annotated[str | None, opt("--master", "Files", metavar="FILE")] = Field(
        None,
        description=(
            "at the end, write this master file, which shows the images of all files in the order"
            " of ids"
        ),
    )
