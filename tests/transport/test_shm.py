"""Shared memory: exact objects, views, distribution, overflow, and leftovers of the dead."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import SequenceTracker
from pvapy_stream.errors import TransportError
from pvapy_stream.frame import ColorMode, Frame
from pvapy_stream.hpc.output import Output
from pvapy_stream.hpc.processor import UserDataProcessor, takes_lazy
from pvapy_stream.hpc.stage import Stage
from pvapy_stream.processors.passthrough import PassThrough
from pvapy_stream.processors.transpose import Transpose
from pvapy_stream.pva.lazy import LazyObject, frame_of, pv_object
from pvapy_stream.pva.objects import LazyIds
from pvapy_stream.transport.shm import (
    has_publisher,
    nodes,
    peer_directory,
    services,
    user_folder,
)
from pvapy_stream.transport.shm.frames import (
    INITIAL,
    Copy,
    Parts,
    frame_at,
    parts_of_frame,
    read_header,
)
from pvapy_stream.transport.shm.peer_file import SUBSCRIBER
from tests.support import wait_until
from tests.transport.pairs import Ids, Peer, make_object
from tests.transport.shm_ends import Ends, connect, detector_object

Shm = Callable[..., Any]


# -- what arrives --------------------------------------------------------------------------------


OTHER = pva.PvObject(
    {"uniqueId": pva.INT, "x": [pva.DOUBLE], "s": {"name": pva.STRING, "n": pva.ULONG}},
    {"uniqueId": 9, "x": [1.5, 2.5], "s": {"name": "deep", "n": 2**63}},
)


@pytest.mark.parametrize("obj", [detector_object(), OTHER], ids=["image", "structure"])
def test_objects_arrive_as_they_were(ends: Ends, obj: Any) -> None:
    got: list[Any] = []
    publisher = ends.publisher(obj)
    ends.receiver(got.append)
    connect(publisher)
    publisher.publish(obj)
    wait_until(lambda: len(got) == 2)
    arrived = pv_object(got[1])
    assert isinstance(arrived, pva.PvObject)
    assert arrived.getStructureDict() == obj.getStructureDict()
    assert str(arrived) == str(obj)


@pytest.mark.parametrize(
    ("dtype", "shape", "mode"),
    [
        (np.uint8, (3, 5), ColorMode.MONO),
        (np.float64, (7, 2), ColorMode.MONO),
        (np.uint32, (1, 1), ColorMode.MONO),
        (np.int16, (4, 6, 3), ColorMode.RGB1),
        (np.uint8, (4, 6, 3), ColorMode.RGB3),
    ],
)
def test_frames_arrive_as_they_were(
    ends: Ends, dtype: Any, shape: tuple[int, ...], mode: ColorMode
) -> None:
    image = np.random.default_rng(1).integers(0, 100, shape).astype(dtype)
    attributes = {"a": 1, "b": 2.5, "c": "text", "d": np.arange(3), "e": True}
    last = 2**31 - 1
    frame = Frame.of(last, image, time_ns=123_456_789_000, color_mode=mode, attributes=attributes)
    got: list[Any] = []
    publisher = ends.publisher(LazyObject(frame))
    ends.receiver(got.append)
    connect(publisher)
    publisher.publish(LazyObject(frame))
    wait_until(lambda: len(got) == 2)
    arrived = got[1].frame
    assert (arrived.id, arrived.time_ns, arrived.color_mode) == (last, 123_456_789_000, mode)
    assert np.array_equal(arrived.image, image)
    assert arrived.image.dtype == dtype
    assert [*arrived.attributes] == [*attributes]
    for name, value in attributes.items():
        assert np.array_equal(arrived.attributes[name], value)
        assert (
            not isinstance(value, (bool, str))
            or arrived.attributes[name] is value
            or (arrived.attributes[name] == value)
        )


def test_compressed_frames_stay_compressed(ends: Ends) -> None:
    payload = np.frombuffer(b"compressed bytes", np.uint8)
    frame = Frame(3, payload, (10, 20), dtype=np.dtype(np.uint16), codec="bslz4")
    got: list[Any] = []
    publisher = ends.publisher()
    ends.receiver(got.append)
    connect(publisher)
    publisher.publish(LazyObject(frame))
    wait_until(lambda: len(got) == 2)
    arrived = got[1].frame
    assert (arrived.codec, arrived.dtype, arrived.stored_shape) == ("bslz4", np.uint16, (10, 20))
    assert bytes(arrived.payload) == b"compressed bytes"
    assert got[1].pv_object()["codec.name"] == "bslz4"
    assert got[1].pv_object()["compressedSize"] == len(payload)


def test_images_are_views_that_cannot_be_written_and_may_be_kept(ends: Ends) -> None:
    kept: list[np.ndarray] = []
    publisher = ends.publisher(queue_size=8)
    ends.receiver(lambda obj: kept.append(obj.frame.image))
    connect(publisher)
    for number in range(1, 60):
        publisher.publish(make_object(number))
    wait_until(lambda: len(kept) == 60)
    assert [int(image[0, 0]) for image in kept] == list(range(60))
    assert not any(image.flags.writeable for image in kept)
    # The first look into shared memory; when many are kept, the rest are copies.
    owners = [str(type(image.base)) for image in kept]
    looking = [_root(image) for image in kept]
    assert sum("Memory" in name for name in looking) >= services.MAX_BORROWED - 5, owners
    assert any("bytes" in name for name in looking)
    del kept[:], looking
    gc.collect()


def _root(array: Any) -> str:
    while isinstance(array, (np.ndarray, memoryview)):
        array = array.base if isinstance(array, np.ndarray) else array.obj
    return type(array).__name__


def test_objects_that_grow_keep_their_order(ends: Ends) -> None:
    got: list[Any] = []
    publisher = ends.publisher()
    ends.receiver(lambda obj: got.append(obj.frame.image.copy()))
    connect(publisher)
    for side in range(4, 400, 12):
        publisher.publish(make_object(side, side))
    wait_until(lambda: len(got) == 34)
    assert [image.shape[0] for image in got[1:]] == list(range(4, 400, 12))


@pytest.mark.parametrize("lazy", [False, True], ids=["PvObject", "LazyObject"])
def test_what_opens_a_channel_is_marked_and_what_is_published_is_not(
    ends: Ends, lazy: bool
) -> None:
    opening = make_object(7)
    opening["timeStamp.userTag"] = 0x7673
    made = LazyObject(frame_of(opening)) if lazy else opening
    early, late, last = [], [], []
    publisher = ends.publisher(made)
    ends.receiver(early.append)
    connect(publisher)
    wait_until(lambda: len(early) == 1)
    publisher.publish(make_object(8))
    ends.receiver(late.append)
    connect(publisher, 2)
    wait_until(lambda: len(early) == 2 and len(late) == 1)
    # Late ones begin with an object that was published: that one is a frame.
    assert [obj.marked for obj in [*early, *late]] == [True, False, False]
    assert pv_object(early[0])["timeStamp"]["userTag"] == 0x7673
    for obj in (early[1], late[0]):
        assert pv_object(obj)["timeStamp"]["userTag"] == 0
    assert LazyObject(frame_of(opening)).marked is False
    # Passed on as a frame it is none any more; opened with, it is again.
    publisher.publish(early[0])
    publisher.open(early[1])
    ends.receiver(last.append)
    connect(publisher, 3)
    wait_until(lambda: len(early) == 4 and len(last) == 1)
    assert [obj.marked for obj in [*early[2:], *last]] == [False, True, True]


def test_an_opening_object_without_an_image_keeps_its_mark(ends: Ends) -> None:
    got: list[Any] = []
    opening = pva.NtNdArray()
    opening["timeStamp.userTag"] = 0x7673
    publisher = ends.publisher(opening)
    ends.receiver(got.append)
    connect(publisher)
    publisher.publish(make_object(1))
    wait_until(lambda: len(got) == 2)
    assert [obj.marked for obj in got] == [True, False]
    assert pv_object(got[0])["timeStamp"]["userTag"] == 0x7673


# -- who gets what -------------------------------------------------------------------------------


def test_a_late_subscriber_begins_with_the_current_object(ends: Ends) -> None:
    early, late = Ids(), Ids()
    publisher = ends.publisher()
    ends.receiver(early)
    connect(publisher)
    for number in range(1, 6):
        publisher.publish(make_object(number))
    wait_until(lambda: early.ids == [0, 1, 2, 3, 4, 5])
    ends.receiver(late)
    connect(publisher, 2)
    wait_until(lambda: late.ids == [5])
    publisher.publish(make_object(6))
    wait_until(lambda: late.ids == [5, 6])
    wait_until(lambda: early.ids == [0, 1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("updates", [1, 3])
def test_a_group_shares_objects_in_runs(ends: Ends, updates: int) -> None:
    got = [Ids() for _ in range(3)]
    publisher = ends.publisher()
    receivers = []
    for number, ids in enumerate(got, 1):
        receivers.append(ends.receiver(ids, group="g", updates=updates))
        connect(publisher, number)
    for number in range(1, 37):
        publisher.publish(make_object(number))
    wait_until(lambda: sum(len(ids.new) for ids in got) == 36)
    for k, ids in enumerate(got):
        assert ids.new == [i for i in range(1, 37) if (i - 1) // updates % 3 == k]
    assert [receiver.counts().overruns for receiver in receivers] == [0, 0, 0]


def test_all_of_a_set_get_the_same_and_others_get_all(ends: Ends) -> None:
    publisher = ends.publisher()
    members = [Ids() for _ in range(4)]
    for number, (ids, name) in enumerate(zip(members, "AABB", strict=True), 1):
        ends.receiver(ids, group="g", client_set=name, updates=2)
        connect(publisher, number)
    alone = Ids()
    ends.receiver(alone)
    connect(publisher, 5)
    for number in range(1, 41):
        publisher.publish(make_object(number))
    wait_until(lambda: len(alone.new) == 40 and all(len(ids.new) == 20 for ids in members))
    assert members[0].new == members[1].new == [i for i in range(1, 41) if (i - 1) % 4 < 2]
    assert members[2].new == members[3].new == [i for i in range(1, 41) if (i - 1) % 4 >= 2]
    assert alone.new == list(range(1, 41))


def test_who_leaves_a_group_leaves_its_share_to_the_others(ends: Ends) -> None:
    publisher = ends.publisher()
    staying, leaving = Ids(), Ids()
    ends.receiver(staying, group="g")
    connect(publisher)
    leaver = ends.receiver(leaving, group="g")
    connect(publisher, 2)
    for number in range(1, 11):
        publisher.publish(make_object(number))
    assert leaver.stop(5.0) == []
    for number in range(11, 21):
        publisher.publish(make_object(number))
    wait_until(lambda: staying.new[-1:] == [20])
    assert sorted(staying.new + leaving.new) == list(range(1, 21))
    assert leaving.new == [2, 4, 6, 8, 10]


def test_several_publishers_share_a_channel(ends: Ends) -> None:
    got = Ids()
    publishers = [ends.publisher(), ends.publisher()]
    ends.receiver(got, lambda obj: None)
    for publisher in publishers:
        connect(publisher)
    for number in range(1, 41):
        publishers[number % 2].publish(make_object(number))
    wait_until(lambda: len(got.new) == 40)
    assert sorted(got.new) == list(range(1, 41))


# -- overflow ------------------------------------------------------------------------------------


class Slow:
    """Takes objects only while it may."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.may = threading.Event()

    def __call__(self, obj: Any) -> None:
        self.ids.append(frame_of(obj).id)
        if self.ids[-1]:
            self.may.wait(20)


