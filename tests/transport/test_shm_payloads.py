"""Payloads in pools, from end to end: what is passed on is not copied, and stays as it was."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.frame import ColorMode, Frame
from pvapy_stream.pva.lazy import LazyObject, pv_object
from pvapy_stream.transport.shm import (
    ShmPublisher,
    ShmReceiver,
    payloads,
    pool_user,
    receiver,
    services,
    user_folder,
)
from pvapy_stream.transport.shm.peer_directory import new_key
from pvapy_stream.transport.shm.slot_memory import held_memory_of
from tests.support import PATIENCE, rounds, wait_until
from tests.transport.shm_ends import ManyEnds, connect

SIDE = 300  # pixels; of two bytes


def pixels(number: int, side: int = SIDE) -> np.ndarray:
    return np.full((side, side), number, np.uint16)


def frame(number: int, side: int = SIDE, **attributes: Any) -> LazyObject:
    return LazyObject(Frame.of(number, pixels(number, side), attributes=attributes))


def place(payload: Any) -> tuple[bytes, int] | None:
    """Pool and slot that an array is in."""
    memory = held_memory_of(payload)
    return None if memory is None else (memory.user.pool.key, memory.slot)


class Chain(ManyEnds):
    """Those of a chain, in one process."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix

    def publisher(self, number: int, **settings: Any) -> ShmPublisher:
        return self.start_publisher(f"{self.prefix}{number}", **settings)

    def receiver(self, number: int, deliver: Callable[[Any], Any], **share: Any) -> ShmReceiver:
        return self.start_receiver(f"{self.prefix}{number}", deliver, **share)


@pytest.fixture
def chain(prefix: str) -> Iterator[Chain]:
    made = Chain(f"{prefix}pool")
    yield made
    made.stop()


def relayed(chain: Chain, change: Callable[[LazyObject], LazyObject]) -> tuple[list[Any], ...]:
    """Objects before and after a stage that publishes changed ones."""
    before: list[Any] = []
    after: list[Any] = []
    first, second = chain.publisher(0), chain.publisher(1)

    def stage(obj: Any) -> None:
        if obj.id is not None:
            before.append(obj)
            second.publish(change(obj))

    chain.receiver(0, stage)
    chain.receiver(1, lambda obj: obj.id and after.append(obj))
    connect(first)
    connect(second)
    for number in range(1, 4):
        first.publish(frame(number, gain=number))
    wait_until(lambda: after and after[-1].id % 10 == 3)
    return before[-3:], after[-3:]


def test_what_is_passed_on_is_not_copied(chain: Chain) -> None:
    before, after = relayed(chain, lambda obj: obj)
    assert [obj.id for obj in after] == [1, 2, 3]
    places = [place(obj.frame.payload) for obj in after]
    assert None not in places
    assert places == [place(obj.frame.payload) for obj in before]
    assert [dict(obj.frame.attributes) for obj in after] == [{"gain": n} for n in (1, 2, 3)]
    for number, obj in enumerate(after, 1):
        assert (obj.frame.image == number).all()
        assert not obj.frame.image.flags.writeable
        assert pv_object(obj)["uniqueId"] == number


def test_other_attributes_and_ids_leave_the_pixels_where_they_are(chain: Chain) -> None:
    def change(obj: LazyObject) -> LazyObject:
        made = obj.frame.replace(id=obj.frame.id + 10, attributes={"more": "x" * 3000})
        return LazyObject(made)

    before, after = relayed(chain, change)
    assert [place(obj.frame.payload) for obj in after] == [
        place(obj.frame.payload) for obj in before
    ]
    assert [obj.id for obj in after] == [11, 12, 13]
    assert [dict(obj.frame.attributes) for obj in after] == [{"more": "x" * 3000}] * 3
    assert [int(obj.frame.image[7, 9]) for obj in after] == [1, 2, 3]


