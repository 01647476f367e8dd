"""What a transport declares: its mode, as ``MODE``.

A transport is one file: ``NAME_mode.py`` in this folder, or a module of another package that an
entry point of the group ``pvapy_stream.transports`` names as ``NAME = package.module:MODE``. The
file is imported when its mode is used or listed, so it imports libraries of its own in the
functions that need them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pvapy_stream.base_settings import Settings
from pvapy_stream.errors import TransportError

if TYPE_CHECKING:
    import pvaccess as pva

    from pvapy_stream.pva.request import Distributor
    from pvapy_stream.transport.ports import Publisher, Receiver

CHECK = (
    "check that its program runs, its name, and that EPICS_PVA_ADDR_LIST leads to its host"
    " (pvapy-stream doctor --channel {channel})"
)


def _no_type() -> None:
    return None


def _nothing_to_do() -> None:
    pass


def _nothing_to_do_for(settings: Settings) -> None:
    pass


def _no_problem(args: Mapping[str, object]) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class ReceiverOptions:
    """What a receiver is made from.

    Attributes:
        channel: name of the channel.
        server: the program's PVA server; None in programs that have none.
        fields: fields to receive, ``a,b`` or ``field(a,b)``; all when empty.
        id_field: field with the object id; "" when the program has no use for it.
        pv_request: a complete PV request, instead of one that is made from the other attributes.
        queue_size: objects that the sender keeps for us; 0: its default.
        distributor: what is asked of the source's distributor.
        input_type: returns an object of the structure to host, or None for images.
        number: id of the stage, or of the producer it receives from.
        args: ``--input-args``, checked by the settings that the mode declares.
        library: what receives by PVAccess, as `PvaLibrarySettings` has it.
        dealer: channel in shared memory on which this command deals objects out if the source's
            server has no distributor; "" for none.
        dealt: whether it does so already.
        unshared: gets why the source's server cannot give a share, in a thread of the transport;
            None: that is an error of the receiver.
    """

    channel: str
    server: pva.PvaServer | None = None
    fields: str = ""
    id_field: str = ""
    pv_request: str = ""
    queue_size: int = 0
    distributor: Distributor | None = None
    input_type: Callable[[], object] = _no_type
    number: int = 0
    args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    library: Literal["auto", "own", "binding"] = "binding"
    dealer: str = ""
    dealt: bool = False
    unshared: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True)
class PublisherOptions:
    """What a publisher is made from.

    Attributes:
        channel: name of the channel.
        server: the program's PVA server; None in programs that have none.
        id_field: field with the object id.
        timeout: longest time an object is tried again when the other side fails, s.
        settings: of the program: a mode finds options of its own there.
        number: id of the stage.
        args: ``--output-args``, checked by the settings that the mode declares.
    """

    channel: str
    server: pva.PvaServer | None = None
    id_field: str = "uniqueId"
    timeout: float = 5.0
    settings: Settings | None = None
    number: int = 0
    args: Mapping[str, Any] = field(default_factory=dict[str, Any])


def server_of(what: ReceiverOptions | PublisherOptions) -> pva.PvaServer:
    """The PVA server to host a channel on.

    Raises:
        TransportError: the program has none.
    """
    if what.server is None:
        raise TransportError(
            f"cannot host channel {what.channel}: this program has no PVA server; choose a mode"
            " that needs none, such as shm"
        )
    return what.server


@dataclass(frozen=True, slots=True)
class InputMode:
    """How a mode receives.

    Attributes:
        make: makes the receiver; raises `TransportError`.
        help: what it is, for the help of ``--input-mode``.
        lazy: its receiver delivers `LazyObject`s.
        waits: its senders wait until an object is taken, so that it need not be rejected.
        hosts: it hosts the input on this program's PVA server; others come to it.
        shows_value: it begins with the value that is there already, which is no update.
        monitors: it monitors a channel that a server shows, also while nothing is published.
        images: ``NAME://CHANNEL`` is a stream of images for buffer and writer, and ``NAME`` a
            provider of the mirror: the name of a channel is all that it needs.
        default_fields: fields to receive when none are given; all when empty.
        spaces: where its channels have their names; those of its own mode when empty.
        sender: output mode of the program that publishes to it; its own name when empty.
        args: settings for ``--input-args``; None: it takes none.
        several: what is wrong with these arguments for several stages of one command, or "".
        absent: what to check when a source is not there; ``{channel}`` stands for its name.
        prepare: called before a program starts a PVA server; raises `TransportError`.
    """

    make: Callable[[ReceiverOptions], Receiver]
    help: str
    lazy: bool = False
    waits: bool = False
    hosts: bool = False
    shows_value: bool = False
    monitors: bool = False
    images: bool = False
    default_fields: str = ""
    spaces: tuple[str, ...] = ()
    sender: str = ""
    args: type[Settings] | None = None
    several: Callable[[Mapping[str, object]], str] = _no_problem
    absent: str = CHECK
    prepare: Callable[[], None] = _nothing_to_do


@dataclass(frozen=True, slots=True)
class OutputMode:
    """How a mode publishes.

    Attributes:
        make: makes the publisher; raises `TransportError` or `SettingsError`.
        help: what it is, for the help of ``--output-mode``.
        hosts: it hosts the output on this program's PVA server.
        shared: several stages may publish on one channel: it belongs to the receiver.
        announces: receivers of its output can find the PVA channel ``OUTPUT:filtered``.
        spaces: where its channels have their names; those of its own mode when empty.
        args: settings for ``--output-args``; None: it takes none.
        prepare: called with the settings of the program before it starts a PVA server; raises
            `TransportError`.
    """

    make: Callable[[PublisherOptions], Publisher]
    help: str = ""
    hosts: bool = False
    shared: bool = False
    announces: bool = True
    spaces: tuple[str, ...] = ()
    args: type[Settings] | None = None
    prepare: Callable[[Settings], None] = _nothing_to_do_for


@dataclass(frozen=True, slots=True)
class Mode:
    """A transport, as programs and settings see it.

    Attributes:
        name: as users write it.
        input: how stages receive; None: they cannot.
        output: how stages publish; None: they cannot.
        source: how a program publishes that makes its frames itself, as the simulator does.
        reach: how far apart its two ends may be; a mode within a process is not shown to users.
        rank: its place in lists of modes; those of one rank are in the order of their names.
    """

    name: str
    input: InputMode | None = None
    output: OutputMode | None = None
    source: OutputMode | None = None
    reach: Literal["process", "host", "network"] = "network"
    rank: int = 100
