"""Messages are read as they were written, and requests as their text says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvapy_stream.errors import WireError
from pvapy_stream.pva.wire import connecting, operations, request, searching
from pvapy_stream.pva.wire.buffers import Reader, Writer
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.status import OK, Severity, Status
from pvapy_stream.pva.wire.stream import Command, message
from pvapy_stream.pva.wire.types import AnyValue, Array, Kind, Scalar, Structure
from tests.pva.wire.support import patient, same, structures
from tests.pva.wire.support import values as values_of

# Types in types have long descriptions.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

STATUS = Status(Severity.ERROR, "no", "here")
IDENTITY = bytes(range(12))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    "sent",
    [
        OK, STATUS, Status(Severity.WARNING, ""),
        connecting.Offer(), connecting.Offer(1, 2, ()),
        connecting.ChannelRequest(((1, "a"), (2**32 - 1, "ä" * 300))),
        connecting.ChannelReply(1, 2), connecting.ChannelReply(1, 0, STATUS),
        connecting.ChannelEnd(3, 4), connecting.RequestText(7, 2, "careful"),
        operations.RequestHead(1, 2, operations.INIT), operations.RequestId(1, 2),
        operations.FieldQuestion(1, 2, "a.b"), operations.Reply(5, 0x48, STATUS),
        searching.Search(1, 0x81, "127.0.0.1", 5076, ("tcp",), ((1, "a"), (2, "b"))),
        searching.Search(1, 0, searching.ANY, 1, ()), searching.Search(1, 0, "fe80::1", 1),
        searching.SearchReply(IDENTITY, 9, searching.ANY, 5075, True, (1, 2)),
        searching.Beacon(IDENTITY, 255, 65535, "10.0.0.1", 5075),
    ],
    ids=lambda sent: type(sent).__name__,
)  # fmt: skip
def test_what_is_written_is_read(sent: Any, big: bool) -> None:
    writer = Writer(big)
    sent.write(writer)
    reader = Reader(writer.joined(), big)
    assert type(sent).read(reader) == sent
    reader.end()
    for end in range(len(writer)):
        short = Reader(writer.joined()[:end], big)
        if not isinstance(sent, searching.Beacon) or end < len(writer) - 1:
            with pytest.raises(WireError):
                type(sent).read(short)


@pytest.mark.parametrize(
    "sent",
    [connecting.Choice(), connecting.Choice(1, 2, 3, connecting.CA, "me", "here")],
)
def test_a_choice(sent: connecting.Choice) -> None:
    writer = Writer()
    sent.write(writer, Outgoing())
    assert connecting.Choice.read(Reader(writer.joined()), Incoming()) == sent


@pytest.mark.parametrize("window", [0, 7])
def test_setting_up_a_monitor(window: int) -> None:
    sent = operations.MonitorSetup(request.parse("record[pipeline=true]field(a)"), window)
    writer = Writer()
    sent.write(writer, Outgoing())
    flags = operations.INIT | (operations.PIPELINE if window else 0)
    assert operations.MonitorSetup.read(flags, Reader(writer.joined()), Incoming()) == sent


@patient
@given(st.data(), structures)
def test_updates(data: st.DataObject, kind: Structure) -> None:
    value = data.draw(values_of(kind))
    writer = Writer()
    operations.MonitorUpdate(3, 1, value, 5).write(kind, writer, Outgoing())
    reader = Reader(writer.joined())
    assert (reader.number("I"), reader.byte()) == (3, 0)
    found = operations.MonitorUpdate.read(3, kind, reader, Incoming(), {})
    assert (found.changed, found.overrun, same(found.value, value)) == (1, 5, True)


def test_a_datagram_and_what_is_passed_on() -> None:
    sent = searching.Search(1, searching.UNICAST, searching.ANY, 9, channels=((1, "a"),))
    writer = Writer()
    sent.passed_on("10.1.2.3").write(writer)
    data = searching.origin_tag("127.0.0.1") + b"".join(message(Command.SEARCH, writer))
    tag, found = searching.datagram(data)
    assert tag.command == Command.ORIGIN_TAG
    assert searching.read_address(searching.read_datagram(tag)) == "127.0.0.1"
    read = searching.Search.read(searching.read_datagram(found))
    assert (read.flags, read.address, read.port, read.channels) == (0, "10.1.2.3", 9, sent.channels)
    for end in range(1, len(data)):
        if end != 24:
            with pytest.raises(WireError):
                searching.datagram(data[:end])


INT = Scalar(Kind.INT)
TIME = Structure("time_t", (("s", INT), ("ns", INT), ("tag", INT)))
KIND = Structure("top", (("value", Array(Kind.INT)), ("time", TIME), ("id", INT)))


def names_of(kind: Structure) -> Any:
    return {n: names_of(k) if isinstance(k, Structure) else 0 for n, k in kind.fields}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", names_of(KIND)),
        ("field()", names_of(KIND)),
        ("field(_[pydistributor=group:g])", names_of(KIND)),
        ("id,value", {"value": 0, "id": 0}),
        ("field(time)", {"time": names_of(TIME)}),
        ("record[queueSize=3]field(time.tag, time.s, no)", {"time": {"s": 0, "tag": 0}}),
        ("field(time{s,tag},id[a=b,c=d])", {"time": {"s": 0, "tag": 0}, "id": 0}),
    ],
)
def test_selections(text: str, names: Any) -> None:
    assert names_of(request.selected(KIND, request.parse(text))) == names


def test_options_and_what_cannot_be_selected() -> None:
    asked = request.parse("record[queueSize=10,pipeline=true]field(id[key=some:text;more=1])")
    assert request.options(asked) == {"queueSize": "10", "pipeline": "true"}
    with pytest.raises(WireError, match="none of the fields no"):
        request.selected(KIND, request.parse("no"))
    for text in ("field(a", "record[a=b", "field(a)]", "a?b"):
        with pytest.raises(WireError):
            request.parse(text)
    assert request.selected(KIND, AnyValue()) is KIND


@pytest.mark.parametrize(
    ("text", "bits", "part"),
    [("time.tag,id", 0b1000000, 0b1000), ("time.tag,id", 0b100000, 0b100), ("time", 0b100, 0b10)],
)
def test_bits_of_a_selection(text: str, bits: int, part: int) -> None:
    kind = request.selected(KIND, request.parse(text))
    assert request.narrowed(KIND, bits, kind) == part
    assert request.widened(kind, part, KIND) == bits


def test_whole_bits_and_merging() -> None:
    kind = request.selected(KIND, request.parse("time.tag,id"))
    assert request.narrowed(KIND, 1, kind) == 1
    assert request.widened(kind, 1, KIND) == 0b1100000
    held = {"value": [1], "time": {"s": 1, "ns": 2, "tag": 3}, "id": 4}
    new = request.merged(held, {"time": {"tag": 9}, "id": 5})
    assert new == {"value": [1], "time": {"s": 1, "ns": 2, "tag": 9}, "id": 5}
    assert held["time"]["tag"] == 3