def test_part_of_the_rows_is_a_view_too(chain: Chain) -> None:
    before, after = relayed(
        chain, lambda obj: LazyObject(obj.frame.replace(obj.frame.image[100:290]))
    )
    assert place(after[0].frame.payload) == place(before[0].frame.payload)
    assert after[0].frame.image.shape == (190, SIDE)
    assert [int(obj.frame.image.mean()) for obj in after] == [1, 2, 3]


def test_changed_pixels_are_in_a_pool_of_their_own(chain: Chain) -> None:
    before, after = relayed(chain, lambda obj: LazyObject(obj.frame.replace(obj.frame.image.T * 2)))
    keys = {found[0] for obj in after if (found := place(obj.frame.payload))}
    assert len(keys) == 1
    assert keys.isdisjoint(place(obj.frame.payload)[0] for obj in before)
    assert [int(obj.frame.image[3, 4]) for obj in after] == [2, 4, 6]


def test_structures_go_through_pools_too(chain: Chain) -> None:
    got: list[Any] = []
    first, second = chain.publisher(0), chain.publisher(1)
    obj = pva.PvObject(
        {"uniqueId": pva.INT, "x": [pva.DOUBLE]}, {"uniqueId": 9, "x": [1.5] * 20000}
    )
    chain.receiver(0, second.publish)
    chain.receiver(1, got.append)
    connect(first)
    connect(second)
    first.publish(obj)
    first.publish(obj)
    wait_until(lambda: len(got) >= 2)
    assert str(pv_object(got[-1])) == str(obj)


def test_colour_and_codec_arrive_as_they_were(chain: Chain) -> None:
    got: list[Any] = []
    first = chain.publisher(0)
    chain.receiver(0, got.append)
    connect(first)
    colour = np.arange(200 * 300 * 3, dtype=np.uint32).reshape(200, 300, 3)
    first.publish(frame(1))
    first.publish(LazyObject(Frame.of(2, colour, color_mode=ColorMode.RGB2)))
    packed = np.arange(200_000, dtype=np.uint32).view(np.uint8)
    first.publish(LazyObject(Frame(3, packed, (9, 9), dtype=np.dtype("u2"), codec="bslz4")))
    wait_until(lambda: got and got[-1].id == 3)
    assert (got[-2].frame.image == colour).all()
    assert (got[-1].frame.codec, got[-1].frame.stored_shape) == ("bslz4", (9, 9))
    assert (got[-1].frame.payload == packed).all()
    assert place(got[-1].frame.payload)


def test_frames_that_are_kept_stay_and_nothing_waits_for_them(chain: Chain) -> None:
    kept: list[Any] = []
    first, second = chain.publisher(0), chain.publisher(1)

    def stage(obj: Any) -> None:
        kept.append(obj.frame)
        second.publish(obj)

    got: list[int] = []
    chain.receiver(0, stage)
    chain.receiver(1, lambda obj: got.append(obj.id))
    connect(first)
    connect(second)
    for number in range(1, 101):
        first.publish(frame(number))
    wait_until(lambda: got and got[-1] == 100)
    frames = {one.id: one for one in kept if one.id}
    assert [*frames] == [*range(1, 101)]
    assert all((one.image == number).all() for number, one in frames.items())
    in_pool = [one for one in frames.values() if place(one.payload)]
    # More than a quarter of the slots are not kept by anybody.
    assert 8 <= len(in_pool) < 40
    chain.stop()
    assert all((one.image == number).all() for number, one in frames.items())
    (key,) = {place(one.payload)[0] for one in in_pool}
    path = user_folder.path() / "pools" / key.hex()
    assert path.exists()
    del kept[:], frames, in_pool
    gc.collect()
    assert not path.exists()


