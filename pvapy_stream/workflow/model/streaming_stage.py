"""Streaming stages as protocols: every program of the package, its settings the parameters.

Arrows between stages give channels, queue sizes, ids and offsets; `wire` works them out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from pydantic.fields import FieldInfo

from pvapy_stream.base_settings import description_of
from pvapy_stream.launch.programs import ProgramSpec
from pvapy_stream.launch.supervisor import RestartPolicy
from pvapy_stream.settings import Settings, option_of
from pvapy_stream.workflow.model.base_protocol import BaseProtocol
from pvapy_stream.workflow.model.parameters import (
    ADVANCED,
    Float,
    Form,
    Int,
    Pointer,
    Setting,
    String,
)
from pvapy_stream.workflow.model.protocol_classes import name_of
from pvapy_stream.workflow.model.validators import GE, GT

# What the graph decides, so nobody sets it by hand.
_GRAPHS_OWN = {"ledger", "log_file", "consumer_id", "consumer_id_list", "collector_id"}
_FILES_READ = {"file", "input_file", "input_directory", "config_file", "processor_file"}
STREAM, BSREAD = "stream", "bsread"
_START_RESTARTS = 3  # of a program that dies before it has begun its work
DEFAULT_QUEUE = 100  # objects a server keeps for each client of an arrow


@dataclass(frozen=True, slots=True)
class Stream:
    """What goes along an arrow.

    Attributes:
        pattern: name of the channel, with ``*`` in place of the ids; or address of a bsread stream.
        ids: of the channels; () for one channel.
        id_format: Python format of ids in names.
        step: from the last object id of a run to the first of the next on each channel.
        run: objects in a row with sequential ids on each channel.
        kind: stream (channels, which begin with the object that is there), or bsread (messages).
        is_shared: whether each of several stages that follow gets all of it.
    """

    pattern: str
    ids: tuple[int, ...] = ()
    id_format: str = ""
    step: int = 1
    run: int = 1
    kind: str = STREAM
    is_shared: bool = True

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
        port: gives a port that is free; 0 where nothing is going to run.
        ignored: labels of protocols that are left out of the run.
    """

    prefix: str
    folder: Path = Path()
    sources: Path = Path()
    port: Callable[[], int] = int
    ignored: frozenset[str] = frozenset()


def _setting(name: str, info: FieldInfo, unit: str) -> Setting:
    default = None if info.is_required() else info.get_default(call_default_factory=True)
    text = description_of(info) + (f" [{unit}]" if unit else "")
    return Setting(default, name.replace("_", " "), text, allows_null=True, info=info)


class StreamingStage(BaseProtocol):
    """A program in a workflow.

    Attributes:
        accepts: kind of its input, or kinds; "" when it has none.
        settings: its settings model.
        command: the command of ``pvapy-stream`` that it is.
        is_source: whether it begins when all others are ready.
        is_beside: whether it runs beside the others, and ends when they have ended.
        max_restarts: how often a program that died is started again, when nothing else is said.
        graphs_own: settings that the graph decides, so that nobody sets them by hand.
        file_param: setting with the name of its file, if that is an output.
        ends_itself: whether it ends when it has what it was asked for, and the others go on.
        quiet: s without news after which it has nothing to come; longer than between two ledgers.
    """

    outputs: ClassVar[Mapping[str, str]] = {"output": "stream"}
    accepts: ClassVar[str | tuple[str, ...]] = STREAM
    settings: ClassVar[type[Settings]]
    command: ClassVar[str]
    is_source: ClassVar[bool] = False
    is_beside: ClassVar[bool] = False
    max_restarts: ClassVar[int] = 3
    graphs_own: ClassVar[frozenset[str]] = frozenset()
    file_param: ClassVar[str] = "output"
    ends_itself: ClassVar[bool] = False
    quiet: ClassVar[float] = 1.0
    _form: ClassVar[Form]

    @classmethod
    def form(cls) -> Form:
        """Its parameters: how it is run, then the settings by their groups."""
        if "_form" not in vars(cls):
            cls._form = cls._make_form()
        return cls._form

    @classmethod
    def _make_form(cls) -> Form:
        form = Form()
        if cls.accepts:
            form.add("input", Pointer(allows_null=True, accepts=cls.accepts, important=True))
        form.section("Run").group("Supervision")
        form.add("max_restarts", Int(cls.max_restarts, validators=(GE(0),)))
        form.add("ready_timeout", Float(30.0, validators=(GT(0),), help="s"))
        form.add("place", String("", expert_level=ADVANCED, help="worker of a cluster to run on"))
        cls.add_own_params(form)
        hidden = _GRAPHS_OWN | cls.graphs_own | form.params.keys()
        for name, info in cls.settings.model_fields.items():
            option = option_of(cls.settings, name)
            if option is not None and name not in hidden:
                form.section(option.group)
                form.add(name, _setting(name, info, option.unit))
        return form

    @classmethod
    def add_own_params(cls, form: Form) -> None:
        """Add what a kind of stage has beside its settings."""

    def value(self, name: str) -> Any:
        """What is given for a parameter, or its default."""
        return self.given.get(name, self.form().params[name].default)

    def restart_policy(self) -> RestartPolicy:
        """When its programs are started again; at their start, unless nobody wants it."""
        limit = int(self.value("max_restarts"))
        given = "max_restarts" in self.given
        return RestartPolicy(limit, start_limit=limit if given else _START_RESTARTS)

    def problems(self) -> list[str]:
        form = self.form()
        _, wrong = form.evaluate(self.given)
        return form.check_names(self.given, name_of(type(self))) + wrong

    @classmethod
    def sample_input(cls) -> Stream:
        """A stream that it accepts; to check a stage whose real input is wrong."""
        if cls.accepts == (BSREAD,):
            return Stream("tcp://127.0.0.1:0", kind=BSREAD)
        return Stream("input")

    def own_settings(self, site: Site) -> dict[str, object]:
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
