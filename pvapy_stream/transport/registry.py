"""The registry of transports, from which other parts of the package read the modes."""

from __future__ import annotations

import functools
import importlib
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pvapy_stream.errors import SettingsError
from pvapy_stream.plugins import entries_of, load_named
from pvapy_stream.transport.mode import (
    InputMode,
    Mode,
    OutputMode,
    PublisherOptions,
    ReceiverOptions,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from pvapy_stream.transport.ports import Publisher, Receiver

GROUP = "pvapy_stream.transports"
SUFFIX = "_mode"

# Schemes of bsread streams and buffers, which are not names of modes of other packages.
_BSREAD = ("tcp", "ipc", "inproc", "buffer")

End = Literal["input", "output", "source"]

_log = logging.getLogger(__name__)


def find(name: str) -> Mode:
    """The mode of a name.

    Raises:
        SettingsError: there is none, or its package cannot be loaded.
    """
    if name in _own_names():
        return _own(name)
    if name in _plugins():
        return _plugin(name)
    raise SettingsError(f"unknown mode {name!r}; known are {', '.join(names())}")


def is_known(name: str) -> bool:
    """Whether there is a mode of this name, which may still fail to load."""
    return name in _own_names() or name in _plugins()


@functools.cache
def _own_names() -> frozenset[str]:
    # Not pkgutil, whose import takes longer than everything else here.
    ending = f"{SUFFIX}.py"
    found = os.listdir(os.path.dirname(__file__))
    return frozenset(name.removesuffix(ending) for name in found if name.endswith(ending))


@functools.cache
def _own(name: str) -> Mode:
    mode: Mode = importlib.import_module(f"pvapy_stream.transport.{name}{SUFFIX}").MODE
    return mode


@functools.cache
def _plugins() -> dict[str, EntryPoint]:
    # Only for other modes than those of this package, and for lists of modes.
    return entries_of(GROUP)


@functools.cache
def _plugin(name: str) -> Mode:
    return load_named(_plugins()[name], "transport", Mode)


def modes(*, everywhere: bool = False) -> tuple[Mode, ...]:
    """All modes, in the order in which they are listed.

    A mode of another package that cannot be loaded is logged and omitted.

    Args:
        everywhere: include modes within one process.
    """
    return tuple(mode for mode in _all() if everywhere or mode.reach != "process")


@functools.cache
def _all() -> tuple[Mode, ...]:
    found = [_own(name) for name in _own_names()]
    for name in _plugins().keys() - _own_names():
        try:
            found.append(_plugin(name))
        except SettingsError as error:
            _log.warning("%s", error)
    return tuple(sorted(found, key=lambda mode: (mode.rank, mode.name)))


def names(end: End | None = None) -> tuple[str, ...]:
    """Names of the listed modes: all, or those with an end."""
    return tuple(mode.name for mode in modes() if end is None or getattr(mode, end) is not None)


def input_mode(name: str) -> InputMode:
    """How a mode receives.

    Raises:
        SettingsError: it does not.
    """
    end = find(name).input
    if end is None:
        raise SettingsError(f"mode {name} has no input; choose one of {', '.join(names('input'))}")
    return end


def output_mode(name: str) -> OutputMode:
    """How stages publish by a mode.

    Raises:
        SettingsError: they cannot.
    """
    return _output(name, "output")


def source_mode(name: str) -> OutputMode:
    """How programs that make their own frames publish with a mode.

    Raises:
        SettingsError: they cannot.
    """
    return _output(name, "source")


def _output(name: str, end: Literal["output", "source"]) -> OutputMode:
    mode = find(name)
    found = mode.output if end == "output" else mode.source
    if found is None:
        raise SettingsError(f"mode {name} has no {end}; choose one of {', '.join(names(end))}")
    return found


def make_receiver(name: str, what: ReceiverOptions) -> Receiver:
    """The receiver of a mode.

    Raises:
        TransportError: its channel cannot be hosted.
    """
    return input_mode(name).make(what)


def make_publisher(name: str, what: PublisherOptions) -> Publisher:
    """The publisher of a stage."""
    return output_mode(name).make(what)


def make_source_publisher(name: str, what: PublisherOptions) -> Publisher:
    """The publisher of a program that makes its own frames."""
    return source_mode(name).make(what)


def check_args(option: str, mode: InputMode | OutputMode, args: Mapping[str, object]) -> None:
    """Check the arguments of an input or output by the settings that its mode declares.

    Raises:
        ValueError: naming the option.
    """
    if mode.args is None:
        return
    try:
        mode.args.of(**args)
    except SettingsError as error:
        raise ValueError(f"{option}: {error}") from error


def image_streams() -> tuple[str, ...]:
    """Listed schemes of streams of images, as in ``NAME://CHANNEL``."""
    return tuple(mode.name for mode in modes() if mode.input is not None and mode.input.images)


def image_stream(stream: str) -> tuple[str, str] | None:
    """Mode and channel of a stream of images, ``NAME://CHANNEL``; None for other streams."""
    name, separator, channel = stream.partition("://")
    if not separator or not channel or name in _BSREAD or not is_known(name):
        return None
    end = find(name).input
    return (name, channel) if end is not None and end.images else None


def providers() -> tuple[str, ...]:
    """Listed modes that can be mirrored: those that need only the name of a channel."""
    return tuple(
        mode.name
        for mode in modes()
        if mode.input is not None and (mode.input.monitors or mode.input.images)
    )
