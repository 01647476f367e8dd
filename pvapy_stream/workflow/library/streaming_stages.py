"""The kinds of streaming stages: simulator, mirror, consumers, collector, writer, any command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, ClassVar

from pvapy_stream import settings as models
from pvapy_stream.errors import SettingsError
from pvapy_stream.launch.programs import ProgramSpec
from pvapy_stream.settings import ConsumerSettings
from pvapy_stream.workflow.model.parameters import Boolean, Form, Int, String
from pvapy_stream.workflow.model.protocol_classes import register
from pvapy_stream.workflow.model.streaming_stage import (
    DEFAULT_QUEUE,
    Site,
    Stream,
    StreamingStage,
    Wired,
)
from pvapy_stream.workflow.model.validators import GE

_STATUS_PERIOD = 0.25  # s; what a killed stage may lose of its account


class _Source(StreamingStage):
    """Common part of sources."""

    accepts = ""
    is_source = True
    # Its ids would begin again.
    max_restarts = 0
    # Settings of a source in a workflow, unless others are given.
    usual: ClassVar[Mapping[str, object]] = {"report_period": 0, "disable_curses": True}

    def wire(self, label: str, source: Stream | None, site: Site) -> Wired:
        values: dict[str, object] = {
            "channel_name": f"{site.prefix}{label}",
            **self.usual,
            **self.own_settings(site),
        }
        return Wired((self.spec(label, values),), Stream(str(values["channel_name"])))


@register("Simulator")
class SimulatorStage(_Source):
    """An area detector that publishes random images, or images from files."""

    label = "Simulated detector"
    settings = models.SimulatorSettings
    command = "sim"
    usual: ClassVar[Mapping[str, object]] = {**_Source.usual, "runtime": 0}


@register("Replay")
class ReplayStage(_Source):
    """A source that publishes a recording at its intervals, with faults on request."""

    label = "Replay"
    settings = models.ReplaySettings
    command = "replay"


@register("Mirror")
class MirrorStage(StreamingStage):
    """A server that republishes its input under its own name."""

    label = "Mirror"
    settings = models.MirrorSettings
    command = "mirror"

    @classmethod
    def add_own_params(cls, form: Form) -> None:
        form.add("source", String("", help="channel of a server outside of the workflow"))
        form.add("server_queue_size", Int(DEFAULT_QUEUE, help="queue at the source's server"))
        form.add("monitors", Int(1, validators=(GE(1),), help="monitors that share the stream"))

    def wire(self, label: str, source: Stream | None, site: Site) -> Wired:
        values = self.own_settings(site)
        if source is None and self.value("source"):
            source = Stream(str(self.value("source")))
        if source is None:
            if "channel_map" not in values:
                raise SettingsError("needs an input, a source, or a channel_map")
            return Wired((self.spec(label, values),), None)
        queue, monitors = self.value("server_queue_size"), self.value("monitors")
        field = values.get("oid_field", "uniqueId")
        pattern = f"{site.prefix}{label}:*" if source.ids else f"{site.prefix}{label}"
        output = Stream(pattern, source.ids, source.id_format, source.step, source.run)
        share = f",{monitors},_[pydistributor=trigger:{field}]" if monitors > 1 else ""
        values["channel_map"] = ",".join(
            f"({ours},{theirs},pva,{queue}{share})"
            for ours, theirs in zip(output.channels, source.channels, strict=True)
        )
        return Wired((self.spec(label, values),), output)


class _Processing(StreamingStage):
    """Common part of consumers, collectors and writers."""

    def channels(self, label: str, site: Site, *, output: bool = True) -> dict[str, Any]:
        """Their names, and queues."""
        names = {
            "status_channel": f"{site.prefix}{label}:status:*",
            "control_channel": f"{site.prefix}{label}:control:*",
            "server_queue_size": DEFAULT_QUEUE,
            "status_period": _STATUS_PERIOD,
            "disable_curses": True,
        }
        if output:
            names["output_channel"] = f"{site.prefix}{label}:*"
        return {**names, **self.own_settings(site)}

    def needs_input(self, source: Stream | None) -> None:
        """Whether something comes in.

        Raises:
            SettingsError: neither an arrow nor a channel.
        """
        if source is None and "input_channel" not in self.given:
            raise SettingsError("needs an input, such as mirror.output, or an input_channel")


@register("Consumer")
class ConsumerStage(_Processing):
    """One consumer, or several that share the stream or each get the whole stream."""

    label = "Consumers"
    settings = models.ConsumerSettings
    command = "consumer"

    @classmethod
    def add_own_params(cls, form: Form) -> None:
        form.add("share", Boolean(True, help="several consumers share the stream"))

    def wire(self, label: str, source: Stream | None, site: Site) -> Wired:
        self.needs_input(source)
        values = self.channels(label, site)
        values.pop("max_restarts", None)
        n = int(values.pop("n_consumers", 1))
        if source is not None:
            values["input_channel"] = source.pattern
        values |= self._shares(label, n, source, values)
        whole = ConsumerSettings.of(**values, n_consumers=n)
        programs = tuple(
            self.spec(
                f"{label}-{k}",
                {**values, "consumer_id": k, "n_consumers": 1, "oid_offset": whole.id_step},
            )
            for k in whole.ids
        )
        output = Stream(
            str(values["output_channel"]),
            whole.ids,
            whole.id_format_spec,
            whole.id_step,
            whole.sequential_updates,
        )
        return Wired(programs, output)

    def _shares(
        self, label: str, n: int, source: Stream | None, values: Mapping[str, object]
    ) -> dict[str, object]:
        """Settings of the distributor."""
        ids = source.ids if source is not None else ()
        if len(ids) > 1 and n != len(ids):
            raise SettingsError(
                f"{n} consumers cannot follow {len(ids)} channels; give n_consumers: {len(ids)},"
                " or gather them first with a Collector"
            )
        field = values.get("oid_field", "uniqueId")
        if source is not None and len(ids) == 1:
            return {"input_channel": source.channels[0]}
        if source is not None and ids:
            # One for each channel: the ids are those of the channel.
            alone = {"id_format_spec": source.id_format, "oid_offset": source.step}
            if source.run > 1:
                alone |= {
                    "distributor_group": label,
                    "distributor_updates": source.run,
                    "distributor_trigger": field,
                }
            return alone
        given = any(name.startswith("distributor_") for name in values)
        if n == 1 or not self.value("share") or given:
            return {}
        return {"distributor_group": label, "distributor_trigger": field}


@register("Collector")
class CollectorStage(_Processing):
    """Merges several channels in the order of ids."""

    label = "Collector"
    settings = models.CollectorSettings
    command = "collector"

    def wire(self, label: str, source: Stream | None, site: Site) -> Wired:
        self.needs_input(source)
        values = self.channels(label, site)
        values["output_channel"] = values["output_channel"].replace(":*", "")
        if source is not None:
            values["input_channel"] = source.pattern
            values["producer_id_list"] = list(source.ids or (1,))
            # As much patience with one that lags as the arrows' queues have.
            values.setdefault(
                "collector_cache_size", DEFAULT_QUEUE * len(values["producer_id_list"])
            )
            values["id_format_spec"] = source.id_format
        return Wired((self.spec(label, values),), Stream(values["output_channel"]))


@register("Writer")
class WriterStage(_Processing):
    """Writes the stream to HDF5/NeXus files; its output is the folder, once it has ended."""

    label = "Writer"
    settings = models.WriteSettings
    command = "write"
    outputs: ClassVar[Mapping[str, str]] = {"files": "file"}

    def wire(self, label: str, source: Stream | None, site: Site) -> Wired:
        self.needs_input(source)
        values = self.channels(label, site, output=False)
        n = int(values.get("n_consumers", 1))
        if source is not None:
            if len(source.ids) > 1:
                raise SettingsError(
                    f"one writer cannot follow {len(source.ids)} channels; gather them first with"
                    " a Collector"
                )
            values["input_channel"] = source.channels[0]
        if n > 1 and not any(name.startswith("distributor_") for name in values):
            field = values.get("oid_field", "uniqueId")
            values |= {"distributor_group": label, "distributor_trigger": field}
        if "output" in values:
            values["output"] = str((site.folder / str(values["output"])).absolute())
        return Wired((self.spec(label, values),), None)


@register("Recorder")
class RecorderStage(_Processing):
    """Records the stream as it came, with arrival times; its output is the file."""

    label = "Recorder"
    settings = models.RecordSettings
    command = "record"
    # A second file would be in the way of the first.
    max_restarts = 0
    ends_itself = True
    outputs: ClassVar[Mapping[str, str]] = {"file": "file"}

    def wire(self, label: str, source: Stream | None, site: Site) -> Wired:
        self.needs_input(source)
        values = self.channels(label, site, output=False)
        if source is not None:
            if len(source.ids) > 1:
                raise SettingsError(
                    f"one recorder cannot follow {len(source.ids)} channels; gather them first with"
                    " a Collector"
                )
            values["input_channel"] = source.channels[0]
        if "output" in values:
            values["output"] = str((site.folder / str(values["output"])).absolute())
        return Wired((self.spec(label, values),), None)


@register("Command")
class CommandStage(StreamingStage):
    """Any other command of ``pvapy-stream``, with its arguments as they are typed."""

    label = "Command"
    settings = models.LoggingSettings
    command = ""
    accepts = ""
    is_beside = True
    outputs: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def add_own_params(cls, form: Form) -> None:
        form.add("command", String("", important=True, help="such as: monitor --interval 5"))

    def wire(self, label: str, source: Stream | None, site: Site) -> Wired:
        places = {"{prefix}": site.prefix, "{folder}": str(site.folder)}
        words = shlex.split(str(self.value("command")))
        for name, value in places.items():
            words = [word.replace(name, value) for word in words]
        if not words:
            raise SettingsError(
                "command is missing; write it as on the command line, without pvapy-stream"
            )
        spec = ProgramSpec(
            label, words[0], argv=tuple(words[1:]), has_ledger=False, place=self.value("place")
        )
        return Wired((spec,), None)
