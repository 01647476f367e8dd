"""Streaming stages as protocols: every program of the package, its settings the parameters.

Arrows between stages give channels, queue sizes, ids and offsets; `wire` works them out.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args, get_origin

import msgspec
from pydantic.fields import FieldInfo

from pvapy_stream import settings as models
from pvapy_stream.errors import SettingsError
from pvapy_stream.hpc.launch.programs import ProgramSpec
from pvapy_stream.settings import ConsumerSettings, Settings, option_of
from pvapy_stream.workflow.params import ADVANCED, Boolean, Float, Form, Int, Param, Pointer, String
from pvapy_stream.workflow.registry import register
from pvapy_stream.workflow.validators import GE, GT

# What the graph decides, so nobody sets it by hand.
_GRAPHS_OWN = {"ledger", "log_file", "consumer_id", "consumer_id_list", "collector_id"}
_FILES_READ = {"input_file", "input_directory", "config_file", "processor_file"}
_QUEUE = 100  # objects a server keeps for each client of an arrow
_STATUS_PERIOD = 0.25  # s; what a killed stage may lose of its account


@dataclass(frozen=True, slots=True)
class Stream:
    """What goes along an arrow.

    Attributes:
        pattern: name of the channel; ``*`` stands for the ids.
        ids: of the channels; () for one channel.
        id_format: Python format of ids in names.
        step: from the last object id of a run to the first of the next on each channel.
        run: objects in a row with sequential ids on each channel.
    """

    pattern: str
    ids: tuple[int, ...] = ()
    id_format: str = ""
    step: int = 1
    run: int = 1

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of all channels."""
        if not self.ids:
            return (self.pattern,)
        return tuple(self.pattern.replace("*", format(k, self.id_format)) for k in self.ids)


@dataclass(frozen=True, slots=True)
class Wired:
    """A stage with its channels: what is started, and what goes out."""

    programs: tuple[ProgramSpec, ...]
    output: Stream | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """Where a run is.

    Attributes:
        prefix: what its channel names begin with.
        folder: where files go that are named without a folder.
        sources: where files are looked for that are named without a folder.
    """

    prefix: str
    folder: Path = Path()
    sources: Path = Path()


@dataclass(frozen=True)
class Setting(Param):
    """A parameter that is a field of a settings model, which also checks it."""

    annotation: Any = None
    default_given: bool = True
    schema_of: Any = None

    def parse(self, value: Any) -> Any:
        return value

    def schema(self) -> dict[str, Any]:
        return dict(self.schema_of or {})

    @property
    def shape(self) -> str:
        """Kind of field in a form."""
        kind = _plain(self.annotation)
        if get_origin(kind) is Literal:
            return "enum"
        return {bool: "boolean", int: "int", float: "float"}.get(kind, "string")

    @property
    def choices(self) -> tuple[Any, ...]:
        """Values to choose from."""
        return get_args(_plain(self.annotation)) if self.shape == "enum" else ()


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _plain(annotation: Any) -> Any:
    if get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return _plain(kinds[0]) if len(kinds) == 1 else annotation
    return annotation


class Stage:
    """A program in a workflow.

    Attributes:
        label: name for people.
        outputs: what others may point to, as name: kind.
        accepts: kind of its input; "" when it has none.
        settings: its settings model.
        command: the command of ``pvapy-stream`` that it is.
        is_source: whether it begins when all others are ready.
        max_restarts: how often a program that died is started again, when nothing else is said.
    """

    label: ClassVar[str] = ""
    outputs: ClassVar[Mapping[str, str]] = {"output": "stream"}
    accepts: ClassVar[str] = "stream"
    settings: ClassVar[type[Settings]]
    command: ClassVar[str]
    is_source: ClassVar[bool] = False
    max_restarts: ClassVar[int] = 3

    def __init__(self, **params: Any) -> None:
        self.given = params

    @classmethod
    def form(cls) -> Form:
        """Its parameters: how it is run, then the settings by their groups."""
        form = Form()
        if cls.accepts:
            form.add("input", Pointer(allows_null=True, accepts=cls.accepts, important=True))
        form.section("Run").group("Supervision")
        form.add("max_restarts", Int(cls.max_restarts, validators=(GE(0),)))
        form.add("ready_timeout", Float(30.0, validators=(GT(0),), help="s"))
        form.add("place", String("", expert_level=ADVANCED, help="worker of a cluster to run on"))
        cls.add_own_params(form)
        schema = cls.settings.model_json_schema()["properties"]
        for name, field in cls.settings.model_fields.items():
            option = option_of(cls.settings, name)
            if option is None or name in _GRAPHS_OWN or name in form.params:
                continue
            form.section(option.group)
            form.add(
                name,
                Setting(
                    default=None
                    if field.is_required()
                    else field.get_default(call_default_factory=True),
                    label=name.replace("_", " "),
                    help=(field.description or "") + (f" [{option.unit}]" if option.unit else ""),
                    annotation=field.annotation,
                    schema_of=schema.get(name),
                    allows_null=True,
                ),
            )
        return form

    @classmethod
    def add_own_params(cls, form: Form) -> None:
        """Add what a kind of stage has beside its settings."""

    def value(self, name: str) -> Any:
        """What is given for a parameter, or its default."""
        return self.given.get(name, self.form().params[name].default)

    def problems(self) -> list[str]:
        """What is wrong with the parameters, each by its name."""
        form = self.form()
        name = type(self).__name__
        unknown = form.check_names(self.given, name)
        _, wrong = form.evaluate(self.given)
        if unknown or wrong:
            return unknown + wrong
        try:
            given = Stream("input:*", (1, 2)) if name == "Collector" else Stream("input")
            self.wire("label", given if self.accepts else None, Site("prefix:"))
        except SettingsError as error:
            return [str(error)]
        return []

    def own_settings(self, site: Site) -> dict[str, Any]:
        """What is given of the settings; files that are read, with their folders."""
        own = {n: v for n, v in self.given.items() if n in self.settings.model_fields}
        for name in _FILES_READ & own.keys():
            there = site.sources / str(own[name])
            if own[name] and there.exists():
                own[name] = str(there.absolute())
        return own

    def spec(self, name: str, values: Mapping[str, Any]) -> ProgramSpec:
        """A program with these settings, which are checked.

        Raises:
            SettingsError: naming the option that is wrong.
        """
        self.settings.of(**values)
        return ProgramSpec(
            name,
            self.command,
            self.settings.__name__,
            msgspec.to_builtins(dict(values)),
            place=str(self.value("place")),
        )

    def wire(self, label: str, source: Stream | None, site: Site) -> Wired:
        """The stage's programs, with channels.

        Args:
            label: of the stage.
            source: what its input is; None when it has none, or when the settings name a channel.
            site: where the run is.

        Raises:
            SettingsError: settings are wrong, or the input does not fit.
        """
        raise NotImplementedError