def test_block_waits_for_the_slowest_and_loses_nothing(ends: Ends) -> None:
    got: list[int] = []

    def slow(obj: Any) -> None:
        got.append(obj.frame.id)
        time.sleep(0.004)

    publisher = ends.publisher(queue_size=4)
    receiver = ends.receiver(slow)
    connect(publisher)
    started = time.monotonic()
    for number in range(1, 101):
        publisher.publish(make_object(number))
    # The publisher was slowed down to the pace of its subscriber.
    assert time.monotonic() - started > 0.3
    wait_until(lambda: got == list(range(101)))
    assert publisher.counts().rejected == receiver.counts().overruns == 0


def test_who_is_stuck_is_given_up_and_the_others_go_on(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, well = Slow(), Ids()
    publisher = ends.publisher(queue_size=4, timeout=0.3)
    receiver = ends.receiver(stuck)
    connect(publisher)
    ends.receiver(well)
    connect(publisher, 2)
    for number in range(1, 51):
        publisher.publish(make_object(number))
    # One wait, not one for each object.
    assert caplog.text.count("has taken no object for 0.3 s") == 1
    wait_until(lambda: well.new == list(range(1, 51)))
    assert publisher.counts().rejected == 45
    assert "takes no objects: 4 are in its queue, and 45 were rejected" in publisher.problem
    stuck.may.set()
    wait_until(lambda: stuck.ids == [0, 1, 2, 3, 4, 5])
    assert publisher.problem == ""
    publisher.publish(make_object(51))
    wait_until(lambda: stuck.ids[-1] == 51 and well.new[-1] == 51)
    # The gap is known on its side too.
    assert receiver.counts().overruns == 45
    assert publisher.counts().rejected == 45


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("drop-newest", [0, 1, 2, 3, 4, 5]), ("drop-oldest", [0, 1, 17, 18, 19, 20])],
)
def test_dropped_objects_are_counted(ends: Ends, policy: str, kept: list[int]) -> None:
    slow = Slow()
    publisher = ends.publisher(queue_size=4, overflow=policy, timeout=600)
    receiver = ends.receiver(slow)
    connect(publisher)
    publisher.publish(make_object(1))
    wait_until(lambda: slow.ids == [0, 1])
    started = time.monotonic()
    for number in range(2, 21):
        publisher.publish(make_object(number))
    assert time.monotonic() - started < 60
    slow.may.set()
    wait_until(lambda: len(slow.ids) == 6)
    publisher.publish(make_object(21))
    wait_until(lambda: slow.ids[-1] == 21)
    assert slow.ids == [*kept, 21]
    assert publisher.counts().rejected == 15
    assert receiver.counts().overruns == 15


