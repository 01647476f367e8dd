"""Payload pools: the protocol between owner, holders and kills, at any interleaving."""

from __future__ import annotations

import ctypes
import gc
import os
import stat
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pvapy_stream.transport.shm import folder, pool_file
from pvapy_stream.transport.shm.frames import Parts, SampleHeader, read_header
from pvapy_stream.transport.shm.pool_file import PoolLayout, create_pool, open_pool, sweep
from pvapy_stream.transport.shm.pool_owner import PoolOwner
from pvapy_stream.transport.shm.pool_reader import PoolReader
from pvapy_stream.transport.shm.pool_user import PoolUser, held_memory_of, join_pool
from pvapy_stream.transport.shm.references import InFlight, Place, Reference

OWNER = bytes(range(16))
LAYOUT = PoolLayout(8, 4096)


def nobody(_: bytes) -> bool:
    return False


@pytest.fixture(autouse=True)
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folder, "SHM", tmp_path)
    return tmp_path


def pools() -> list[str]:
    there = folder.path() / "pools"
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
    path = folder.path() / "pools" / name
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
    damage(folder.path() / "pools" / one.key.hex())
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
    assert one.holders() == {os.getpid(): 7}
    killed(holder)
    assert sorted(take_all(one)) == [0, 1, 2, 4, 5, 6, 7]


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
    place = Place(one.key, slot, one.generation(slot))
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
        kept.append(reader.payload(Place(one.key, slot, one.generation(slot)), header_of(10)))
    assert [held_memory_of(one) is not None for one in kept] == [True, True] + [False] * 6
    reader.close()


def header_of(nbytes: int) -> SampleHeader:
    parts = Parts(1, 1, payload=np.zeros(nbytes, np.uint8), nbytes=nbytes)
    memory = (ctypes.c_uint8 * 1000)()
    parts.write(memory, 0, 1000, 1)
    return read_header(memory)._replace(payload_at=0)


# -- any interleaving ----------------------------------------------------------------------------


class Stage:
    """A stage with one subscriber, which may be killed at any instant."""

    def __init__(self, number: int, of: PoolOwner) -> None:
        self.key = bytes([number + 1]) * 16
        self.receives, self.publishes = user(of), user(of, self.key)
        self.received: deque[tuple[int, Any, int]] = deque()  # sequence, place, number
        self.secured = 0
        self.in_flight = InFlight()  # of the references that it sent on
        self.n_sent = 0
        self.held: list[tuple[Place, Any, int]] = []
        self.alive = True