@register
class Simulator(Stage):
    """An area detector that publishes random images, or images from files."""

    label = "Simulated detector"
    settings = models.SimulatorSettings
    command = "sim"
    accepts = ""
    is_source = True
    # Its ids would begin again with 1.
    max_restarts = 0

    def wire(self, label: str, source: Stream | None, site: Site) -> Wired:
        values = {
            "channel_name": f"{site.prefix}{label}",
            "runtime": 0,
            "report_period": 0,
            "disable_curses": True,
            **self.own_settings(site),
        }
        return Wired((self.spec(label, values),), Stream(values["channel_name"]))


@register
class Mirror(Stage):
    """A server that shows its input under a name of its own."""

    label = "Mirror"
    settings = models.MirrorSettings
    command = "mirror"

    @classmethod
    def add_own_params(cls, form: Form) -> None:
        form.add("server_queue_size", Int(_QUEUE, help="objects the source keeps for us"))
        form.add("monitors", Int(1, validators=(GE(1),), help="monitors that share the stream"))

    def wire(self, label: str, source: Stream | None, site: Site) -> Wired:
        values = self.own_settings(site)
        if source is None:
            if "channel_map" not in values:
                raise SettingsError("needs an input, or a channel_map")
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


class _Processing(Stage):
    """What consumers, collectors and writers have in common."""

    def channels(self, label: str, site: Site, *, output: bool = True) -> dict[str, Any]:
        """Their names, and queues."""
        names = {
            "status_channel": f"{site.prefix}{label}:status:*",
            "control_channel": f"{site.prefix}{label}:control:*",
            "server_queue_size": _QUEUE,
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


@register
class Consumer(_Processing):
    """One consumer, or several that share the stream or each get all of it."""

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
        self, label: str, n: int, source: Stream | None, values: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Settings that tell who gets what."""
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


@register
class Collector(_Processing):
    """Gathers several channels in the order of ids."""

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
            values["id_format_spec"] = source.id_format
        return Wired((self.spec(label, values),), Stream(values["output_channel"]))


@register
class Writer(_Processing):
    """Writes the stream to HDF5/NeXus files; its output is the folder, once it has ended."""

    label = "Writer"
    settings = models.WriteSettings
    command = "write"
    outputs: ClassVar[Mapping[str, str]] = {"files": "file"}
    # A second file would be in the way of the first.
    max_restarts = 0

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


@register
class Command(Stage):
    """Any other command of ``pvapy-stream``, with its arguments as they are typed."""

    label = "Command"
    settings = models.LoggingSettings
    command = ""
    accepts = ""
    outputs: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def add_own_params(cls, form: Form) -> None:
        form.add("command", String("", important=True, help="such as: monitor --interval 5"))

    def wire(self, label: str, source: Stream | None, site: Site) -> Wired:
        import shlex

        words = shlex.split(str(self.value("command")).replace("{prefix}", site.prefix))
        if not words:
            raise SettingsError("command is missing; write it as after pvapy-stream")
        spec = ProgramSpec(
            label, words[0], argv=tuple(words[1:]), has_ledger=False, place=self.value("place")
        )
        return Wired((spec,), None)
