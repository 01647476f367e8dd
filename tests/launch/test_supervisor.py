from __future__ import annotations

import gc
import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import psutil
import pytest

from pvapy_stream.launch.child import Child, SupervisedChild
from pvapy_stream.launch.entry import STOP, enter
from pvapy_stream.launch.supervisor import RestartPolicy, Restarts, Supervisor
from tests.support import wait_until

QUICK = RestartPolicy(limit=2, first_pause=0.0)


COLLECTED_WHILE_IMPORTED = gc.isenabled()


def tell(pipe: Connection) -> None:
    pipe.send((COLLECTED_WHILE_IMPORTED, gc.isenabled()))


def obey(pipe: Connection) -> None:
    enter()
    pipe.send(os.getpid())
    pipe.recv()


def deaf(pipe: Connection) -> None:
    enter()
    pipe.send(os.getpid())
    while True:
        time.sleep(60)


def parent(pipe: Connection) -> None:
    enter()
    pipe.send(Talking("grandchild", orphan).wait_for_word())
    pipe.recv()


def orphan(pipe: Connection) -> None:
    enter(0.0)
    pipe.send(os.getpid())
    while True:
        time.sleep(60)


def timed(pipe: Connection) -> None:
    enter()
    while True:
        pipe.recv()
        pipe.send(signal.getitimer(signal.ITIMER_REAL)[0])


class Talking(Child):
    word: Any = None

    def take(self, message: Any) -> None:
        self.word = message

    def wait_for_word(self) -> Any:
        wait_until(lambda: self.receive() or self.word, 60)
        return self.word


def supervised(target: Any, policy: RestartPolicy = QUICK) -> Supervisor[SupervisedChild[Talking]]:
    one: SupervisedChild[Talking] = SupervisedChild(
        "one", lambda _: Talking("one", target), Restarts(policy), lambda _: None
    )
    one.start()
    return Supervisor([one])


def running(group: Supervisor[SupervisedChild[Talking]]) -> int:
    """Poll until the present incarnation runs; its process id."""
    (one,) = group.members

    def pid() -> int | None:
        group.poll(0.1)
        return one.process.word if one.process is not None else None

    wait_until(lambda: pid() is not None, 60)
    return pid() or 0


def ended(group: Supervisor[SupervisedChild[Talking]]) -> None:
    wait_until(lambda: group.poll(0.1) is not None and group.ended, 60)


def test_a_child_that_dies_is_started_again_up_to_the_limit() -> None:
    group = supervised(obey)
    for number in (1, 2, 3):
        os.kill(running(group), signal.SIGKILL)
        wait_until(lambda n=number: group.poll(0.1) and len(group.deaths) == n, 60)
    ended(group)
    assert [death.restarted for death in group.deaths] == [True, True, False]
    assert {death.how for death in group.deaths} == {"signal SIGKILL"}
    assert group.problems == ["one died (signal SIGKILL) after 2 restarts"]


def test_a_child_that_is_asked_to_end_is_not_started_again() -> None:
    group = supervised(obey)
    running(group)
    group.stop(STOP, 60)
    ended(group)
    assert (group.deaths, group.problems) == ([], [])


def test_a_child_that_does_not_obey_is_killed_when_its_limit_is_over() -> None:
    group = supervised(deaf)
    pid = running(group)
    group.stop(STOP, 0.2)
    ended(group)
    assert [death.restarted for death in group.deaths] == [False]
    assert not psutil.pid_exists(pid)


def test_a_grandchild_ends_by_force_when_its_parent_is_killed() -> None:
    child = Talking("parent", parent)
    pid = child.wait_for_word()
    child.kill()
    wait_until(lambda: not psutil.pid_exists(pid) or is_zombie(pid), 60)
    assert child.poll() == -signal.SIGKILL


def test_a_child_collects_garbage_from_when_its_modules_are_imported() -> None:
    child = Child("tell", tell)
    assert child.pipe.poll(60)
    assert child.pipe.recv() == (False, True)
    wait_until(lambda: child.poll() == 0, 60)


def test_a_child_outlives_the_thread_that_started_it() -> None:
    made: list[Talking] = []

    def time_left() -> float:
        (child,) = made
        child.send_word("?")
        wait_until(child.receive, 60)
        return child.word

    def start() -> None:
        made.append(Talking("timed", timed))
        # It has entered when it answers.
        assert time_left() == 0

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    # The kernel takes the end of the thread for that of the process.
    wait_until(lambda: time_left() > 0, 60)
    wait_until(lambda: time_left() == 0, 60)
    made[0].kill()
    assert made[0].poll() == -signal.SIGKILL


def is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    ("begun", "pauses"), [(True, [1.0, 2.0, None]), (False, [1.0, 2.0, 3.0, 3.0, None])]
)
def test_pauses_grow_within_limits(begun: bool, pauses: list[float | None]) -> None:
    restarts = Restarts(RestartPolicy(2, start_limit=4, first_pause=1.0, longest_pause=3.0))
    assert [restarts.pause(begun) for _ in pauses] == pauses
    assert restarts.total == len(pauses) - 1


def test_after_a_quiet_time_counting_begins_anew() -> None:
    restarts = Restarts(RestartPolicy(1, first_pause=0.5, quiet=0.0))
    assert [restarts.pause() for _ in range(3)] == [0.5, 0.5, 0.5]
    assert (restarts.recent, restarts.total) == (1, 3)
