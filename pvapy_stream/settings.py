"""The only home of option names, defaults, units and help.

One frozen model per kind of stage. A model comes from a command line (`cli.options` makes the
parser from it), from a file or from Python; it pickles, so it crosses to a spawned process; it
rejects unknown keys by name.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pvapy_stream.errors import SettingsError

Self = TypeVar("Self", bound="Settings")


@dataclass(frozen=True, slots=True)
class Opt:
    """How a setting stands on the command line: its flags, its group in the help, its unit."""

    flags: tuple[str, ...]
    group: str = "General"
    unit: str = ""
    metavar: str = ""

    @classmethod
    def of(cls, flags: str, group: str, unit: str = "", metavar: str = "") -> Opt:
        return cls(tuple(flags.split()), group, unit, metavar)


opt = Opt.of

STATS_KINDS = ("receiver", "publisher", "queue", "metadata", "processor", "user", "all")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


def _json_object(value: Any) -> Any:
    if value is None or isinstance(value, dict):
        return value or {}
    try:
        value = json.loads(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f'is not JSON ({error}); write it like \'{{"key": 1}}\'') from error
    if not isinstance(value, dict):
        raise ValueError(f'must be a JSON object like \'{{"key": 1}}\', not {type(value).__name__}')
    return value


def parse_id_list(value: Any) -> Any:
    """Read ids from ``1,2,5``, ``[1,2,5]`` or ``range(first,last+1[,step])``; no code is evaluated."""
    if value is None or not isinstance(value, str):
        return value
    text = value.strip()
    if not text:
        return None
    try:
        if text.startswith("range(") and text.endswith(")"):
            ids = list(range(*(int(part) for part in text[len("range(") : -1].split(","))))
        else:
            ids = [int(part) for part in text.strip("[]()").split(",") if part.strip()]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{value!r} is no id list; write 1,2,5 or range(first,last+1[,step])") from error
    if not ids:
        raise ValueError(f"{value!r} holds no id")
    return ids


def _unique(ids: Any) -> Any:
    ids = parse_id_list(ids)
    if ids is not None and len(set(ids)) != len(ids):
        raise ValueError(f"{list(ids)} names an id twice")
    return ids


@dataclass(frozen=True, slots=True)
class MetadataChannel:
    """A channel whose values accompany the stream."""

    name: str
    provider: Literal["pva", "ca"] = "ca"


def _metadata_channels(value: Any) -> Any:
    if value is None:
        return ()
    if not isinstance(value, str):
        return tuple(value)
    channels = []
    for text in filter(None, (part.strip() for part in value.split(","))):
        provider, separator, name = text.rpartition("://")
        if provider not in ("", "pva", "ca") or not name or (separator and not provider):
            raise ValueError(f"{text!r} is no metadata channel; write pva://NAME, ca://NAME or NAME (then ca)")
        channels.append(MetadataChannel(name, provider or "ca"))
    return tuple(channels)


def _names(value: Any) -> Any:
    return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


JsonObject = Annotated[dict[str, Any], BeforeValidator(_json_object)]
IdList = Annotated[tuple[int, ...] | None, BeforeValidator(_unique)]
MetadataChannels = Annotated[tuple[MetadataChannel, ...], BeforeValidator(_metadata_channels)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error", "critical"] | None, BeforeValidator(_lower)]
StatsKinds = Annotated[
    tuple[Literal["receiver", "publisher", "queue", "metadata", "processor", "user", "all"], ...], BeforeValidator(_names)
]


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of(cls: type[Self], **values: Any) -> Self:
        """Make settings; like the constructor, with our error.

        Raises:
            SettingsError: naming each wrong option and what is wrong with it.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError("; ".join(_explain(cls, item) for item in error.errors())) from error

    def replace(self: Self, **changes: Any) -> Self:
        """A copy with some values changed, validated again."""
        return type(self).of(**{**{name: getattr(self, name) for name in self.model_fields_set}, **changes})


def option_of(model: type[Settings], name: str) -> Opt | None:
    """The command-line form of a field, if it has one."""
    field = model.model_fields.get(name)
    return next((m for m in field.metadata if isinstance(m, Opt)), None) if field else None


