"""What PvaPy's programs have, and what ours have: options, modes and fields, read from the code."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pvaccess as pva
from pvapy.hpc.dataCollectorController import DataCollectorController
from pvapy.hpc.dataConsumerController import DataConsumerController

from pvapy_stream.base_settings import choices_of
from pvapy_stream.cli import collector, consumer, mirror, sim
from pvapy_stream.mirror.mirror_channel import MirrorChannel
from pvapy_stream.pva.channel_structures import control_type
from pvapy_stream.settings import (
    CollectorSettings,
    ConsumerSettings,
    MirrorSettings,
    Settings,
    SimulatorSettings,
    TransportSettings,
)
from pvapy_stream.settings.channel_map import MirrorEntry
from pvapy_stream.status.channel import structure
from pvapy_stream.status.snapshot import (
    CollectorStats,
    MetadataStats,
    ProducerStats,
    ReceiverStats,
    Snapshot,
)

# Our settings and parser, and the module of PvaPy's program.
PROGRAMS: dict[str, tuple[type[Settings], Callable[[], argparse.ArgumentParser], str]] = {
    "consumer": (ConsumerSettings, consumer.COMMAND.parser, "hpcConsumer"),
    "collector": (CollectorSettings, collector.COMMAND.parser, "hpcCollector"),
    "mirror": (MirrorSettings, mirror.COMMAND.parser, "mirrorServer"),
    "sim": (SimulatorSettings, sim.COMMAND.parser, "adSimServer"),
}


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a program.

    Attributes:
        name: its longest flag.
        flags: all its flags.
        kind: type of its value; "flag" when it takes none.
        default: as text; "" for none, "required" when it must be given.
    """

    name: str
    flags: frozenset[str]
    kind: str
    default: str


class _ParserFoundError(Exception):
    """Carries a parser out of a program."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def their_options(program: str) -> dict[str, Option]:
    """Options of PvaPy's program by name, from the parser that its `main` makes."""
    module = importlib.import_module(f"pvapy.cli.{PROGRAMS[program][2]}")

    def stop(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise _ParserFoundError(parser)

    with patch.object(argparse.ArgumentParser, "parse_known_args", stop):
        try:
            module.main()
        except _ParserFoundError as found:
            return _options(found.parser, lambda action: action.default)
    raise RuntimeError(f"{module.__name__} does not parse its options")


def our_options(program: str) -> dict[str, Option]:
    """Options of our program by name; the defaults are those of its settings."""
    model, parser, _ = PROGRAMS[program]

    def default(action: argparse.Action) -> Any:
        field = model.model_fields.get(action.dest)
        return field.get_default(call_default_factory=True) if field else None

    return _options(parser(), default)


def _options(
    parser: argparse.ArgumentParser, default: Callable[[argparse.Action], Any]
) -> dict[str, Option]:
    found: dict[str, Option] = {}
    for action in parser._actions:  # noqa: SLF001 - there is no other way to ask a parser
        if action.dest in ("help", "version"):
            continue
        kind = "flag" if action.nargs == 0 else getattr(action.type, "__name__", "str")
        shown = "required" if action.required else _text(default(action))
        # The incumbent's name comes before the names it had earlier.
        name = next(flag for flag in action.option_strings if flag.startswith("--"))
        found[name] = Option(name, frozenset(action.option_strings), kind, shown)
    return found


def _text(value: Any) -> str:
    if value is None or value is False or value in ((), {}):
        return ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def modes() -> Iterator[tuple[str, set[str], set[str]]]:
    """Input and output modes: their name, PvaPy's, ours."""
    for kind, theirs in (
        ("input", DataConsumerController.ALLOWED_INPUT_MODES),
        ("output", DataConsumerController.ALLOWED_OUTPUT_MODES),
    ):
        field = TransportSettings.model_fields[f"{kind}_mode"]
        yield (
            f"{kind}-mode",
            {mode.name.lower() for mode in theirs},
            set(choices_of(field)),
        )


def structures() -> Iterator[tuple[str, dict[str, str], dict[str, str]]]:
    """Structures of channels: their name, PvaPy's fields with their types, ours."""
    for kind, controller in (
        ("consumer", DataConsumerController),
        ("collector", DataCollectorController),
    ):
        theirs = controller.getControlTypeDict()
        yield f"{kind} control", fields(theirs), fields(control_type(f"{kind}Id"))
        # What the controller's method reads of it.
        stage = SimpleNamespace(
            processingController=None, metadataChannelIdList=[1], producerIdList=[1]
        )
        theirs = controller.getStatusTypeDict(stage)  # pyright: ignore[reportArgumentType]
        metadata = {1: MetadataStats()}
        ours = (
            Snapshot(kind, receiver_stats=ReceiverStats(), metadata_stats=metadata)
            if kind == "consumer"
            else Snapshot(
                kind,
                collector_stats=CollectorStats(),
                producer_stats={1: ProducerStats()},
                metadata_stats=metadata,
            )
        )
        yield f"{kind} status", fields(theirs), fields(structure(ours))
    yield "mirror counters", _their_mirror(), _our_mirror()


def _their_mirror() -> dict[str, str]:
    server = pva.PvaMirrorServer()
    server.start()
    try:
        server.addMirrorRecord("compare:mirror", "compare:source", pva.PVA, 0, 1, "")
        return dict.fromkeys(server.getMirrorRecordCounters("compare:mirror"), "count")
    finally:
        server.stop()


def _our_mirror() -> dict[str, str]:
    server = pva.PvaServer()
    entry = MirrorEntry("compare:mirror", "compare:source")
    settings = MirrorSettings.of(channel_map="(compare:mirror,compare:source)")
    channel = MirrorChannel(entry, 1, settings, server)
    return dict.fromkeys(channel.counters(), "count")


def fields(structure: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Type of each field by its path."""
    found: dict[str, str] = {}
    for name, kind in structure.items():
        if isinstance(kind, pva.PvObject):
            found[f"{path}{name}"] = type(kind).__name__
        elif isinstance(kind, Mapping):
            found |= fields(kind, f"{path}{name}.")
        else:
            found[f"{path}{name}"] = str(kind)
    return found
