"""Settings of the area detector simulator."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pvapy_stream.base_settings import lower, opt
from pvapy_stream.settings.common import (
    LedgerSettings,
    LoggingSettings,
    MetricsSettings,
    StatusSettings,
)
from pvapy_stream.settings.incumbent import at_least
from pvapy_stream.settings.modes import ModeChoice
from pvapy_stream.settings.values import MetadataChannels, Names, PixelType
from pvapy_stream.transport import registry
from pvapy_stream.transport.mode import OutputMode
from pvapy_stream.transport.pva_library import PvaSettings
from pvapy_stream.transport.shm_settings import ShmSettings


class SimulatorSettings(
    LoggingSettings, LedgerSettings, MetricsSettings, StatusSettings, ShmSettings, PvaSettings
):
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
    channel_name: Annotated[str, opt("-cn --channel-name", "Channels", metavar="NAME")] = Field(
        "pvapy:image", min_length=1, description="channel to publish on"
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
    wait_for_clients: Annotated[int, opt("--wait-for-clients", "Run", metavar="N")] = Field(
        0,
        ge=0,
        description=(
            "start when this number of clients monitor the channel, instead of after the start"
            " delay"
        ),
    )
    wait_for_stages: Annotated[Names, opt("--wait-for-stages", "Run", metavar="LIST")] = Field(
        (),
        description=(
            "start when the consumers and collectors with these status channels have received"
            " their first object and metadata, so that the whole chain is connected"
        ),
    )
    wait_timeout: Annotated[float, opt("--wait-timeout", "Run", "s", metavar="T")] = Field(
        60, gt=0, description="longest wait for these clients and stages; then the simulator fails"
    )
    start_delay: Annotated[
        float,
        at_least(0, "--start-delay", "no delay"),
        opt("-std --start-delay", "Run", "s", metavar="T"),
    ] = Field(10, ge=0, description="time before the first frame")
    shutdown_delay: Annotated[
        float,
        at_least(0, "--shutdown-delay", "no delay"),
        opt("-shd --shutdown-delay", "Run", "s", metavar="T"),
    ] = Field(10, ge=0, description="time after the last frame, in which clients can finish")
    report_period: Annotated[
        int, opt("-rp --report-period", "Reporting", "frames", metavar="N")
    ] = Field(
        1, description="number of frames between reports (at most 5 reports a second); 0: none"
    )
    disable_curses: Annotated[bool, opt("-dc --disable-curses", "Reporting")] = Field(
        False, description="print plain lines instead of a live line"
    )

    @model_validator(mode="after")
    def _names_differ(self) -> SimulatorSettings:
        if self.status_channel == self.channel_name:
            raise ValueError(
                f"--channel-name and --status-channel are both {self.channel_name}; give them"
                " different names"
            )
        return self

    @property
    def publishes(self) -> OutputMode:
        """What the output mode is."""
        return registry.source_mode(self.output_mode)

    @property
    def hosted(self) -> list[str]:
        """PVA channels that the simulator serves for its frames."""
        return [self.channel_name] if self.publishes.hosts else []