def _explain(model: type[Settings], item: Any) -> str:
    if not item["loc"]:
        return item["msg"].removeprefix("Value error, ")
    name = str(item["loc"][0])
    option = option_of(model, name)
    label = option.flags[-1] if option else name
    if item["type"] == "extra_forbidden":
        return f"unknown setting {name!r}; known are {', '.join(sorted(model.model_fields))}"
    if item["type"] == "missing":
        return f"{label} is required"
    return f"{label}: {item['msg'].removeprefix('Value error, ')} (given {item['input']!r})"


class LoggingSettings(Settings):
    """Where log messages go."""

    log_level: Annotated[LogLevel, opt("-ll --log-level", "Reporting", metavar="LEVEL")] = Field(
        None, description="lowest level that is logged: debug, info, warning, error, critical; warnings when not given"
    )
    log_file: Annotated[str | None, opt("-lf --log-file", "Reporting", metavar="FILE")] = Field(
        None, description="log to this file instead of standard error"
    )

    @property
    def level(self) -> int:
        """The level as `logging` numbers it."""
        return getattr(logging, (self.log_level or "warning").upper())


class LedgerSettings(Settings):
    """Where the account of all ids is written."""

    ledger: Annotated[str | None, opt("--ledger", "Accounting", metavar="FILE")] = Field(
        None, description="write the fate of every id to this JSON file, for pvapy-stream audit"
    )


class StageSettings(LoggingSettings, LedgerSettings):
    """What every stage that runs a processor has: consumers and collectors."""

    input_channel: Annotated[str, opt("-ic --input-channel", "Channels", metavar="NAME")] = Field(
        min_length=1, description="channel to receive from; * becomes the id"
    )
    output_channel: Annotated[str, opt("-oc --output-channel", "Channels", metavar="NAME")] = Field(
        "", description="channel to publish on; * becomes the id, _ means pvapy:KIND:ID:output"
    )
    status_channel: Annotated[str, opt("-sc --status-channel", "Channels", metavar="NAME")] = Field(
        "", description="channel with the statistics; * and _ as above"
    )
    control_channel: Annotated[str, opt("-cc --control-channel", "Channels", metavar="NAME")] = Field(
        "", description="channel that takes commands: configure, get_stats, reset_stats, pause, resume, reload, stop; * and _ as above"
    )
    id_format_spec: Annotated[str, opt("-ifs --id-format-spec", "Channels", metavar="SPEC")] = Field(
        "", description="Python format of the id in channel names, such as 02d"
    )
    field_request: Annotated[str, opt("-fr --field-request", "Channels", metavar="FIELDS")] = Field(
        "", description="fields to receive, such as uniqueId,value; all when not given; the id field is added"
    )
    metadata_channels: Annotated[MetadataChannels, opt("-mc --metadata-channels", "Channels", metavar="LIST")] = Field(
        (), description="channels whose values accompany the stream: pva://NAME,ca://NAME; no scheme means ca"
    )
    oid_field: Annotated[str, opt("-of --oid-field", "Object ids", metavar="FIELD")] = Field(
        "uniqueId", min_length=1, description="field that holds the object id"
    )
    oid_offset: Annotated[int, opt("-oo --oid-offset", "Object ids", metavar="N")] = Field(
        0, description="step from the last id of a run to the first of the next; 0: computed from the distributor options"
    )
    skip_initial_updates: Annotated[int, opt("-siu --skip-initial-updates", "Object ids", metavar="N")] = Field(
        1, ge=0, description="first updates that are not processed: a monitor starts with the value already there"
    )
    server_queue_size: Annotated[int, opt("-sqs --server-queue-size", "Queues", "objects", metavar="N")] = Field(
        0, ge=0, description="queue the source's server keeps for each of us; 0: the server's default"
    )
    receiver_queue_size: Annotated[
        int, opt("-rqs --receiver-queue-size -cqs --client-queue-size", "Queues", "objects", metavar="N")
    ] = Field(-1, ge=-1, description="queue on our side; -1: none, objects are processed as they arrive; 0: unlimited")
    pause_queue_size: Annotated[int, opt("--pause-queue-size", "Queues", "objects", metavar="N")] = Field(
        100, ge=0, description="objects kept while paused when there is no receiver queue; more are rejected and counted"
    )
    processor_file: Annotated[str | None, opt("-pf --processor-file", "Processor", metavar="FILE")] = Field(
        None, description="Python file with the processor class"
    )
    processor_class: Annotated[str | None, opt("-pc --processor-class", "Processor", metavar="CLASS")] = Field(
        None, description="class in that file, or package.module.Class; without one, objects are passed through"
    )
    processor_args: Annotated[JsonObject, opt("-pa --processor-args", "Processor", metavar="JSON")] = Field(
        default_factory=dict, description="JSON object handed to the processor's constructor"
    )
    runtime: Annotated[float, opt("-rt --runtime", "Run", "s", metavar="T")] = Field(0, description="stop after this time; 0: run until stopped")
    drain_timeout: Annotated[float, opt("--drain-timeout", "Run", "s", metavar="T")] = Field(
        10, ge=0, description="longest time to process what waits in queues at stop; the rest is counted as left"
    )
    status_period: Annotated[float, opt("--status-period", "Reporting", "s", metavar="T")] = Field(
        1, gt=0, description="how often the status channel is updated"
    )
    report_period: Annotated[float, opt("-rp --report-period", "Reporting", "s", metavar="T")] = Field(
        0, description="how often statistics are shown; 0: only at the end"
    )
    report_stats: Annotated[StatsKinds, opt("-rs --report-stats", "Reporting", metavar="LIST")] = Field(
        ("all",), description="statistics to show: receiver, publisher, queue, metadata, processor, user, all"
    )
    disable_curses: Annotated[bool, opt("-dc --disable-curses", "Reporting")] = Field(False, description="print plain lines, no live table")

    @model_validator(mode="after")
    def _processor_is_complete(self) -> StageSettings:
        if self.processor_file and not self.processor_class:
            raise ValueError("--processor-file needs --processor-class: the name of the class in that file")
        try:
            format(1, self.id_format_spec)
        except ValueError as error:
            raise ValueError(f"--id-format-spec: {self.id_format_spec!r} cannot format an integer ({error}); write it like 02d") from error
        return self

    def named(self, name: str, kind: str, role: str, stage_id: int) -> str:
        """A channel name with ``*`` and ``_`` replaced."""
        text = format(stage_id, self.id_format_spec)
        return f"pvapy:{kind}:{text}:{role}" if name == "_" else name.replace("*", text)