def test_a_pool_without_free_slots_means_copies_and_its_holders_are_named(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool_user.PoolUser, "keeps_many", False)
    kept: list[Any] = []
    runs = threading.Event()
    runs.set()

    def keep(obj: Any) -> None:
        runs.wait()
        kept.append(obj.frame)

    first = chain.publisher(0, timeout=PATIENCE)
    chain.receiver(0, keep)
    connect(first)
    # Samples are copied in the receiver if many are kept.
    for number in range(1, 101):
        first.publish(frame(number))
    wait_until(lambda: kept and kept[-1].id == 100)
    assert all((one.image == one.id).all() for one in kept if one.id)
    in_pool = [one.id for one in kept if place(one.payload)]
    assert in_pool == [*range(1, len(in_pool) + 1)]
    assert len(in_pool) == 32
    # The publisher may still hold those that were sent last.
    name = f"{chain.prefix}0"
    found = re.search(
        rf"channel {name}: all 32 slots .* held by \S.* \(process {os.getpid()}\) on channel"
        rf" {name}: (\d+), the oldest since {time.strftime('%Y')}\S+ [\d:]{{8}}"
        r"(?:, (\d+) in its queue)?",
        caplog.text,
    )
    assert found, caplog.text
    assert 32 >= int(found[1]) > 16
    assert int(found[1]) + int(found[2] or 0) >= 32
    # One line in the log, and the same for those who look at the status.
    assert caplog.text.count("all 32 slots") == 1
    assert f"held by {found[0].split('held by ')[1].split(':')[0]}" in first.problem
    assert first.counts().copies == {"no_slot": 100 - 32, "no_memory": 0, "subscriber": 0}
    # Copies wait for a full queue as references do: a holder that stops slows the source.
    runs.clear()
    thread = threading.Thread(target=lambda: [first.publish(frame(n)) for n in range(101, 201)])
    thread.start()
    wait_until(lambda: first._waits_for)
    runs.set()
    thread.join()
    wait_until(lambda: kept[-1].id == 200)
    # The first one comes twice, also as the current object.
    assert [one.id for one in kept][-200:] == [*range(1, 201)]
    assert all((one.image == one.id).all() for one in kept if one.id)
    assert (first.counts().copies["no_slot"], first.counts().rejected) == (200 - 32, 0)
    kept.clear()
    gc.collect()
    first.publish(frame(201))
    wait_until(lambda: kept and kept[-1].id == 201)
    assert place(kept[-1].payload)


def test_several_groups_get_one_payload(chain: Chain) -> None:
    first = chain.publisher(0)
    got: dict[str, list[Any]] = {name: [] for name in ("a", "b1", "b2", "alone")}
    chain.receiver(0, got["alone"].append)
    chain.receiver(0, got["a"].append, group="a")
    chain.receiver(0, got["b1"].append, group="b", client_set="1")
    chain.receiver(0, got["b2"].append, group="b", client_set="2")
    connect(first, 4)
    for number in range(1, 9):
        first.publish(frame(number))
    places: dict[int, set[Any]] = {}
    wait_until(lambda: got["alone"][-1].id == 8 == got["a"][-1].id)
    wait_until(lambda: {obj.id for obj in got["b1"] + got["b2"]} >= {*range(1, 9)})
    for objects in got.values():
        for obj in objects:
            if obj.id and place(obj.frame.payload):
                places.setdefault(obj.id, set()).add(place(obj.frame.payload))
    assert [len(found) for number, found in sorted(places.items()) if number > 1] == [1] * 7
    ids = sorted(obj.id for name in ("b1", "b2") for obj in got[name] if obj.id)
    assert sorted(set(ids)) == [*range(1, 9)]


def test_objects_that_grow_get_another_pool(chain: Chain) -> None:
    got: list[Any] = []
    first = chain.publisher(0)
    chain.receiver(
        0, lambda obj: got.append((obj.id, place(obj.frame.payload), obj.frame.image[0, 0]))
    )
    connect(first)
    for number in range(1, 30):
        first.publish(frame(number, 200 + 20 * number))
    wait_until(lambda: got[-1:] and got[-1][0] == 29)
    assert [n for n, _, value in got if n] == [value for n, _, value in got if n]
    keys = {where[0] for _, where, _ in got if where}
    assert 2 < len(keys) < 20
    # Those that are too small are given up.
    paths = [user_folder.path() / "pools" / key.hex() for key in keys]
    wait_until(lambda: sum(path.exists() for path in paths) == 1)


