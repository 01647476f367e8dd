"""Outputs on our own sockets, beside those of the binding: the same for every client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.errors import TransportError
from pvapy_stream.frame import ColorMode, Frame
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.pva.ntndarray import ObjectBuilder, to_frame
from pvapy_stream.pva.objects import is_marked, mark
from pvapy_stream.transport.hosted import HostedPublisher
from pvapy_stream.transport.own_hosted import OwnHostedPublisher
from pvapy_stream.transport.own_server import host
from pvapy_stream.transport.ports import Publisher
from pvapy_stream.transport.pva_library import PvaSettings
from tests.pva.net.test_monitors import Monitor
from tests.support import BIN, PATIENCE, image, pvget, pvput, wait_until

BUILDER = ObjectBuilder()
Make = Callable[..., Publisher]


@pytest.fixture
def make(prefix: str) -> Iterator[Make]:
    server = pva.PvaServer()
    server.start()
    made: list[Publisher] = []

    def new(library: str = "own", name: str = "image", **settings: Any) -> Publisher:
        channel = f"{prefix}{name}"
        made.append(
            OwnHostedPublisher(channel, PvaSettings.of(**settings), server)
            if library == "own"
            else HostedPublisher(server, channel)
        )
        return made[-1]

    yield new
    for one in made:
        one.stop()
    server.stop()


_followed: list[Monitor] = []


def follow(channel: str, asked: str, window: int = 0) -> Monitor:
    """A monitor, on the bytes."""
    _followed.append(Monitor(host.port, channel, asked, window))
    return _followed[-1].start()


@pytest.fixture(autouse=True)
def _all_are_closed() -> Iterator[None]:
    yield
    while _followed:
        _followed.pop().client.link.close()


def frame(number: int, side: int = 8, **more: Any) -> Frame:
    return Frame.of(number, image(number, side, side), time_ns=10**18 + number, **more)


def lazy(number: int, side: int = 8, **more: Any) -> LazyObject:
    return LazyObject(frame(number, side, **more), BUILDER.build)


class Client:
    """A client of pvapy that keeps ids."""

    def __init__(self, channel: str, asked: str = "record[queueSize=1000]field()") -> None:
        self.ids: list[int] = []
        self.objects: list[Any] = []
        self.keeps = False
        self._channel = pva.Channel(channel)
        self._channel.subscribe("keep", self._keep)
        self._channel.startMonitor(asked)
        wait_until(lambda: self.ids)

    def _keep(self, obj: Any) -> None:
        if self.keeps:
            self.objects.append(obj.copy())
        self.ids.append(obj.getInt("uniqueId"))

    def close(self) -> None:
        self._channel.stopMonitor()
        self._channel.unsubscribe("keep")


@pytest.fixture
def client() -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def new(*args: Any) -> Client:
        made.append(Client(*args))
        return made[-1]

    yield new
    for one in made:
        one.close()


ATTRIBUTES: dict[str, Any] = {
    "int": 1, "long": 2**40, "real": 1.5, "text": "Grüße", "flag": True, "reals": np.arange(3.0),
    "bytes": np.array([-1, 2], np.int8), "words": ["a", "b"], "none": None,
}  # fmt: skip


@pytest.mark.parametrize("kind", [
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64",
    "bool",
])  # fmt: skip
def test_images_of_every_type_are_as_with_the_binding(make: Make, prefix: str, kind: str) -> None:
    pixels = image(3, 5, 7).astype(kind)
    shown = []
    for library in ("own", "binding"):
        publisher = make(library, library)
        for number in (1, 2, 3):
            made = Frame.of(
                number, pixels, time_ns=10**18 + 7 * number, attributes={**ATTRIBUTES, "n": number}
            )
            publisher.publish(
                LazyObject(made, BUILDER.build) if library == "own" else BUILDER.build(made)
            )
        obj = pva.Channel(f"{prefix}{library}").get("field()")
        shown.append((obj.toDict(), obj.getStructureDict(), to_frame(obj)))
    (own, structure, got), (binding, structure2, _) = shown
    assert structure == structure2
    assert np.array_equal(got.image, pixels)
    for one in (own, binding):
        one.pop("value")
        for attribute in one["attribute"]:
            value = attribute["value"][0]["value"]
            if isinstance(value, np.ndarray):
                attribute["value"] = (value.dtype.str, value.tolist())
    assert own == binding


def test_colour_and_compressed_images(make: Make, client: Any) -> None:
    publisher = make()
    publisher.open(mark(lazy(0)))
    got = client(publisher.channel)
    got.keeps = True
    colours = Frame.of(1, np.arange(60, dtype=np.uint8).reshape(4, 5, 3), color_mode=ColorMode.RGB2)
    packed = Frame(
        2, np.arange(30, dtype=np.uint8), (4, 4), dtype=np.dtype("uint16"), codec="blosc"
    )
    smaller = Frame(
        3, np.arange(20, dtype=np.uint8), (4, 4), dtype=np.dtype("uint16"), codec="blosc"
    )
    for one in (colours, packed, smaller, frame(4)):
        publisher.publish(LazyObject(one, BUILDER.build))
    wait_until(lambda: len(got.objects) == 4)
    first, second, third, last = map(to_frame, got.objects)
    assert np.array_equal(first.image, colours.image)
    for one, like in ((second, packed), (third, smaller)):
        assert (one.codec, one.dtype, one.stored_shape) == ("blosc", like.dtype, (4, 4))
        assert np.array_equal(one.payload, like.payload)
    assert [o["compressedSize"] for o in got.objects[1:3]] == [30, 20]
    assert last.codec == ""
    assert np.array_equal(last.image, image(4, 8, 8))


P4P = """
import queue, sys
from p4p.client.thread import Context
context = Context("pva", nt=False)
"""


def outside(text: str, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", P4P + textwrap.dedent(text), *args],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_p4p_sees_the_same_type_and_follows(make: Make, prefix: str) -> None:
    for library in ("own", "binding"):
        make(library, library).open(BUILDER.build(frame(0)))
    assert outside(
        """
        a, b = (context.get(name, timeout=20).type() for name in sys.argv[1:])
        print(a.aspy() == b.aspy(), a.getID())
        context.close()
        """,
        f"{prefix}own", f"{prefix}binding",
    ) == "True epics:nt/NTNDArray:1.0\n"  # fmt: skip
    script = """
    got = queue.Queue()
    s = context.monitor(sys.argv[1], got.put, request=sys.argv[2])
    print("up", got.get(timeout=60).uniqueId, flush=True)
    for _ in range(20):
        v = got.get(timeout=60)
        # What is not sent again stays as it was.
        assert v.value.size == 300 * 300 and v.value[0] == v.uniqueId, v
        assert [d.size for d in v.dimension] == [300, 300] and v.attribute[0].value == 5, v
    print("all", flush=True)
    s.close(); context.close()
    """
    publisher = make("own", "followed")
    publisher.open(lazy(0, 300))
    program = subprocess.Popen(
        [sys.executable, "-c", P4P + textwrap.dedent(script), f"{prefix}followed",
         "record[queueSize=50]field()"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None
    assert program.stdout.readline() == "up 0\n"
    for number in range(1, 21):
        publisher.publish(lazy(number, 300, attributes={"n": 5}))
    assert program.communicate(timeout=PATIENCE)[0] == "all\n"


def test_the_tools_of_epics(make: Make) -> None:
    publisher = make()
    publisher.open(mark(lazy(0)))
    publisher.publish(lazy(7))
    assert pvget(publisher.channel)["uniqueId"] == 7
    assert "not allowed" in pvput(publisher.channel, uniqueId="8")
    assert pvget(publisher.channel)["uniqueId"] == 7

    def run(*words: object) -> str:
        return subprocess.run(
            [BIN / str(words[0]), *map(str, words[1:])],
            capture_output=True, text=True, timeout=PATIENCE,
        ).stdout  # fmt: skip

    assert "epics:nt/NTAttribute:1.0[] attribute" in run("pvinfo", "-w", "10", publisher.channel)
    assert publisher.channel in run("pvlist", f"127.0.0.1:{host.port}").split()
    with subprocess.Popen(
        [BIN / "pvmonitor", "-r", "field(uniqueId)", publisher.channel],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as program:  # fmt: skip
        try:
            assert program.stdout is not None
            assert [program.stdout.readline().split()[-1] for _ in "ab"][1] == "7"
            publisher.publish(lazy(8))
            assert [program.stdout.readline().split()[-1] for _ in "ab"][1] == "8"
        finally:
            # The program that was started has started another.
            os.killpg(program.pid, signal.SIGKILL)


# What clients ask for, where, and how many of 40 objects are delivered in all.
CONFIGURATIONS = {
    "two share": (["group:g;trigger:uniqueId"] * 2, "_", 40),
    "runs": (["group:g;updates:3;trigger:uniqueId"] * 3, "_", 40),
    "sets": ([f"group:g;set:{s};updates:2;trigger:uniqueId" for s in "aabbc"], "_", 68),
    "sets, one of each": (
        [f"set:{s};mode:one;updates:2;trigger:uniqueId" for s in "aabb"], "_", 40,
    ),
    "two groups": ([f"group:{g};trigger:uniqueId" for g in "xxyyy"], "_", 80),
    "a field": (["group:g;trigger:uniqueId;updates:4"] * 2, "uniqueId", 40),
}  # fmt: skip


def runs_of_ids(publisher: Publisher, client: Any, name: str) -> list[list[int]]:
    options, field, delivered = CONFIGURATIONS[name]
    publisher.open(BUILDER.build(frame(0)))
    alone = client(publisher.channel)
    clients = [
        client(publisher.channel, f"record[queueSize=100]field({field}[pydistributor={one}],value)")
        for one in options
    ]
    for number in range(1, 41):
        publisher.publish(BUILDER.build(frame(number)))
    wait_until(lambda: alone.ids[-1:] == [40])
    wait_until(lambda: sum(len(one.ids) - 1 for one in clients) >= delivered)
    return [one.ids for one in clients]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_same_runs_of_ids_as_the_plugin_gives(make: Make, client: Any, name: str) -> None:
    # The groups of the plugin are those of a process: it is asked first, and alone.
    binding = runs_of_ids(make("binding", "binding"), client, name)
    own = runs_of_ids(make("own", "own"), client, name)
    assert own == binding
    assert sum(map(len, own)) == CONFIGURATIONS[name][2] + len(own)


class Reader(threading.Thread):
    """Takes all updates of a monitor, on the bytes."""

    def __init__(self, channel: str, last: int, asked: str = "record[queueSize=1000]") -> None:
        super().__init__(daemon=True)
        self.monitor = follow(channel, asked)
        self.ids: list[int] = []
        self.overruns = 0
        self._last = last
        self._take()
        self.start()

    def _take(self) -> None:
        update = self.monitor.next()
        self.overruns += update.overrun != 0
        self.ids.append(int(update.value["uniqueId"]))  # pyright: ignore

    def run(self) -> None:
        while self.ids[-1] != self._last:
            self._take()


def waiting(publisher: Publisher) -> list[int]:
    """How many updates wait for each subscriber."""
    hosted = publisher._hosted  # pyright: ignore
    return sorted(len(one._waiting) for one in hosted.channel.monitors)


def test_a_slow_client_costs_the_others_nothing(make: Make) -> None:
    publisher = make()
    publisher.open(lazy(0, 300))
    slow = follow(publisher.channel, "record[queueSize=7]")
    slow.next()
    others = [Reader(publisher.channel, 400) for _ in range(3)]
    assert publisher.subscribers == 4
    for number in range(1, 401):
        publisher.publish(lazy(number, 300))
    for one in others:
        one.join(PATIENCE)
        assert one.ids == list(range(401))
        assert not one.overruns
    # What waits for the slow one is its queue, and no more.
    assert waiting(publisher) == [0, 0, 0, 7]
    ids = []
    while not ids or ids[-1] != 400:
        update = slow.next()
        ids.append(update.value["uniqueId"])
    assert ids == sorted(set(ids))
    assert len(ids) < 400
    assert update.overrun
    assert publisher.counts().rejected == 0
    slow.client.link.close()
    wait_until(lambda: publisher.subscribers == 3)
    assert publisher.clients == 3
    # One that has opened the channel is a client.
    idle = pva.Channel(publisher.channel)
    idle.get("field(uniqueId)")
    assert (publisher.clients, publisher.subscribers) == (4, 3)


def test_a_client_that_acknowledges_and_pauses_at_random_loses_nothing(make: Make) -> None:
    publisher = make(pva_timeout=60)
    publisher.open(lazy(0, 100))
    script = """
    import random, time
    chance = random.Random(5)
    got = queue.Queue()
    def take(v):
        if chance.random() < 0.01:
            time.sleep(chance.random() * 0.1)
        got.put(v.uniqueId)
    s = context.monitor(sys.argv[1], take, request="record[pipeline=true,queueSize=10]field()")
    print("up", got.get(timeout=60), flush=True)
    ids = [got.get(timeout=60) for _ in range(2000)]
    print(ids == list(range(1, 2001)), flush=True)
    s.close(); context.close()
    """
    program = subprocess.Popen(
        [sys.executable, "-c", P4P + textwrap.dedent(script), publisher.channel],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None
    assert program.stdout.readline() == "up 0\n"
    for number in range(1, 2001):
        publisher.publish(lazy(number, 100))
    assert program.communicate(timeout=PATIENCE)[0] == "True\n"
    assert publisher.counts().rejected == 0


def test_a_client_that_takes_nothing_is_waited_for_once(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = make(pva_timeout=0.3)
    publisher.open(lazy(0))
    stuck = follow(publisher.channel, "record[pipeline=true,queueSize=4]", 2)
    assert stuck.next().value["uniqueId"] == 0
    other = Reader(publisher.channel, 50)
    for number in range(1, 51):
        publisher.publish(lazy(number))
    other.join(PATIENCE)
    assert other.ids == list(range(51))
    # One is in its window, four in its queue.
    assert publisher.counts().rejected == 45
    assert caplog.text.count("takes nothing for 0.3 s") == 1
    stuck.acknowledge(100)
    assert [stuck.next().value["uniqueId"] for _ in range(5)] == [1, 2, 3, 4, 5]
    publisher.publish(lazy(51))
    update = stuck.next()
    assert (update.value["uniqueId"], update.overrun != 0) == (51, True)
    assert publisher.counts().rejected == 45
    publisher.reset_counts()
    assert publisher.counts().rejected == publisher.counts().published == 0


def test_who_is_waited_for_may_go_and_the_publisher_may_stop(make: Make) -> None:
    publisher = make(pva_timeout=600)
    publisher.open(lazy(0))
    for ends in ("client", "publisher"):
        stuck = follow(publisher.channel, "record[pipeline=true,queueSize=2]", 1)
        stuck.next()
        thread = threading.Thread(
            target=lambda: [publisher.publish(lazy(number)) for number in range(1, 4)], daemon=True
        )
        thread.start()
        wait_until(lambda: waiting(publisher) == [2])
        assert thread.is_alive()
        if ends == "client":
            stuck.client.link.close()
        else:
            publisher.stop()
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize(("policy", "ids"), [("drop-newest", [1, 2]), ("drop-oldest", [8, 9])])
def test_what_is_dropped_is_counted(make: Make, policy: str, ids: list[int]) -> None:
    publisher = make(pva_overflow=policy)
    publisher.open(lazy(0))
    slow = follow(publisher.channel, "record[pipeline=true,queueSize=2]", 1)
    slow.next()
    for number in range(1, 10):
        publisher.publish(lazy(number))
    assert publisher.counts().rejected == 7
    slow.acknowledge(2)
    assert [slow.next().value["uniqueId"] for _ in range(2)] == ids


def pixels_of(obj: Any) -> list[int]:
    return sorted(set(obj["value"].value.tolist()))


@pytest.mark.parametrize("reused", [True, False])
def test_an_array_that_a_processor_writes_to_again(make: Make, reused: bool) -> None:
    publisher = make()
    publisher.open(lazy(0, 50))
    slow = follow(publisher.channel, "record[pipeline=true,queueSize=50]", 1)
    slow.next()
    own = np.zeros((50, 50), np.uint8)
    addresses = []
    for number in range(1, 11):
        if not reused:
            own = np.zeros((50, 50), np.uint8)
        own[:] = number
        made = Frame.of(number, own, time_ns=1)
        addresses.append(own.ctypes.data)
        if not reused:
            # As a processor that returns: nobody else has the array.
            own = np.zeros(0)
        publisher.publish(LazyObject(made, BUILDER.build))
        del made
    waits = [
        np.frombuffer(update.chunk(0)[-1], np.uint8).ctypes.data
        for one in publisher._hosted.channel.monitors  # pyright: ignore
        for update, _, _ in one._waiting
    ]
    assert (waits == addresses) == (not reused)
    slow.acknowledge(50)
    assert [pixels_of(slow.next().value) for _ in range(10)] == [[n] for n in range(1, 11)]


def test_the_arrays_of_objects_are_what_they_were_when_they_were_published(make: Make) -> None:
    publisher = make()
    obj = pva.PvObject(
        {"x": [pva.INT], "y": {"z": [pva.DOUBLE]}, "uniqueId": pva.INT},
        {"x": [0] * 2000, "y": {"z": [0.0] * 2000}, "uniqueId": 0},
    )
    publisher.open(obj)
    slow = follow(publisher.channel, "record[pipeline=true,queueSize=50]", 1)
    slow.next()
    for number in range(1, 11):
        obj["x"] = [number] * 2000
        obj["y.z"] = [number / 2] * 2000
        obj["uniqueId"] = number
        publisher.publish(obj)
    slow.acknowledge(50)
    for number in range(1, 11):
        value = slow.next().value
        assert value["x"].tolist() == [number] * 2000
        assert value["y"]["z"].tolist() == [number / 2] * 2000


def test_a_channel_keeps_its_structure_and_its_name(make: Make) -> None:
    publisher = make()
    publisher.open(pva.PvObject({"x": pva.INT, "s": {"y": pva.DOUBLE}}))
    for kind in (
        {"x": pva.INT},
        {"x": pva.INT, "t": {"y": pva.DOUBLE}},
        {"x": pva.INT, "s": {"y": pva.DOUBLE, "z": pva.INT}},
        {"x": pva.INT, "s": {"z": pva.DOUBLE}},
        {"x": pva.STRING, "s": {"y": pva.DOUBLE}},
        {"x": [pva.INT], "s": {"y": pva.DOUBLE}},
    ):
        values = {"x": "a"} if kind["x"] == pva.STRING else {}
        with pytest.raises(TransportError, match="keeps the structure of its first object"):
            publisher.publish(pva.PvObject(kind, values))
    assert publisher.counts().errors == 6
    publisher.publish(pva.PvObject({"x": pva.INT, "s": {"y": pva.DOUBLE}}, {"x": 3}))
    assert pvget(publisher.channel)["x"] == 3
    for library in ("own", "binding"):
        other = make(library, "taken")
        other.open(lazy(0))
        with pytest.raises(TransportError, match="cannot host channel"):
            make("own", "taken").open(lazy(0))
        other.stop()


def test_the_opening_object_is_marked_and_results_are_not(make: Make, client: Any) -> None:
    publisher = make()
    publisher.open(mark(BUILDER.build(frame(0)).copy()))
    got = client(publisher.channel)
    got.keeps = True
    assert is_marked(pva.Channel(publisher.channel).get("field()"))
    publisher.publish(lazy(1))
    publisher.publish(BUILDER.build(frame(2)))
    wait_until(lambda: len(got.objects) == 2)
    assert not any(map(is_marked, got.objects))


def test_finish_lets_subscribers_take_what_waits(make: Make) -> None:
    publisher = make()
    publisher.open(lazy(0, 500))
    slow = follow(publisher.channel, "record[queueSize=100]")
    slow.next()
    for number in range(1, 81):
        publisher.publish(lazy(number, 500))
    assert waiting(publisher)[0] > 10
    publisher.finish(0.1)
    thread = threading.Thread(target=publisher.finish, args=(60,))
    thread.start()
    ids = [slow.next().value["uniqueId"] for _ in range(80)]
    thread.join(60)
    assert ids == list(range(1, 81))
    assert waiting(publisher) == [0]


def test_several_threads_publish_one_after_the_other(make: Make) -> None:
    publisher = make()
    publisher.open(lazy(0, 200))
    reader = Reader(publisher.channel, 0, "record[queueSize=2000]")
    reader.join(10)
    reader._last = 10_000
    follows = threading.Thread(target=reader.run, daemon=True)
    follows.start()

    def publish(first: int) -> None:
        for number in range(first, first + 100):
            publisher.publish(lazy(number, 200))

    threads = [threading.Thread(target=publish, args=(1000 * k,)) for k in range(1, 5)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(PATIENCE)
    publisher.publish(lazy(10_000, 200))
    follows.join(PATIENCE)
    assert len(reader.ids) == 402
    for k in range(1, 5):
        own = [i for i in reader.ids if i // 1000 == k]
        assert own == sorted(own)
        assert len(own) == 100