class ConsumerSettings(StageSettings):
    """A consumer, or several that share a stream."""

    consumer_id: Annotated[int, opt("-id --consumer-id", "Consumers", metavar="N")] = Field(1, ge=0, description="id of the first consumer")
    n_consumers: Annotated[int, opt("-nc --n-consumers", "Consumers", metavar="N")] = Field(1, ge=1, description="number of consumers, each a process")
    consumer_id_list: Annotated[IdList, opt("-cid --consumer-id-list", "Consumers", metavar="LIST")] = Field(
        None, description="ids instead of the two above: 1,2,5 or range(first,last+1[,step])"
    )
    max_restarts: Annotated[int, opt("--max-restarts", "Consumers", metavar="N")] = Field(
        3, ge=0, description="how often a consumer process that died is started again"
    )
    input_mode: Annotated[Literal["pva", "ca"], BeforeValidator(_lower), opt("-im --input-mode", "Channels")] = Field(
        "pva", description="how objects come in: monitor of a PVA or of a CA channel"
    )
    input_args: Annotated[JsonObject, opt("-ia --input-args", "Channels", metavar="JSON")] = Field(
        default_factory=dict, description="JSON object for the input mode"
    )
    output_mode: Annotated[Literal["pvas"], BeforeValidator(_lower), opt("-om --output-mode", "Channels")] = Field(
        "pvas", description="how objects go out: a channel on our PVA server"
    )
    output_args: Annotated[JsonObject, opt("-oa --output-args", "Channels", metavar="JSON")] = Field(
        default_factory=dict, description="JSON object for the output mode"
    )
    accumulate_objects: Annotated[int, opt("-ao --accumulate-objects", "Queues", "objects", metavar="N")] = Field(
        -1, description="objects to gather in the receiver queue before processing starts; 0 or less: none"
    )
    accumulation_timeout: Annotated[float, opt("-at --accumulation-timeout", "Queues", "s", metavar="T")] = Field(
        1, ge=0, description="process what was gathered when nothing came for this time"
    )
    distributor_plugin_name: Annotated[str, opt("-dpn --distributor-plugin-name", "Distributor", metavar="NAME")] = Field(
        "pydistributor", description="name of the server's distributor plugin"
    )
    distributor_group: Annotated[str | None, opt("-dg --distributor-group", "Distributor", metavar="NAME")] = Field(
        None, description="group this client shares the stream with"
    )
    distributor_set: Annotated[str | None, opt("-ds --distributor-set", "Distributor", metavar="NAME")] = Field(
        None, description="set within the group; all clients of a set get the same objects"
    )
    distributor_trigger: Annotated[str | None, opt("-dt --distributor-trigger", "Distributor", metavar="FIELD")] = Field(
        None, description="field whose change tells a new object, such as uniqueId"
    )
    distributor_updates: Annotated[int | None, opt("-du --distributor-updates", "Distributor", metavar="N")] = Field(
        None, ge=1, description="objects in a row before the next client (or set) has its turn"
    )
    n_distributor_sets: Annotated[int, opt("-nds --n-distributor-sets", "Distributor", metavar="N")] = Field(
        1, ge=1, description="sets in the group, which tells the step of ids when sets run as separate commands"
    )

    @model_validator(mode="after")
    def _queue_fits(self) -> ConsumerSettings:
        if self.accumulate_objects > 0 and self.receiver_queue_size < 0:
            raise ValueError("--accumulate-objects needs a receiver queue: give --receiver-queue-size 0 or more")
        if 0 < self.receiver_queue_size < self.accumulate_objects:
            raise ValueError(
                f"--accumulate-objects {self.accumulate_objects} never fits in --receiver-queue-size {self.receiver_queue_size}; enlarge the queue"
            )
        return self

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of all consumers of this command."""
        return self.consumer_id_list or tuple(range(self.consumer_id, self.consumer_id + self.n_consumers))

    @property
    def distributed(self) -> bool:
        """Whether the distributor plugin is asked for."""
        return any((self.distributor_group, self.distributor_set, self.distributor_trigger, self.distributor_updates))

    @property
    def sequential_updates(self) -> int:
        """Objects in a row that one consumer gets."""
        return (self.distributor_updates or 1) if self.distributed else 1

    @property
    def id_step(self) -> int:
        """Step from the last id of a run to the first of the next, given or computed."""
        if self.oid_offset > 0:
            return self.oid_offset
        if not self.distributed:
            return 1
        sharers = self.n_distributor_sets if self.distributor_set else len(self.ids)
        return (sharers - 1) * self.sequential_updates + 1


class MirrorSettings(LoggingSettings, LedgerSettings):
    """A server that shows channels of other servers under names of its own."""

    channel_map: Annotated[str, opt("-cm --channel-map", "Channels", metavar="MAP")] = Field(
        min_length=1, description="(mirror,source[,pva|ca[,queue[,n_monitors,request]]]),(…)"
    )
    runtime: Annotated[float, opt("-rt --runtime", "Run", "s", metavar="T")] = Field(0, description="stop after this time; 0: run until stopped")
    report_period: Annotated[float, opt("-rp --report-period", "Reporting", "s", metavar="T")] = Field(
        0, description="how often counters are shown; 0: only at the end"
    )


class SimulatorSettings(LoggingSettings, LedgerSettings):
    """A server that publishes images as an area detector does."""

    input_directory: Annotated[str | None, opt("-id --input-directory", "Frames", metavar="DIR")] = Field(
        None, description="folder with files to stream, in the order of their names"
    )
    input_file: Annotated[str | None, opt("-if --input-file", "Frames", metavar="FILE")] = Field(
        None, description="file to stream: npy, npz, HDF5, TIFF and what fabio reads; random frames when no input is given"
    )
    mmap_mode: Annotated[bool, opt("-mm --mmap-mode", "Frames")] = Field(False, description="map npy files into memory instead of reading them")
    hdf_dataset: Annotated[str | None, opt("-hds --hdf-dataset", "Frames", metavar="PATH")] = Field(
        None, description="dataset in HDF5 files; the only image dataset when not given"
    )
    hdf_compression_mode: Annotated[bool, opt("-hcm --hdf-compression-mode", "Frames")] = Field(
        False, description="send chunks of HDF5 files as they are stored, with their codec"
    )
    config_file: Annotated[str | None, opt("-cfg --config-file", "Frames", metavar="FILE")] = Field(
        None, description="YAML that describes raw binary files"
    )
    n_x_pixels: Annotated[int, opt("-nx --n-x-pixels", "Frames", "pixels", metavar="N")] = Field(256, ge=1, description="columns of random frames")
    n_y_pixels: Annotated[int, opt("-ny --n-y-pixels", "Frames", "pixels", metavar="N")] = Field(256, ge=1, description="rows of random frames")
    color_mode: Annotated[Literal[0, 2, 3, 4], opt("-cm --color-mode", "Frames")] = Field(
        0, description="0 mono, 2 RGB1 [3,nx,ny], 3 RGB2 [nx,3,ny], 4 RGB3 [nx,ny,3]"
    )
    datatype: Annotated[
        Literal["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"],
        opt("-dt --datatype", "Frames"),
    ] = Field("uint8", description="pixel type of random frames")
    minimum: Annotated[float | None, opt("-mn --minimum", "Frames", metavar="X")] = Field(None, description="smallest random value; the type's when not given")
    maximum: Annotated[float | None, opt("-mx --maximum", "Frames", metavar="X")] = Field(None, description="largest random value; the type's when not given")
    n_frames: Annotated[int, opt("-nf --n-frames", "Frames", "frames", metavar="N")] = Field(
        0, ge=0, description="different frames to use; 0: all in the files, or a cache full of random ones"
    )
    cache_size: Annotated[int, opt("-cs --cache-size", "Frames", "frames", metavar="N")] = Field(
        1000, ge=1, description="frames kept in memory; when they all fit they are repeated, else the stream ends with the last"
    )
    channel_name: Annotated[str, opt("-cn --channel-name", "Channels", metavar="NAME")] = Field("pvapy:image", min_length=1, description="channel to publish on")
    notify_pv: Annotated[str | None, opt("-npv --notify-pv", "Channels", metavar="NAME")] = Field(None, description="CA channel to put to at start")
    notify_pv_value: Annotated[str, opt("-nvl --notify-pv-value", "Channels", metavar="VALUE")] = Field("1", description="what is put there")
    metadata_pv: Annotated[MetadataChannels, opt("-mpv --metadata-pv", "Channels", metavar="LIST")] = Field(
        (), description="channels to publish with random values beside each frame: pva://NAME,ca://NAME; no scheme means ca"
    )
    frame_rate: Annotated[float, opt("-fps --frame-rate", "Run", "frames/s", metavar="R")] = Field(20, ge=0, description="rate; 0: as fast as possible")
    runtime: Annotated[float, opt("-rt --runtime", "Run", "s", metavar="T")] = Field(300, description="stop after this time; 0: run until stopped")
    n_publish: Annotated[int, opt("--n-publish", "Run", "frames", metavar="N")] = Field(0, ge=0, description="stop after this many published frames; 0: no limit")
    wait_for_clients: Annotated[int, opt("--wait-for-clients", "Run", metavar="N")] = Field(
        0, ge=0, description="start when this many clients monitor the channel, instead of after the start delay"
    )
    wait_timeout: Annotated[float, opt("--wait-timeout", "Run", "s", metavar="T")] = Field(60, gt=0, description="longest wait for those clients; then it is an error")
    start_delay: Annotated[float, opt("-std --start-delay", "Run", "s", metavar="T")] = Field(10, ge=0, description="wait before the first frame")
    shutdown_delay: Annotated[float, opt("-shd --shutdown-delay", "Run", "s", metavar="T")] = Field(10, ge=0, description="wait after the last frame, for clients to finish")
    report_period: Annotated[int, opt("-rp --report-period", "Reporting", "frames", metavar="N")] = Field(1, description="frames between reports (at most 5 a second); 0: none")
    disable_curses: Annotated[bool, opt("-dc --disable-curses", "Reporting")] = Field(False, description="print plain lines, no live line")