class Chain(RuleBasedStateMachine):
    """A source and stages; each rule is a step between two of which a process may be killed."""

    second_check = True

    def __init__(self) -> None:
        super().__init__()
        self.stages: list[Stage] = []
        self.owner = PoolOwner(OWNER, PoolLayout(3, 4096), self.connected)
        self.in_flight = InFlight()  # of the source
        self.n_sent = self.number = 0
        self.started = 0
        self.between: list[Callable[[], None]] = []
        used = self.owner._used

        def meanwhile() -> list[int]:
            # Others go on between the two passes of the owner.
            while self.between:
                self.between.pop()()
            return used()

        self.owner._used = meanwhile  # type: ignore[method-assign]
        claim = self.owner._claim
        if not self.second_check:
            self.owner._claim = lambda slot: claim(slot) or True  # type: ignore[method-assign]
        for _ in range(3):
            self.start()

    def connected(self, key: bytes) -> bool:
        """Whether the stage after the one with this key has not taken all that it sent."""
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            if before.key == key:
                return after.alive and bool(after.received)
        return False

    def start(self) -> None:
        self.started += 1
        self.stages.append(Stage(self.started, self.owner))

    @rule()
    def publish(self) -> None:
        slot = self.owner.take()
        if slot is None or not self.stages or not self.stages[0].alive:
            if slot is not None:
                self.owner.release(slot)
            return
        self.number += 1
        self.owner.pool.slot(slot).view(np.int64)[:] = self.number
        place = Place(self.owner.key, slot, self.owner.generation(slot))
        reference = Reference(Parts(1, self.number), place, 0, self.owner)
        self.n_sent += 1
        self.in_flight.add(self.n_sent, reference)
        self.stages[0].received.append((self.n_sent, place, self.number))
        reference.release()

    @rule(index=st.integers(0, 2), now=st.booleans())
    def acquire(self, index: int, now: bool) -> None:
        self.do(now, lambda: self._acquire(self.stages[index]))

    def _acquire(self, stage: Stage) -> None:
        """Take from the queue, acquire, and only then say so."""
        if not stage.alive or not stage.received:
            return
        sequence, place, number = stage.received[0]
        # Nothing is ever lost, as the sender, alive or dead, holds it.
        assert stage.receives.acquire_checked(place.slot, place.generation), number
        stage.held.append((place, stage.receives.memory(place.slot), number))
        stage.received.popleft()
        stage.secured = sequence

    @rule(index=st.integers(0, 2), now=st.booleans())
    def prune(self, index: int, now: bool) -> None:
        self.do(now, lambda: self._prune(index))

    def _prune(self, index: int) -> None:
        sender = self.stages[index - 1] if index else self
        if index and not self.stages[index - 1].alive:
            return
        if self.stages[index].alive:
            sender.in_flight.prune(self.stages[index].secured)
        else:
            sender.in_flight.end()

    @rule(index=st.integers(0, 1), now=st.booleans())
    def pass_on(self, index: int, now: bool) -> None:
        self.do(now, lambda: self._pass_on(*self.stages[index : index + 2]))

    def _pass_on(self, stage: Stage, to: Stage) -> None:
        if not stage.alive or not stage.held or not to.alive:
            return
        place, _, number = stage.held[-1]
        stage.publishes.acquire(place.slot)
        reference = Reference(Parts(1, number), place, 0, stage.publishes)
        stage.n_sent += 1
        stage.in_flight.add(stage.n_sent, reference)
        to.received.append((stage.n_sent, place, number))
        reference.release()

    @rule(index=st.integers(0, 2), now=st.booleans())
    def let_go(self, index: int, now: bool) -> None:
        self.do(now, lambda: self._let_go(self.stages[index]))

    def _let_go(self, stage: Stage) -> None:
        if stage.alive and stage.held:
            stage.held.pop(0)

    @rule(index=st.integers(0, 2), sent=st.booleans())
    def kill(self, index: int, sent: bool) -> None:
        stage = self.stages[index]
        assume(stage.alive)
        if sent and stage.held:
            # It had acquired, and not sent.
            stage.publishes.acquire(stage.held[-1][0].slot)
        stage.alive = False
        for one in (stage.receives, stage.publishes):
            killed(one)
            # Its memory is gone: nothing is released by it any more.
            one._process = -1
        stage.held.clear()
        stage.received.clear()

    @rule(index=st.integers(0, 2))
    def replace(self, index: int) -> None:
        """Another program takes the place of a dead one; its subscriber takes all before."""
        old = self.stages[index]
        assume(not old.alive)
        if index < 2 and self.stages[index + 1].alive:
            while self.stages[index + 1].received:
                self._acquire(self.stages[index + 1])
        self._prune(index)
        self.started += 1
        self.stages[index] = Stage(self.started, self.owner)
        if index < 2:
            self.stages[index + 1].secured = 0
        if index:
            self.stages[index - 1].n_sent = 0
        else:
            self.n_sent = 0

    @rule()
    def look_for_dead(self) -> None:
        look_for_dead(self.owner)

    @precondition(lambda self: self.between)
    @rule()
    def forget(self) -> None:
        self.between.clear()

    def do(self, now: bool, step: Callable[[], Any]) -> None:
        if now:
            step()
        else:
            self.between.append(step)

    @invariant()
    def what_is_held_is_what_was_sent(self) -> None:
        for stage in self.stages:
            for _, memory, number in stage.held:
                assert (np.frombuffer(memory, np.int64) == number).all()

    def teardown(self) -> None:
        """All leave, and nothing is left."""
        self.between.clear()
        for stage in self.stages:
            if stage.alive:
                stage.held.clear()
                stage.in_flight.end()
                stage.receives.close()
                stage.publishes.close()
        self.in_flight.end()
        self.stages.clear()
        look_for_dead(self.owner)
        assert self.owner.unused
        self.owner.close()
        assert pools() == []


class ChainWithoutSecondCheck(Chain):
    """The counters alone must be enough."""

    second_check = False


@pytest.mark.parametrize("chain", [Chain, ChainWithoutSecondCheck])
def test_any_interleaving_of_owner_holders_and_kills(chain: type[Chain]) -> None:
    run_state_machine_as_test(
        chain,
        settings=settings(
            max_examples=120,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@given(st.lists(st.integers(0, 3), max_size=30))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_in_flight_holds_until_secured(steps: list[int]) -> None:
    one = owner()
    slot = one.take()
    assert slot is not None
    reference = Reference(Parts(1, 1), Place(one.key, slot, 1), 0, one)
    in_flight, sent, secured = InFlight(), 0, 0
    for step in steps:
        if step:
            sent += 1
            in_flight.add(sent, reference)
        else:
            secured = min(sent, secured + 2)
            in_flight.prune(secured)
        assert len(in_flight) == sent - secured
        assert one._held[slot] == 1 + sent - secured
    in_flight.end()
    reference.release()
    assert one.unused
    one.close()
