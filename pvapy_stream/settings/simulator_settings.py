"""Settings of the area detector simulator."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pvapy_stream.base_settings import lower, opt
from pvapy_stream.settings.incumbent import at_least
from pvapy_stream.settings.modes import ModeChoice
from pvapy_stream.settings.source_settings import SourceSettings
from pvapy_stream.settings.text_types import MetadataChannels, PixelType
from pvapy_stream.transport import registry
from pvapy_stream.transport.mode import OutputMode
from pvapy_stream.transport.pva_library import PvaSettings
from pvapy_stream.transport.shm_settings import ShmSettings


class SimulatorSettings(SourceSettings, ShmSettings, PvaSettings):
    """A simulated area detector, which publishes images."""

    input_directory: Annotated[
        str | None, opt("-id --input-directory", "Frames", metavar="DIR")
    ] = Field(None, description="folder with files to stream, in the order of their names")
    input_file: Annotated[str | None, opt("-if --input-file", "Frames", metavar="FILE")] = Field(
        None,
        description=(
            "file to stream: npy, npz, HDF5, TIFF or a format of fabio; random frames if no input"
            " is given"
        ),
    )
    mmap_mode: Annotated[bool, opt("-mm --mmap-mode", "Frames")] = Field(
        False, description="map npy files into memory instead of reading them"
    )
    hdf_dataset: Annotated[str | None, opt("-hds --hdf-dataset", "Frames", metavar="PATH")] = Field(
        None, description="dataset in HDF5 files; default: the only image dataset"
    )
    hdf_compression_mode: Annotated[bool, opt("-hcm --hdf-compression-mode", "Frames")] = Field(
        False, description="send compressed chunks of HDF5 files unchanged, with their codec"
    )
    config_file: Annotated[str | None, opt("-cfg --config-file", "Frames", metavar="FILE")] = Field(
        None, description="YAML file that describes raw binary files"
    )
    n_x_pixels: Annotated[int, opt("-nx --n-x-pixels", "Frames", "pixels", metavar="N")] = Field(
        256, ge=1, description="columns of random frames"
    )
    n_y_pixels: Annotated[int, opt("-ny --n-y-pixels", "Frames", "pixels", metavar="N")] = Field(
        256, ge=1, description="rows of random frames"
    )
    color_mode: Annotated[Literal[0, 2, 3, 4], opt("-cm --color-mode", "Frames")] = Field(
        0, description="0 mono, 2 RGB1 [3,nx,ny], 3 RGB2 [nx,3,ny], 4 RGB3 [nx,ny,3]"
    )
    datatype: Annotated[PixelType, opt("-dt --datatype", "Frames")] = Field(
        "uint8", description="pixel type of random frames"
    )
    minimum: Annotated[float | None, opt("-mn --minimum", "Frames", metavar="X")] = Field(
        None, description="smallest random value; default: that of the type"
    )
    maximum: Annotated[float | None, opt("-mx --maximum", "Frames", metavar="X")] = Field(
        None, description="largest random value; default: that of the type"
    )
    n_frames: Annotated[
        int,
        at_least(0, "--n-frames"),
        opt("-nf --n-frames", "Frames", "frames", metavar="N"),
    ] = Field(
        0,
        ge=0,
        description=(
            "number of different frames; 0: all of the files, or as many random ones as the cache"
            " holds"
        ),
    )
    cache_size: Annotated[
        int,
        at_least(1, "--cache-size", "a cache of one frame"),
        opt("-cs --cache-size", "Frames", "frames", metavar="N"),
    ] = Field(
        1000,
        ge=1,
        description=(
            "frames kept in memory; if all fit they are repeated, else the stream ends with the"
            " last one"
        ),
    )
    output_mode: Annotated[
        str, BeforeValidator(lower), ModeChoice("source"), opt("-om --output-mode", "Channels")
    ] = Field("pva", description="how frames are published")
    notify_pv: Annotated[str | None, opt("-npv --notify-pv", "Channels", metavar="NAME")] = Field(
        None, description="CA channel to put to at start"
    )
    notify_pv_value: Annotated[str, opt("-nvl --notify-pv-value", "Channels", metavar="VALUE")] = (
        Field("1", description="value to put there")
    )
    metadata_pv: Annotated[
        MetadataChannels, opt("-mpv --metadata-pv", "Channels", metavar="LIST")
    ] = Field(
        (),
        description=(
            "channels to publish with random values for each frame: pva://NAME,ca://NAME; no"
            " scheme means ca"
        ),
    )
    frame_rate: Annotated[
        float,
        at_least(0, "--frame-rate", "as fast as possible"),
        opt("-fps --frame-rate", "Run", "frames/s", metavar="R"),
    ] = Field(20, ge=0, description="rate; 0: as fast as possible")
    runtime: Annotated[float, opt("-rt --runtime", "Run", "s", metavar="T")] = Field(
        300, description="stop after this time; 0: run until stopped"
    )
    n_publish: Annotated[int, opt("--n-publish", "Run", "frames", metavar="N")] = Field(
        0, ge=0, description="stop after this number of published frames; 0: no limit"
    )

    @property
    def publishes(self) -> OutputMode:
        """What the output mode is."""
        return registry.source_mode(self.output_mode)
