"""Payload pools at any interleaving of owner, holders and kills: real counters, real locks."""

from __future__ import annotations

import math
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
    rule,
    run_state_machine_as_test,
)

from pvapy_stream.transport.shm import user_folder
from pvapy_stream.transport.shm.frames import Parts
from pvapy_stream.transport.shm.pool_file import PoolLayout
from pvapy_stream.transport.shm.pool_owner import PoolOwner
from pvapy_stream.transport.shm.references import InFlight, PayloadPlace, Reference
from tests.support import rounds
from tests.transport.test_shm_pool import OWNER, killed, look_for_dead, owner, pools, user


@pytest.fixture(autouse=True)
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(user_folder, "SHM", tmp_path)
    return tmp_path


class Stage:
    """A stage with one subscriber, which may be killed at any instant."""

    def __init__(self, number: int, of: PoolOwner) -> None:
        self.key = bytes([number + 1]) * 16
        self.receives, self.publishes = user(of), user(of, self.key)
        self.received: deque[tuple[int, Any, int]] = deque()  # sequence, place, number
        self.secured = 0
        self.in_flight = InFlight()  # of the references that it sent on
        self.n_sent = 0
        self.held: list[tuple[PayloadPlace, Any, int]] = []
        self.alive = True


class Chain(RuleBasedStateMachine):
    """A source and stages; each rule is a step between two of which a process may be killed."""

    second_check = True

    def __init__(self) -> None:
        super().__init__()
        self.stages: list[Stage] = []
        self.owner = PoolOwner(OWNER, PoolLayout(3, 4096), self.connected)
        # Time plays no part: only the rule looks for dead users.
        self.owner._clear_due = math.inf
        self.in_flight = InFlight()  # of the source
        self.n_sent = self.number = 0
        self.started = 0
        # What the source itself wrote in place and keeps, with its number.
        self.own: list[tuple[Any, int]] = []
        self.between: list[Callable[[], None]] = []
        used, unheld = self.owner._used, self.owner._unheld
        self.n_passes = -1  # of the owner over the columns; -1: it does not read them

        def two_passes() -> list[bool]:
            self.n_passes = 0
            try:
                return unheld()
            finally:
                self.n_passes = -1

        def meanwhile() -> list[int]:
            # Others go on between the two passes.
            if self.n_passes >= 0:
                self.n_passes += 1
            if self.n_passes == 2:
                steps, self.between = self.between, []
                for step in steps:
                    step()
            return used()

        self.owner._unheld = two_passes  # type: ignore[method-assign]
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
        place = PayloadPlace(self.owner.key, slot, self.owner.generation(slot))
        reference = Reference(Parts(1, self.number), place, 0, self.owner)
        self.n_sent += 1
        self.in_flight.add(self.n_sent, reference)
        self.stages[0].received.append((self.n_sent, place, self.number))
        reference.release()

    @rule()
    def reserve(self) -> None:
        memory = self.owner.reserve(4096)
        if memory is not None:
            self.number += 1
            np.frombuffer(memory, np.int64)[:] = self.number
            self.own.append((memory, self.number))

    @rule(again=st.booleans())
    def publish_in_place(self, again: bool) -> None:
        if not self.own or not self.stages[0].alive:
            return
        memory, number = self.own[-1]
        place = PayloadPlace(self.owner.key, memory.slot, self.owner.generation(memory.slot))
        for _ in range(1 + again):
            self.owner.acquire(memory.slot)
            reference = Reference(Parts(1, number), place, 0, self.owner)
            self.n_sent += 1
            self.in_flight.add(self.n_sent, reference)
            self.stages[0].received.append((self.n_sent, place, number))
            reference.release()

    @rule(now=st.booleans())
    def drop_own(self, now: bool) -> None:
        self.do(now, lambda: self.own.pop(0) if self.own else None)

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

    @rule(index=st.integers(1, 2), now=st.booleans())
    def hand_over(self, index: int, now: bool) -> None:
        """The hold of a slot moves from one stage to the next."""
        self.do(now, lambda: self._acquire(self.stages[index]))
        self.do(now, lambda: self._prune(index))
        self.do(now, lambda: self._let_go(self.stages[index - 1]))

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
        self.owner._collect()
        self.owner._clear_due = math.inf

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
        for memory, number in self.own:
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
        self.own.clear()
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
            max_examples=rounds(40),
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[*HealthCheck],
        ),
    )


@given(st.lists(st.integers(0, 3), max_size=30))
@settings(max_examples=50, deadline=None, suppress_health_check=[*HealthCheck])
def test_in_flight_holds_until_secured(steps: list[int]) -> None:
    one = owner()
    slot = one.take()
    assert slot is not None
    reference = Reference(Parts(1, 1), PayloadPlace(one.key, slot, 1), 0, one)
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
