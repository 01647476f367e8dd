"""Payload pools: the protocol between owner, holders and kills, at any interleaving."""

from __future__ import annotations

import ctypes
import gc
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pvapy_stream.transport.shm import pool_file, pool_owner, user_folder
from pvapy_stream.transport.shm.frames import Parts, SampleHeader, read_header
from pvapy_stream.transport.shm.pool_file import PoolLayout, create_pool, open_pool, sweep
from pvapy_stream.transport.shm.pool_holders import Held
from pvapy_stream.transport.shm.pool_owner import PoolOwner
from pvapy_stream.transport.shm.pool_reader import PoolReader
from pvapy_stream.transport.shm.pool_user import PoolUser, join_pool
from pvapy_stream.transport.shm.references import PayloadPlace
from pvapy_stream.transport.shm.slot_memory import held_memory_of

OWNER = bytes(range(16))
LAYOUT = PoolLayout(8, 4096)


def nobody(_: bytes) -> bool:
    return False


@pytest.fixture(autouse=True)
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(user_folder, "SHM", tmp_path)
    return tmp_path


def pools() -> list[str]:
    there = user_folder.path() / "pools"
    return sorted(path.name for path in there.iterdir()) if there.exists() else []


def owner(subscribers: Callable[[bytes], bool] = nobody, layout: PoolLayout = LAYOUT) -> PoolOwner:
    return PoolOwner(OWNER, layout, subscribers)


def user(of: PoolOwner, publisher: bytes = pool_file.NO_PUBLISHER) -> PoolUser:
    made = join_pool(of.key, nobody, publisher)
    assert made is not None
    return made


def killed(one: PoolUser) -> None:
    """What the kernel does when a process is killed: its locks end, its counters stay."""
    one.pool.close()


def look_for_dead(of: PoolOwner) -> None:
    of._clear_due = 0.0


def take_all(of: PoolOwner) -> list[int]:
    look_for_dead(of)
    found = []
    while (slot := of.take()) is not None:
        found.append(slot)
    return found


# -- files ---------------------------------------------------------------------------------------


def test_a_pool_is_private_and_complete_and_goes_with_its_owner() -> None:
    one = owner()
    (name,) = pools()
    path = user_folder.path() / "pools" / name
    assert name == one.key.hex()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_nlink == 1
    other = open_pool(one.key)
    assert other is not None
    assert (other.layout, other.owner, other.has_owner()) == (LAYOUT, OWNER, True)
    sweep(nobody)
    assert pools() == [name]
    one.close()
    assert not other.has_owner()
    assert pools() == []


def test_a_pool_that_others_hold_stays_until_the_last_has_left() -> None:
    one = owner()
    slot = one.take()
    assert slot is not None
    one.pool.slot(slot)[:] = 7
    first, second = user(one), user(one)
    generation = one.generation(slot)
    assert first.acquire_checked(slot, generation)
    one.close()
    sweep(nobody)
    first_memory = first.memory(slot)
    view = np.frombuffer(first_memory, np.uint8)[100:200]
    first.close()
    second.close()
    # It is kept as long as there is a view, whoever has stopped.
    assert len(pools()) == 1
    del first_memory
    assert (view == 7).all()
    del view
    gc.collect()
    assert pools() == []


def test_the_pool_of_a_killed_owner_is_swept_when_nobody_may_read_it() -> None:
    one = owner()
    holder = user(one)
    on_its_way = user(one, b"p" * 16)
    one.pool.close()
    sweep(nobody)
    killed(holder)
    killed(on_its_way)
    connected = [OWNER, b"p" * 16]
    while connected:
        sweep(connected.__contains__)
        assert len(pools()) == 1
        connected.pop()
    sweep(nobody)
    assert pools() == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"x" * 100_000),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"PVSP\2" + path.read_bytes()[5:]),
        lambda path: path.rename(path.with_name("f" * 32)),
    ],
    ids=["empty", "other", "short", "version", "renamed"],
)
def test_a_file_that_is_no_pool_is_left_alone(damage: Callable[[Path], Any]) -> None:
    one = owner()
    one.pool.close()
    damage(user_folder.path() / "pools" / one.key.hex())
    (name,) = pools()
    assert open_pool(bytes.fromhex(name)) is None
    sweep(nobody)
    assert pools() == [name]


def test_columns_are_limited_and_come_back() -> None:
    one = owner()
    users = [user(one) for _ in range(pool_file.N_COLUMNS)]
    assert join_pool(one.key, nobody) is None
    users.pop(5).close()
    assert user(one)._column == 5
    assert users


