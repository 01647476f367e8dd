"""Calls to and from programs of other make, and services that come, go and come again."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any, cast

import pvaccess as pva
import pytest

from pvapy_stream.errors import TransportError
from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.pva.net import client
from pvapy_stream.pva.net.client_errors import RefusedError
from pvapy_stream.pva.ntndarray import MARK
from pvapy_stream.pva.put_objects import PutReader, PutWriter, ValueObject
from pvapy_stream.pva.wire.types import AnyValue, Structure
from pvapy_stream.transport.put import PutPublisher
from pvapy_stream.transport.pvas import PutReceiver
from pvapy_stream.transport.rpc import RpcPublisher, RpcReceiver
from tests.support import PATIENCE, image, wait_until
from tests.transport.pairs import BUILDER, Ids, make_object


class Sending:
    """Publishes images, one after the other, in a thread."""

    def __init__(self, publisher: Any, numbers: range, time_ns: int = 0) -> None:
        self.failed: list[str] = []
        self._publisher = publisher
        self._numbers = numbers
        self._time_ns = time_ns  # from one image to the next
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for number in self._numbers:
            stamp = 10**18 + number * self._time_ns
            try:
                self._publisher.publish(
                    BUILDER.build(Frame.of(number, image(number), time_ns=stamp))
                )
            except TransportError as error:
                self.failed.append(str(error))

    def end(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._publisher.stop()


def receiver_of(mode: str, channel: str) -> Any:
    if mode == "rpc":
        return RpcReceiver(channel)
    return PutReceiver(pva.PvaServer(), channel, BUILDER.prototype)


MODES = pytest.mark.parametrize(("mode", "kind"), [("rpc", RpcPublisher), ("put", PutPublisher)])


@MODES
def test_nothing_is_lost_when_the_other_side_comes_within_the_limit(
    prefix: str, mode: str, kind: Any
) -> None:
    channel, got = f"{prefix}in", Ids()
    publisher = kind(channel, PATIENCE)
    publisher.start()
    sending = Sending(publisher, range(1, 201))
    time.sleep(2)
    receiver = receiver_of(mode, channel)
    receiver.start(got)
    sending.end()
    receiver.stop()
    assert sending.failed == []
    assert got.ids == list(range(1, 201))


@MODES
def test_what_is_queued_is_kept_when_it_comes_later(prefix: str, mode: str, kind: Any) -> None:
    channel, got = f"{prefix}in", Ids()
    publisher = kind(channel, 0.2)
    publisher.start()
    # Ten images a second, all of which wait already.
    sending = Sending(publisher, range(1, 201), 10**8)
    wait_until(lambda: len(sending.failed) >= 3)
    receiver = receiver_of(mode, channel)
    receiver.start(got)
    sending.end()
    receiver.stop()
    assert "is not known" not in "".join(sending.failed)
    # All others arrive, in their order, and each failure is told.
    assert got.ids == list(range(len(sending.failed) + 1, 201))
    assert len(sending.failed) < 100
    assert publisher.counts().errors >= len(sending.failed)


@MODES
def test_a_side_that_goes_and_comes_again_costs_what_was_under_way_at_most(
    prefix: str, mode: str, kind: Any
) -> None:
    channel, got = f"{prefix}in", Ids()
    publisher = kind(channel, PATIENCE)
    publisher.start()
    receiver = receiver_of(mode, channel)
    receiver.start(got)
    sending = Sending(publisher, range(1, 1001))
    for turn in range(3):
        wait_until(lambda turn=turn: len(got.ids) > 50 * (turn + 1))
        receiver.stop()
        receiver = receiver_of(mode, channel)
        receiver.start(got)
    sending.end()
    receiver.stop()
    assert len(sending.failed) <= 3
    assert got.ids == sorted(set(got.ids))
    assert len(got.ids) >= 1000 - len(sending.failed)


def test_the_search_begins_with_the_start(prefix: str) -> None:
    channel, got = f"{prefix}in", Ids()
    publisher = RpcPublisher(channel, 5)
    publisher.start()
    receiver = RpcReceiver(channel)
    receiver.start(got)
    assert publisher.remote.wait(PATIENCE)
    publisher.publish(make_object(1))
    assert got.ids == [1]
    publisher.stop()
    receiver.stop()


def test_a_structure_that_differs_is_named(prefix: str) -> None:
    receiver = receiver_of("put", f"{prefix}in")
    receiver.start(Ids())
    publisher = PutPublisher(f"{prefix}in", PATIENCE)
    began = time.monotonic()
    other = {**make_object(1).getStructureDict(), "uniqueId": pva.LONG, "more": pva.INT}
    with pytest.raises(TransportError, match=r"differs in uniqueId, more.*getInputPvObjectType"):
        publisher.publish(pva.PvObject(other))
    assert time.monotonic() - began < PATIENCE
    assert publisher.counts().errors == 1
    publisher.stop()
    receiver.stop()


CALLERS = {
    "pvapy": """
        import sys, pvaccess as pva
        from tests.transport.pairs import make_object
        client = pva.RpcClient(sys.argv[1])
        client.setTimeout(20)
        for number in range(1, 6):
            print(dict(client.invoke(make_object(number))))
        try:
            print(dict(client.invoke(make_object(0))))
        except pva.PvaException as error:
            print(error)
        """,
    "p4p": """
        import sys, numpy as np
        from p4p.client.thread import Context
        from p4p.nt import NTNDArray
        context = Context("pva", nt=False)
        for number in [1, 2, 3, 4, 5, 0]:
            value = NTNDArray().wrap(np.arange(24, dtype="u1").reshape(4, 6))
            value.uniqueId = number
            answer = context.rpc(sys.argv[1], value, timeout=20)
            print(answer.todict())
        context.close()
        """,
}


@pytest.mark.parametrize("who", CALLERS)
def test_callers_of_other_make(prefix: str, who: str) -> None:
    got: list[Any] = []

    def take(obj: Any) -> None:
        if not obj["uniqueId"]:
            raise ValueError("not this one")
        got.append(obj)

    receiver = RpcReceiver(f"{prefix}service")
    receiver.start(take)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CALLERS[who]), f"{prefix}service"],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    receiver.stop()
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert all("'status'" in line and "0" in line for line in shown[:5])
    assert "'status': -1" in shown[5]
    assert "not this one" in shown[5]
    assert [obj["uniqueId"] for obj in got] == [1, 2, 3, 4, 5]
    assert frame_of(got[0]).image.shape == (4, 6)


def test_objects_become_values_and_objects_again() -> None:
    writer = PutWriter()
    obj = make_object(2, 64)
    wire = writer.write(obj)
    assert isinstance(wire.type, Structure)
    held = cast("dict[str, Any]", wire.value)
    made = PutReader(wire.type).build(held)
    # The binding names the value of a variant, which the protocol does not.
    assert re.sub(r"(int|string) value ", r"\1  ", str(made)) == re.sub(
        r"(int|string) value ", r"\1  ", str(obj)
    )
    # Pixels are not copied.
    assert not held["value"].value.flags.owndata
    lazy = ValueObject(PutReader(wire.type), held)
    assert writer.write(lazy).value is held
    lazy.mark()
    marked: Any = writer.write(lazy).value
    assert marked["timeStamp"]["userTag"] == MARK


def test_an_argument_that_no_object_can_be_made_of_is_refused_and_the_next_is_taken(
    prefix: str,
) -> None:
    got: list[int] = []
    service = RpcReceiver(f"{prefix}service")
    service.start(lambda obj: got.append(obj["uniqueId"]))
    remote = client.channel(f"{prefix}service")
    # The binding has no structure without fields in another.
    odd = Structure("", (("inside", Structure()),))
    with pytest.raises(RefusedError, match="no PvObject"):
        remote.call_with(AnyValue(odd, {"inside": {}}))
    remote.close()
    caller = RpcPublisher(f"{prefix}service", 5.0)
    caller.publish(make_object(1))
    caller.stop()
    service.stop()
    assert got == [1]
    assert service.counts().errors == 1