def test_what_waits_at_stop_is_delivered_in_time_and_the_rest_is_told(ends: Ends) -> None:
    got: list[int] = []

    def slow(obj: Any) -> None:
        got.append(obj.frame.id)
        time.sleep(0.05)

    publisher = ends.publisher(queue_size=64)
    receiver = ends.receiver(slow)
    connect(publisher)
    for number in range(1, 41):
        publisher.publish(make_object(number))
    left = receiver.stop(0.6)
    assert 3 < len(got) < 30
    assert [*got, *(obj.frame.id for obj in left)] == list(range(41))


def test_the_newest_id_is_known_without_an_object(ends: Ends) -> None:
    got = Ids()
    publisher = ends.publisher()
    receiver = ends.receiver(got)
    connect(publisher)
    assert receiver.newest(1.0) is None
    publisher.publish(make_object(8))
    newest = receiver.newest(1.0)
    assert newest is not None
    assert newest.id_of("uniqueId") == 8


# -- the dead, the rights, the room --------------------------------------------------------------


def test_dead_processes_leave_nothing(ends: Ends, prefix: str) -> None:
    peers = [Peer("sender", "shm-shm", ends.channel), Peer("receiver", "shm-shm", ends.channel)]
    there = peer_directory.PeerDirectory(ends.channel).path
    try:
        # Others may use shared memory too: these are what the two have in their own memory.
        theirs = wait_until(lambda: _samples(peers[0]) & _samples(peers[1]))
        wait_until(lambda: any(p.name.startswith("s-") for p in there.iterdir()))
    finally:
        for peer in peers:
            peer.kill()
    assert not has_publisher(ends.channel)
    publisher = ends.publisher()
    wait_until(lambda: not any(path.exists() for path in theirs))
    assert {path.name[:2] for path in there.iterdir()} == {"p-"}
    assert has_publisher(ends.channel)
    publisher.stop()
    assert not has_publisher(ends.channel)


