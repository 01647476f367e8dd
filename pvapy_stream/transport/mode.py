"""The declaration of a transport: its mode, as ``MODE``.

A transport is one file: ``NAME_mode.py`` in this folder, or a module of another package that an
entry point of the group ``pvapy_stream.transports`` names as ``NAME = package.module:MODE``. The
file is imported when its mode is used or listed, so it imports its libraries in the functions
that need them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field

from pvapy_stream.base_settings import Settings
from pvapy_stream.errors import TransportError
from pvapy_stream.transport.policy import RUNS

if TYPE_CHECKING:
    import pvaccess as pva

    from pvapy_stream.pva.monitor_request import Distributor
    from pvapy_stream.transport.ports import Publisher, Receiver

CHECK = (
    "check its name, that its program runs, and that EPICS_PVA_ADDR_LIST includes its host"
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


class ReceiverOptions(Struct, frozen=True):
    """Options of a receiver.

    Attributes:
        channel: name of the channel.
        server: the program's PVA server; None in programs without one.
        fields: fields to receive, ``a,b`` or ``field(a,b)``; all when empty.
        id_field: field with the object id; "" if the program does not need it.
        pv_request: a complete PV request, instead of one made from the other attributes.
        queue_size: size of the sender's queue; 0: its default.
        distributor: options for the source's distributor.
        policy: how the consumers of a group divide the objects, see `transport.policy`.
        input_type: returns an object of the structure to host, or None for images.
        number: id of the stage, or of the producer it receives from.
        args: ``--input-args``, checked by the settings that the mode declares.
        library: library for PVAccess, as in `PvaLibrarySettings`.
        dealer: channel in shared memory of this command's dealer, if the source's server has no
            distributor; "" for none.
        dealt: whether the dealer is already in use.
        unshared: called with the reason if the source's server cannot give a share, in a thread of
            the transport; None: it is an error of the receiver.
    """

    channel: str
    server: pva.PvaServer | None = None
    fields: str = ""
    id_field: str = ""
    pv_request: str = ""
    queue_size: int = 0
    distributor: Distributor | None = None
    policy: str = RUNS
    input_type: Callable[[], pva.PvObject | None] = _no_type
    number: int = 0
    args: Mapping[str, object] = field(default_factory=dict[str, object])
    library: Literal["auto", "own", "binding"] = "binding"
    dealer: str = ""
    dealt: bool = False
    unshared: Callable[[str], None] | None = None


class PublisherOptions(Struct, frozen=True):
    """Options of a publisher.

    Attributes:
        channel: name of the channel.
        server: the program's PVA server; None in programs that have none.
        id_field: field with the object id.
        timeout: longest time for which an object is retried if the other side fails, s.
        settings: settings of the program, with the options of the mode.
        number: id of the stage.
        args: ``--output-args``, checked by the settings that the mode declares.
    """

    channel: str
    server: pva.PvaServer | None = None
    id_field: str = "uniqueId"
    timeout: float = 5.0
    settings: Settings | None = None
    number: int = 0
    args: Mapping[str, object] = field(default_factory=dict[str, object])


def server_of(what: ReceiverOptions | PublisherOptions) -> pva.PvaServer:
    """The PVA server to host a channel on.

    Raises:
        TransportError: the program has none.
    """
    if what.server is None:
        raise TransportError(
            f"cannot host channel {what.channel}: this program has no PVA server; choose a mode"
            " that does not need one, such as shm"
        )
    return what.server


class InputMode(Struct, frozen=True):
    """How a mode receives.

    Attributes:
        make: creates the receiver; raises `TransportError`.
        help: description for the help of ``--input-mode``.
        lazy: its receiver delivers `LazyObject`s.
        waits: its senders wait until an object is taken, so that it need not be rejected.
        hosts: it hosts the input on this program's PVA server; clients connect to it.
        shows_value: it begins with the current object, which is not an update.
        opens: its receiver itself makes an object that opens the stream, before an image comes.
        monitors: it monitors a channel of a server, which exists also while nothing is published.
        images: ``NAME://CHANNEL`` is a stream of images for buffer and writer, and ``NAME`` a
            provider of the mirror: it needs only the name of a channel.
        policies: its senders divide objects by the policies of `transport.policy`.
        default_fields: fields to receive if none are given; all if empty.
        spaces: namespaces of its channels; that of its own mode if empty.
        sender: output mode of the program that publishes to it; its own name if empty.
        args: settings for ``--input-args``; None: it takes none.
        several: returns the error of these arguments for several stages of one command, or "".
        absent: what to check if a source is not found; ``{channel}`` is replaced by its name.
        prepare: called before a program starts a PVA server; raises `TransportError`.
    """

    make: Callable[[ReceiverOptions], Receiver]
    help: str
    lazy: bool = False
    waits: bool = False
    hosts: bool = False
    shows_value: bool = False
    opens: bool = False
    monitors: bool = False
    images: bool = False
    policies: bool = False
    default_fields: str = ""
    spaces: tuple[str, ...] = ()
    sender: str = ""
    args: type[Settings] | None = None
    several: Callable[[Mapping[str, object]], str] = _no_problem
    absent: str = CHECK
    prepare: Callable[[], None] = _nothing_to_do


class OutputMode(Struct, frozen=True):
    """How a mode publishes.

    Attributes:
        make: creates the publisher; raises `TransportError` or `SettingsError`.
        help: description for the help of ``--output-mode``.
        hosts: it hosts the output on this program's PVA server.
        shared: several stages may publish on one channel: it belongs to the receiver.
        announces: receivers of its output can find the PVA channel ``OUTPUT:filtered``.
        pools: its large objects lie in payload pools, so that the status has `poolStats`.
        spaces: namespaces of its channels; that of its own mode if empty.
        args: settings for ``--output-args``; None: it takes none.
        prepare: called with the settings of the program before it starts a PVA server; raises
            `TransportError`.
    """

    make: Callable[[PublisherOptions], Publisher]
    help: str = ""
    hosts: bool = False
    shared: bool = False
    announces: bool = True
    pools: bool = False
    spaces: tuple[str, ...] = ()
    args: type[Settings] | None = None
    prepare: Callable[[Settings], None] = _nothing_to_do_for


class Mode(Struct, frozen=True):
    """A transport as seen by programs and settings.

    Attributes:
        name: name for users.
        input: how stages receive; None: they cannot.
        output: how stages publish; None: they cannot.
        source: how a program that makes its own frames publishes, such as the simulator.
        reach: how far apart its two ends may be; a mode within one process is not listed for users.
        rank: its position in lists of modes; equal ranks are in the order of names.
    """

    name: str
    input: InputMode | None = None
    output: OutputMode | None = None
    source: OutputMode | None = None
    reach: Literal["process", "host", "network"] = "network"
    rank: int = 100