def test_a_subscriber_of_an_older_version_gets_copies(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, got = chain.publisher(0), []
    with monkeypatch.context() as patch:
        patch.setattr(receiver, "possible", lambda: False)
        old = chain.receiver(0, got.append)
        connect(first)
    for number in (1, 2):
        first.publish(frame(number))
    wait_until(lambda: got and got[-1].id == 2)
    assert not place(got[-1].frame.payload)
    old.stop()
    connect(first, 0)
    chain.receiver(0, got.append)
    connect(first)
    first.publish(frame(3))
    wait_until(lambda: got[-1].id == 3)
    assert place(got[-1].frame.payload)


def test_too_little_memory_means_copies_and_the_log_says_how_much_is_needed(
    chain: Chain,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    small_disk: Path,
) -> None:
    monkeypatch.setattr(user_folder, "SHM", small_disk)
    monkeypatch.setattr(services, "SHM", small_disk)
    side = 400
    first, got = chain.publisher(0), []
    chain.receiver(0, got.append)
    connect(first)
    for number in (1, 2, 3):
        first.publish(frame(number, side))
    wait_until(lambda: got and got[-1].id == 3)
    assert not place(got[-1].frame.payload)
    assert first.counts().errors == 0
    assert first.counts().copies == {"no_slot": 0, "no_memory": 3, "subscriber": 0}
    (message,) = [
        line for line in caplog.text.splitlines() if "too small for a payload pool" in line
    ]
    assert "8 objects of 0.3 MB needs 10 MB free" in message
    found = re.search(r"remount,size=(\d+)m", message)
    assert found
    assert first.problem in message
    # That is enough.
    subprocess.run(["mount", "-o", f"remount,size={found[1]}m", small_disk], check=True)
    first._payloads.refresh()
    first.publish(frame(4, side))
    wait_until(lambda: got[-1].id == 4)
    assert place(got[-1].frame.payload)
    # Others fill it: there is a pool, and no memory for another slot of it.
    kept = [*got]
    (small_disk / "other").write_bytes(bytes(services.free_memory()))
    first.publish(frame(5, side))
    wait_until(lambda: got[-1].id == 5)
    assert (got[-1].frame.image == 5).all()
    assert first.counts().copies["no_memory"] == 4
    assert first.counts().errors == 0

    def full() -> bool:
        first.publish(frame(6, side))
        return "shared memory is full" in first.problem

    # It is explained once a second.
    wait_until(full)
    chain.stop()
    del kept[:], got[:]
    gc.collect()


def test_a_lost_payload_is_counted_and_named(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # This should not happen: here the owner uses the slot again in spite of references to it.
    first, got = chain.publisher(0), []
    end = chain.receiver(0, got.append)
    connect(first)
    for number in (1, 2):
        first.publish(frame(number))
    wait_until(lambda: got and got[-1].id == 2)
    with monkeypatch.context() as patch:
        patch.setattr(payloads.PoolOwner, "generation", lambda *_: 10**6)
        first.publish(frame(3))
        wait_until(lambda: end.counts().overruns == 1)
    first.publish(frame(4))
    wait_until(lambda: got[-1].id == 4)
    assert 3 not in [obj.id for obj in got]
    assert "an object is lost: the memory of a payload was reused" in caplog.text
    # After that, it gets copies.
    assert not place(got[-1].frame.payload)


def test_no_kill_tears_a_frame_or_leaves_anything(tmp_path: Path) -> None:
    prefix = f"pvt{new_key()[:8]}_"
    done = subprocess.run(
        [sys.executable, "-m", "tests.transport.pool_kills", tmp_path, prefix, "7", str(rounds(3))],
        capture_output=True,
        text=True,
        timeout=280,
    )
    for path in Path("/dev/shm").glob(f"{prefix}*"):
        path.unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    last, *wrong = reversed(done.stdout.splitlines())
    assert last.startswith("rounds: "), done.stderr
    assert not wrong, done.stdout + done.stderr
    assert "is lost" not in done.stderr