def _samples(peer: Peer) -> set[Path]:
    """Files of iceoryx2 that a process has mapped."""
    maps = Path(f"/proc/{peer.process.pid}/maps").read_text().splitlines()
    return {Path(line.split()[-1]) for line in maps if "/dev/shm/pvs" in line}


def test_a_dead_subscriber_does_not_hold_up_the_others(ends: Ends) -> None:
    well = Ids()
    publisher = ends.publisher(queue_size=4, timeout=600)
    ends.receiver(well)
    connect(publisher)
    peer = Peer("receiver", "shm-shm", ends.channel)
    connect(publisher, 2)
    peer.process.send_signal(19)  # SIGSTOP: it takes nothing more, and is not gone
    killer = threading.Timer(0.5, peer.kill)
    killer.start()
    started = time.monotonic()
    for number in range(1, 51):
        publisher.publish(make_object(number))
    killer.join()
    assert 0.3 < time.monotonic() - started < 60
    wait_until(lambda: well.new == list(range(1, 51)))
    connect(publisher, 1)
    # What waited for it never was anybody else's.
    assert 0 < publisher.counts().rejected <= 6


def test_only_this_user_may_read_anything(ends: Ends) -> None:
    publisher = ends.publisher()
    ends.receiver(Ids())
    connect(publisher)
    publisher.publish(make_object(1))
    private = user_folder.private_folder()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    for path in user_folder.SHM.glob("pvs*"):
        # Of others some may go just now.
        with contextlib.suppress(FileNotFoundError):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_too_little_memory_is_told(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = ends.publisher(queue_size=4)
    ends.receiver(Ids())
    connect(publisher)
    publisher.publish(make_object(1))
    monkeypatch.setattr(services, "free_memory", lambda: 10_000_000)
    with pytest.raises(TransportError, match=r"an object needs 3.9 MB.*has 10.0 MB left.*--shm-"):
        publisher.publish(make_object(2, 1400))
    assert publisher.counts().errors == 1
    # What fits still goes.
    publisher.publish(make_object(3))


def test_another_version_is_refused(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    got = Ids()
    publisher = ends.publisher()
    receiver = ends.receiver(got)
    connect(publisher)
    wait_until(lambda: got.ids == [0])
    write = Parts.write

    def of_tomorrow(self: Parts, where: Any, *args: Any) -> None:
        write(self, where, *args)
        where[4] = 2

    monkeypatch.setattr(Parts, "write", of_tomorrow)
    publisher.publish(make_object(1))
    monkeypatch.undo()
    publisher.publish(make_object(2))
    wait_until(lambda: got.ids == [0, 2])
    assert receiver.counts().errors == 1
    assert "compatible versions of pvapy_stream" in caplog.text


def test_an_object_goes_through_a_stage_without_a_pvobject(ends: Ends, prefix: str) -> None:
    out = Ends(f"{prefix}out")
    seen: list[Any] = []
    ledger = Ledger("consumer", 1)
    publisher = out.publisher()
    stage = Stage(
        (processor := UserDataProcessor()),
        ledger,
        SequenceTracker(),
        id_field="uniqueId",
        open_output=lambda _: Output(publisher, ledger, "uniqueId"),
        read_id=LazyIds("uniqueId"),
    )
    processor.outputChannel = out.channel

    def take(obj: Any) -> None:
        stage.handle(obj)
        seen.append(obj)

    source = ends.publisher()
    ends.receiver(take)
    connect(source)
    for number in range(1, 30):
        source.publish(make_object(number))
        time.sleep(0.002)
    wait_until(lambda: len(seen) == 30)
    # The first only opened the channel.
    assert list(ledger.published) == list(range(1, 30))
    assert stage.counts.latency.stats()["n"] > 3
    # The opening object and the first frame told of their structure.
    assert [obj for obj in seen[2:] if obj._object is not None] == []
    out.stop()


class Tomorrow(msgspec.Struct):
    """What a subscriber of another version may tell of itself."""

    key: str
    publisher: str
    form: int = 2

    @property
    def name(self) -> str:
        return f"s-{self.publisher}-{self.key}"


def test_a_subscriber_of_another_version_is_told_of_once_and_the_others_go_on(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = ends.publisher()
    here = peer_directory.PeerDirectory(ends.channel)
    tomorrow: Any = Tomorrow(peer_directory.new_key(), publisher._key)
    stranger = here.create(SUBSCRIBER, tomorrow)
    try:
        well = Ids()
        ends.receiver(well)
        connect(publisher)
        for number in range(1, 6):
            publisher.publish(make_object(number))
            time.sleep(0.05)
        wait_until(lambda: well.new == [1, 2, 3, 4, 5])
        assert caplog.text.count(f"subscriber {stranger.path} is not understood") == 1
        assert publisher.counts().errors == 0
    finally:
        stranger.close(remove=True)


def test_which_processors_get_along_without_pvobjects() -> None:
    class Own(UserDataProcessor):
        def process(self, pvObject: Any) -> Any:
            return pvObject

    assert takes_lazy(UserDataProcessor())
    assert takes_lazy(PassThrough())
    assert takes_lazy(Transpose())
    assert not takes_lazy(Own())


@pytest.mark.parametrize("shift", [0, 8, 56])
def test_what_lies_in_memory_is_copied_to_any_address(shift: int) -> None:
    pixels = np.arange(5 * 7, dtype=np.uint16).reshape(5, 7)
    frame = Frame.of(9, pixels, time_ns=123, attributes={"Gain": 2.5})
    ready = parts_of_frame(frame)
    first, second = (_aligned(ready.required_size + 128, at) for at in (0, shift))
    ready.write(*first, 5000, 1)
    copy = Copy(read_header(first[0]), first[0])
    assert copy.required_size <= ready.required_size + 64
    copy.write(*second, 6000, 2, INITIAL, bytes(range(16)))
    header = read_header(second[0])
    assert (header.chunk, header.sequence, header.flags) == (6000, 2, INITIAL)
    assert header.target == bytes(range(16))
    assert (second[1] + header.payload_at) % 64 == 0
    got = frame_at(header, second[0])
    assert (got.id, got.time_ns, dict(got.attributes)) == (9, 123, {"Gain": 2.5})
    assert np.array_equal(got.image, pixels)


def _aligned(size: int, shift: int) -> tuple[Any, int]:
    """Memory that begins so far behind a multiple of 64, and its address."""
    buffer = (ctypes.c_uint8 * (size + 128))()
    start = -ctypes.addressof(buffer) % 64 + shift
    memory = (ctypes.c_uint8 * size).from_buffer(buffer, start)
    return memory, ctypes.addressof(memory)


def test_a_service_that_is_left_is_used_again(ends: Ends) -> None:
    node = nodes.node.acquire()
    try:
        name = services.service_name("0" * 32, "", ends.channel)
        left = services.create_service(node, name, 4, overflow=False)
        again = services.create_service(node, name, 5, overflow=False)
        assert again.static_config.subscriber_max_buffer_size == 4
    finally:
        del left, again
        nodes.node.release()


def test_a_subscriber_may_keep_an_object_while_another_takes_its_place(ends: Ends) -> None:
    # The sample keeps the service, whose name the next subscriber needs.
    kept: list[Any] = []
    publisher = ends.publisher()
    first = ends.receiver(kept.append)
    connect(publisher)
    wait_until(lambda: kept)
    first.stop()
    connect(publisher, 0)
    got = Ids()
    ends.receiver(got)
    connect(publisher)
    publisher.publish(make_object(1))
    wait_until(lambda: got.ids == [0, 1])
    assert kept[0].frame.id == 0
