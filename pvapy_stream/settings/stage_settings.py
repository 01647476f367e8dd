"""Settings of every stage that runs a processor: consumers and collectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, model_validator

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.access import AccessSettings
from pvapy_stream.settings.common import LedgerSettings, LoggingSettings, MetricsSettings
from pvapy_stream.settings.incumbent import at_least, warn_once
from pvapy_stream.settings.text_types import FieldRequest, JsonObject, MetadataChannels, StatsKinds
from pvapy_stream.settings.transport import TransportSettings


class StageSettings(
    LoggingSettings, LedgerSettings, MetricsSettings, AccessSettings, TransportSettings
):
    """Settings of every stage that runs a processor: consumers and collectors."""

    input_channel: Annotated[str, opt("-ic --input-channel", "Channels", metavar="NAME")] = Field(
        min_length=1, description="channel to receive from; * is replaced by the id"
    )
    output_channel: Annotated[str, opt("-oc --output-channel", "Channels", metavar="NAME")] = Field(
        "",
        description=(
            "channel to publish on; * is replaced by the id, _ means pvapy:KIND:ID:output"
        ),
    )
    status_channel: Annotated[str, opt("-sc --status-channel", "Channels", metavar="NAME")] = Field(
        "", description="channel with the status; * and _ as above"
    )
    control_channel: Annotated[str, opt("-cc --control-channel", "Channels", metavar="NAME")] = (
        Field(
            "",
            description=(
                "channel for commands: configure, get_stats, reset_stats, pause, resume, reload,"
                " stop; * and _ as above"
            ),
        )
    )
    id_format_spec: Annotated[str, opt("-ifs --id-format-spec", "Channels", metavar="SPEC")] = (
        Field("", description="Python format of the id in channel names, such as 02d")
    )
    field_request: Annotated[
        FieldRequest, opt("-fr --field-request", "Channels", metavar="FIELDS")
    ] = Field(
        "",
        description=(
            "fields to receive, such as uniqueId,value; default: all; the id field is always added"
        ),
    )
    metadata_channels: Annotated[
        MetadataChannels, opt("-mc --metadata-channels", "Channels", metavar="LIST")
    ] = Field(
        (),
        description=(
            "channels whose values the processor gets in addition to the stream:"
            " pva://NAME,ca://NAME; no scheme means ca"
        ),
    )
    metadata_optional: Annotated[bool, opt("--metadata-optional", "Channels")] = Field(
        False, description="a metadata channel that never has a value does not cause exit code 1"
    )
    oid_field: Annotated[str, opt("-of --oid-field", "Object ids", metavar="FIELD")] = Field(
        "uniqueId", min_length=1, description="field with the object id"
    )
    oid_offset: Annotated[int, opt("-oo --oid-offset", "Object ids", metavar="N")] = Field(
        0,
        description=(
            "expected step from the last id of a run to the first of the next; 0: computed from"
            " the distributor options"
        ),
    )
    skip_initial_updates: Annotated[
        int,
        at_least(0, "--skip-initial-updates", "the first update is processed"),
        opt("-siu --skip-initial-updates", "Object ids", metavar="N"),
    ] = Field(
        1,
        ge=0,
        description=(
            "number of first updates to skip: a monitor begins with the current object, which may"
            " be old"
        ),
    )
    repair: Annotated[bool, opt("--repair", "Object ids")] = Field(
        False,
        description=(
            "ask the source for missed objects; it must be a program of this package with"
            " --keep-past, and input mode pva"
        ),
    )
    repair_timeout: Annotated[float, opt("--repair-timeout", "Object ids", "s", metavar="T")] = (
        Field(60, gt=0, description="longest time for which a missed object is asked for")
    )
    server_queue_size: Annotated[
        int,
        at_least(0, "--server-queue-size", "the server's default"),
        opt("-sqs --server-queue-size", "Queues", "objects", metavar="N"),
    ] = Field(
        0,
        ge=0,
        description="queue at the source's server for each receiver; 0: the server's default",
    )
    receiver_queue_size: Annotated[
        int,
        at_least(-1, "--receiver-queue-size"),
        opt(
            "-rqs --receiver-queue-size -cqs --client-queue-size", "Queues", "objects", metavar="N"
        ),
    ] = Field(
        -1,
        ge=-1,
        description=(
            "queue in this process; -1: none, objects are processed as they arrive; 0: unlimited"
        ),
    )
    pause_queue_size: Annotated[
        int, opt("--pause-queue-size", "Queues", "objects", metavar="N")
    ] = Field(
        100,
        ge=0,
        description=(
            "queue while paused, if there is no receiver queue; further objects are rejected and"
            " counted"
        ),
    )
    processor_file: Annotated[
        str | None, opt("-pf --processor-file", "Processor", metavar="FILE")
    ] = Field(None, description="Python file with the processor class")
    processor_class: Annotated[
        str | None, opt("-pc --processor-class", "Processor", metavar="CLASS")
    ] = Field(
        None,
        description=(
            "class in that file, or package.module.Class; default: objects are passed on unchanged"
        ),
    )
    processor_args: Annotated[
        JsonObject, opt("-pa --processor-args", "Processor", metavar="JSON")
    ] = Field(default_factory=dict, description="JSON object for the processor's constructor")
    batch_size: Annotated[int, opt("--batch-size", "Processor", "frames", metavar="N")] = Field(
        1,
        ge=1,
        description=(
            "frames that a processor with process_batch gets at a time; 1: one by one; fewer if"
            " their pixels are more than 256 MB"
        ),
    )
    batch_timeout: Annotated[float, opt("--batch-timeout", "Processor", "s", metavar="T")] = Field(
        0.1,
        gt=0,
        description="longest time that the first frame of a batch waits for the others",
    )
    runtime: Annotated[float, opt("-rt --runtime", "Run", "s", metavar="T")] = Field(
        0, description="stop after this time; 0: run until stopped"
    )
    drain_timeout: Annotated[float, opt("--drain-timeout", "Run", "s", metavar="T")] = Field(
        10,
        ge=0,
        description="longest time to process queued objects at stop; the rest is counted as left",
    )
    status_period: Annotated[float, opt("--status-period", "Reporting", "s", metavar="T")] = Field(
        1, gt=0, description="time between updates of the status channel"
    )
    report_period: Annotated[float, opt("-rp --report-period", "Reporting", "s", metavar="T")] = (
        Field(0, description="time between printed statistics; 0: only at the end")
    )
    report_stats: Annotated[StatsKinds, opt("-rs --report-stats", "Reporting", metavar="LIST")] = (
        Field(
            ("all",),
            description=(
                "statistics to show: receiver, publisher, queue, metadata, processor, user, all"
            ),
        )
    )
    disable_curses: Annotated[bool, opt("-dc --disable-curses", "Reporting")] = Field(
        False, description="print plain lines instead of a live table"
    )

    @model_validator(mode="after")
    def _output_is_used(self) -> StageSettings:
        if "output_mode" in self.model_fields_set and not self.output_channel:
            warn_once(
                f"--output-mode {self.output_mode} has no effect without --output-channel: nothing"
                " is published"
            )
        return self

    @model_validator(mode="after")
    def _can_be_repaired(self) -> StageSettings:
        if not self.repair:
            if "repair_timeout" in self.model_fields_set:
                warn_once("--repair-timeout has no effect without --repair")
            return self
        if self.input_mode != "pva":
            raise ValueError(f"--repair needs input mode pva, not {self.input_mode}")
        if self.pva_library == "binding":
            raise ValueError("--repair needs this package's client, not --pva-library binding")
        if self.output_channel and self.output_mode != "pvas":
            raise ValueError(
                f"--repair needs output mode pvas, not {self.output_mode}: repaired objects are"
                " published late, and must be marked so"
            )
        return self

    @model_validator(mode="after")
    def _batches_are_used(self) -> StageSettings:
        if "batch_timeout" in self.model_fields_set and self.batch_size == 1:
            warn_once(
                "--batch-timeout has no effect without --batch-size: frames are processed one by"
                " one"
            )
        if self.batch_size > 1 and not self.processor_class:
            warn_once(
                f"--batch-size {self.batch_size} has no effect without --processor-class: objects"
                " are passed on unchanged"
            )
        return self

    @model_validator(mode="after")
    def _processor_is_complete(self) -> StageSettings:
        if self.processor_file and not self.processor_class:
            warn_once(
                f"--processor-file {self.processor_file} has no effect without --processor-class"
                " (the name of the class in that file): objects are passed on unchanged"
            )
        try:
            format(1, self.id_format_spec)
        except ValueError as error:
            raise ValueError(
                f"--id-format-spec: {self.id_format_spec!r} cannot format an integer ({error});"
                " write it like 02d"
            ) from error
        return self

    def refuse_same_names(self, kind: str, inputs: Iterable[str]) -> None:
        """Check that a stage does not receive its own channels, and that their names differ.

        Args:
            kind: kind of stage.
            inputs: channels that a stage with the first id receives from.

        Raises:
            ValueError: naming both options.
        """
        first = self.ids[0]
        if min(self.ids) < 0 and (self.status_channel or self.control_channel):
            raise ValueError(f"id {min(self.ids)}: status and control channels need ids from 0 on")
        ours = {
            f"--{role}-channel": self.named(getattr(self, f"{role}_channel"), kind, role, first)
            for role in ("output", "status", "control")
        }
        for option, name in ours.items():
            others = [other for other, taken in ours.items() if taken == name and other != option]
            if name and others:
                raise ValueError(
                    f"{option} and {others[0]} are both {name}; give them different names"
                )
            if name in inputs and not (option == "--output-channel" and self._carries_over):
                raise ValueError(
                    f"--input-channel and {option} are both {name}: the stage would receive its"
                    " own objects; give them different names"
                )

    @property
    def _carries_over(self) -> bool:
        """Whether input and output of one name are different channels."""
        came = self.receives.spaces or (self.input_mode,)
        return not {*came} & {*(self.publishes.spaces or (self.output_mode,))}

    def named(self, name: str, kind: str, role: str, stage_id: int) -> str:
        """A channel name with ``*`` and ``_`` replaced."""
        text = format(stage_id, self.id_format_spec)
        return f"pvapy:{kind}:{text}:{role}" if name == "_" else name.replace("*", text)

    @property
    def initial_updates(self) -> int:
        """Number of first updates to skip; 0 for modes that begin without a current object."""
        given = "skip_initial_updates" in self.model_fields_set
        return self.skip_initial_updates if given or self.receives.shows_value else 0

    def hosted(self, kind: str, stage_id: int) -> dict[str, str]:
        """Names of the PVA channels that a stage of these settings hosts, by what they are for."""
        names = {
            "status": self.named(self.status_channel, kind, "status", stage_id),
            "control": self.named(self.control_channel, kind, "control", stage_id),
        }
        if self.publishes.hosts:
            names["output"] = self.named(self.output_channel, kind, "output", stage_id)
        if self.receives.hosts:
            names["input"] = self.named(self.input_channel, kind, "input", stage_id)
        return {role: name for role, name in names.items() if name}

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the stages of this command: one stage, or one process, each."""
        raise NotImplementedError