def test_memory_that_is_full_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    one = owner()
    with monkeypatch.context() as patch:
        patch.setattr(pool_file.os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space"):
            one.take()
    assert len(take_all(one)) == LAYOUT.n_slots
    monkeypatch.setattr(pool_file.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        create_pool(b"k" * 16, OWNER, LAYOUT)
    assert len(pools()) == 1


# -- slots ---------------------------------------------------------------------------------------


def test_a_slot_is_not_used_again_while_anybody_holds_it() -> None:
    one = owner()
    slots = take_all(one)
    assert sorted(slots) == list(range(LAYOUT.n_slots))
    holder = user(one)
    for slot in slots:
        holder.acquire(slot)
        one.release(slot)
    assert take_all(one) == []
    holder.acquire(3)
    holder.release(3)
    assert take_all(one) == []
    holder.release(3)
    assert take_all(one) == [3]
    assert one.holders()[os.getpid()].n_slots == 7
    killed(holder)
    assert sorted(take_all(one)) == [0, 1, 2, 4, 5, 6, 7]


def test_holders_are_named_with_the_age_of_what_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(pool_owner.time, "time", lambda: now)
    one = owner()
    receives, publishes = user(one), user(one, b"p" * 16)
    old = one.take()
    assert old is not None
    one.note_times()
    now = 200.0
    new = one.take()
    assert new is not None
    # A stage that passes a payload on holds it twice; that is one payload.
    for holder in (receives, publishes):
        holder.acquire(old)
        holder.acquire(new)
    assert one.holders() == {os.getpid(): Held(2, 100.0)}
    for holder in (receives, publishes):
        holder.release(old)
    assert one.holders() == {os.getpid(): Held(1, 200.0)}
    receives.release(new)
    publishes.release(new)
    assert one.holders() == {}


@pytest.mark.parametrize("forward", [True, False])
def test_a_hold_that_moves_while_the_owner_reads_is_seen(forward: bool) -> None:
    one = owner()
    slot = one.take()
    assert slot is not None
    before, after = (user(one), user(one)) if forward else reversed((user(one), user(one)))
    before.acquire(slot)
    one.release(slot)
    used, passes = one._used, []

    def meanwhile() -> list[int]:
        passes.append(None)
        if len(passes) == 2:
            after.acquire(slot)
            before.release(slot)
        return used()

    one._used = meanwhile  # type: ignore[method-assign]
    assert not one._unheld()[slot]
    assert len(passes) == 2
    assert not one._unheld()[slot]
    after.release(slot)
    assert one._unheld()[slot]


def test_what_a_dead_publisher_sent_is_held_while_a_subscriber_is_connected() -> None:
    connected = [b"p" * 16]
    one = owner(connected.__contains__)
    slots = take_all(one)
    publisher = user(one, b"p" * 16)
    for slot in slots:
        publisher.acquire(slot)
        one.release(slot)
    killed(publisher)
    assert take_all(one) == []
    connected.clear()
    assert len(take_all(one)) == LAYOUT.n_slots


def test_a_reference_to_a_slot_that_was_used_again_is_refused() -> None:
    one = owner()
    slot = one.take()
    assert slot is not None
    old = one.generation(slot)
    one.release(slot)
    late = user(one)
    assert slot in take_all(one)
    assert not late.acquire_checked(slot, old)
    assert late.n_held == 0
    assert late.acquire_checked(slot, one.generation(slot))
    assert not late.acquire_checked(LAYOUT.n_slots, 1)


def test_a_slot_that_is_acquired_while_it_is_claimed_is_left() -> None:
    # Both happen at once: the owner sees it in the second check only.
    one = owner()
    slot = one.take()
    assert slot is not None
    one.release(slot)
    late = user(one)
    unheld = one._unheld

    def then_acquire() -> list[bool]:
        found = unheld()
        late.acquire(slot)
        return found

    one._unheld = then_acquire  # type: ignore[method-assign]
    assert slot not in take_all(one)


def test_release_counts_all_even_if_it_is_interrupted_by_itself() -> None:
    # The collector of garbage may release a slot while a slot is being released.
    one = owner()
    slots = take_all(one)
    holder = user(one)
    for slot in slots:
        holder.acquire(slot)

    class Counters:
        def __getitem__(self, slot: int) -> int:
            value = real[slot]
            if len(slots) > 1:
                holder.release(slots.pop())
            return value

        def __setitem__(self, slot: int, value: int) -> None:
            real[slot] = value

    real = holder._released
    holder._released = Counters()  # type: ignore[assignment]
    holder.release(slots.pop(0))
    while slots:
        holder.release(slots.pop())
    assert holder.n_held == 0
    assert list(real) == list(holder.pool.acquired[0])


def test_threads_release_at_once() -> None:
    one = owner()
    holder = user(one)
    for slot in range(LAYOUT.n_slots):
        for _ in range(500):
            holder.acquire(slot)
    threads = [
        threading.Thread(target=lambda: [holder.release(s) for s in range(8) for _ in range(100)])
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert holder.n_held == 0
    assert list(holder.pool.released[0]) == [500] * 8


def test_who_gets_no_column_copies_before_the_sender_lets_go() -> None:
    one = owner()
    users = [user(one) for _ in range(pool_file.N_COLUMNS)]
    slot = one.take()
    assert slot is not None
    one.pool.slot(slot)[:] = 9
    header = header_of(100)
    reader = PoolReader()
    place = PayloadPlace(one.key, slot, one.generation(slot))
    assert reader.payload(place, header) == bytes([9]) * 100
    assert reader.payload(place._replace(generation=0), header) is None
    assert "reused" in reader.problem
    assert reader.payload(place._replace(slot=8), header) is None
    reader.close()
    assert users


def test_who_keeps_many_gets_copies() -> None:
    one = owner()
    reader = PoolReader()
    kept = []
    for _ in range(LAYOUT.n_slots):
        slot = one.take()
        assert slot is not None
        kept.append(
            reader.payload(PayloadPlace(one.key, slot, one.generation(slot)), header_of(10))
        )
    assert [held_memory_of(one) is not None for one in kept] == [True, True] + [False] * 6
    reader.close()


def header_of(nbytes: int) -> SampleHeader:
    parts = Parts(1, 1, payload=np.zeros(nbytes, np.uint8), nbytes=nbytes)
    memory = (ctypes.c_uint8 * 1000)()
    parts.write(memory, 0, 1000, 1)
    return read_header(memory)._replace(payload_at=0)
