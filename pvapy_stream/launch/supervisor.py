"""Processes under supervision: started again when they die, with growing pauses, within limits.

Consumers of one command, programs of a workflow and workers of a pool are supervised by the same
rules. This module knows nothing of what runs in the processes.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from pvapy_stream.errors import WorkflowError
from pvapy_stream.launch.entry import STOP

_ABSENT_PAUSE = 1.0  # s; how often it is looked whether a place has come back
_ABSENT_LIMIT = 600.0  # s; how long it is waited for


class AbsentError(WorkflowError):
    """The place where a process is to run is not there for the moment."""


class RestartPolicy(Struct, frozen=True):
    """When a process that died is started again.

    Attributes:
        limit: how often it is started again until it has been quiet.
        start_limit: the same for one that dies before it has begun its work, if that is more: it
            has lost nothing.
        first_pause: s before the first restart; each further one waits twice as long.
        longest_pause: s.
        quiet: s without a death, after which counting and pauses begin anew.
    """

    limit: int = 3
    start_limit: int = 0
    first_pause: float = 0.2
    longest_pause: float = 20.0
    quiet: float = 120.0


class Restarts:
    """The restarts of a process, or of several that share one limit.

    Attributes:
        total: restarts so far.
        recent: restarts since the last quiet time.
    """

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy = policy
        self.total = 0
        self.recent = 0
        self._last_death = float("-inf")

    def pause(self, begun: bool = True) -> float | None:
        """Count a death; s until the process is started again, or None when it is not.

        Args:
            begun: whether it had begun its work.
        """
        policy, now = self.policy, time.monotonic()
        if now - self._last_death > policy.quiet:
            self.recent = 0
        self._last_death = now
        if self.recent >= self.limit(begun):
            return None
        pause = min(policy.longest_pause, policy.first_pause * 2**self.recent)
        self.recent += 1
        self.total += 1
        return pause

    def limit(self, begun: bool = True) -> int:
        """How many restarts there may be at most."""
        policy = self.policy
        return policy.limit if begun else max(policy.limit, policy.start_limit)


class Process(Protocol):
    """One incarnation of what is supervised."""

    @property
    def pid(self) -> int | None:
        """Its process id."""
        ...

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        ...

    def send_word(self, word: str) -> None:
        """Send it a word; nothing happens when it is gone."""

    def kill(self) -> None:
        """End it by force."""


class Death(Struct, frozen=True):
    """A process that died.

    Attributes:
        name: of what was supervised.
        time: s since 1970.
        how: such as ``signal SIGKILL``.
        restarted: whether it is started again.
    """

    name: str
    time: float
    how: str
    restarted: bool


P = TypeVar("P", bound=Process)


class Supervised(Generic[P]):
    """One process over all its incarnations.

    Args:
        name: for messages.
        start: starts an incarnation; gets its number, from 1 on.
        restarts: counts and limits restarts; several may share one.
        say: takes a line about what happened.

    Attributes:
        process: that runs now; None between two incarnations and after the last.
        incarnation: how often it was started.
        deaths: how and when incarnations died.
        problem: why the run is no success, or "".
        ended: it will not run again.
        gave_up: it died, or ended with an error, and is not started again.
        stopping: it was asked to end, so it is not started again.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[int], P],
        restarts: Restarts,
        say: Callable[[str], None],
    ) -> None:
        self.name = name
        self._start_process = start
        self._restarts = restarts
        self._say = say
        self.process: P | None = None
        self.incarnation = 0
        self.deaths: list[Death] = []
        self.problem = ""
        self.ended = False
        self.gave_up = False
        self.stopping = False
        self._due: float | None = None
        self._absent_since: float | None = None

    # -- what kinds of processes report ----------------------------------------------------------

    def judge(self, process: P, code: int) -> str | None:
        """How an incarnation ended: "" in order; None when it died; else why it is no success."""
        return "" if code == 0 else None

    def begun(self) -> bool:
        """Whether the present incarnation has begun its work."""
        return True

    def cause(self, process: P, code: int) -> str:
        """What an incarnation died of."""
        return exit_words(code)

    def last_words(self, process: P) -> str:
        """The last it said, for the message that it is not started again."""
        return ""

    def bury(self, process: P, died: bool) -> None:
        """Keep what is needed of an incarnation that ended, or died."""

    def receive(self) -> bool:
        """Take what the present incarnation has sent; whether that was anything."""
        return False

    @property
    def sources(self) -> tuple[Any, ...]:
        """What `multiprocessing.connection.wait` finds ready when there is news of it."""
        return ()

    # -- life ------------------------------------------------------------------------------------

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(0, self.incarnation - 1)

    @property
    def away(self) -> bool:
        """Whether it is between two incarnations."""
        return self.process is None and not self.ended

    def start(self) -> None:
        """Start the next incarnation."""
        self.incarnation += 1
        self._due = None
        self.process = self._start_process(self.incarnation)

    def send_word(self, word: str) -> None:
        """Send a word to the present incarnation."""
        if self.process is not None:
            self.process.send_word(word)

    def stop(self, word: str = STOP) -> None:
        """From now on it is expected to end, and is not started again; it is sent the word."""
        self.stopping = True
        if self.process is None:
            self.ended = True
        elif word:
            self.send_word(word)

    def kill(self) -> None:
        """End it by force."""
        if self.process is not None and not self.ended:
            self.process.kill()

    def poll(self) -> bool:
        """Look after it: start it again when its pause is over; whether something changed."""
        if self.ended:
            return False
        news = self.receive()
        if self._due is not None and time.monotonic() >= self._due:
            self._start_again()
            return True
        process = self.process
        code = process.poll() if process is not None else None
        if process is None or code is None:
            return news
        why = self.judge(process, code)
        begun = self.begun()
        self.process = None
        self.bury(process, why is None)
        if why is None:
            self._died(process, code, begun)
        else:
            self.ended = True
            if why:
                # What was said of earlier deaths is still true.
                self.problem = "; ".join(filter(None, (self.problem, why)))
                self.gave_up = True
        return True

    def _start_again(self) -> None:
        try:
            self.start()
            self._absent_since = None
        except AbsentError as error:
            self._wait_for_place(error)
        except Exception as error:
            self._give_up(f"{self.name} cannot be started again: {error}")

    def _wait_for_place(self, error: AbsentError) -> None:
        """Try again later: what is no attempt is not counted as one."""
        now = time.monotonic()
        self.incarnation -= 1
        if self._absent_since is None:
            self._absent_since = now
            self._say(f"{self.name} waits to be started again, for {_ABSENT_LIMIT:g} s: {error}")
        if now - self._absent_since > _ABSENT_LIMIT:
            self._give_up(f"{self.name} was not started again within {_ABSENT_LIMIT:g} s: {error}")
        else:
            self._due = now + _ABSENT_PAUSE

    def _died(self, process: P, code: int, begun: bool) -> None:
        how = self.cause(process, code)
        pause = None if self.stopping else self._restarts.pause(begun)
        self.deaths.append(Death(self.name, time.time(), how, pause is not None))
        if pause is None:
            last = self.last_words(process)
            after = f" after {self.restarts} restarts" if self.restarts else ""
            self._give_up(f"{self.name} died ({how}){after}{': ' + last if last else ''}")
            return
        self._due = time.monotonic() + pause
        died = f"died ({how})"
        if len(self.deaths) > 1:
            died = f"died {len(self.deaths)} times, the last time by {how},"
        self.problem = f"{self.name} {died} and was started again"
        self._say(
            f"{self.name} died ({how}); restart {self._restarts.recent} of at most"
            f" {self._restarts.limit(begun)} in {pause:g} s"
        )

    def _give_up(self, problem: str) -> None:
        self.ended = self.gave_up = True
        self._due = None
        self.problem = problem
        self._say(problem)


S = TypeVar("S", bound=Supervised[Any])


class Supervisor(Generic[S]):
    """Processes that are looked after, and ended, together.

    Args:
        members: the processes.
    """

    def __init__(self, members: Sequence[S]) -> None:
        self.members = list(members)
        self._deadline = math.inf

    @property
    def ended(self) -> bool:
        """Whether none will run again."""
        return all(one.ended for one in self.members)

    @property
    def deaths(self) -> list[Death]:
        """How and when incarnations died."""
        return [death for one in self.members for death in one.deaths]

    @property
    def problems(self) -> list[str]:
        """Why the run is no success."""
        return [one.problem for one in self.members if one.problem]

    def send_word(self, word: str) -> None:
        """Send a word to all."""
        for one in self.members:
            one.send_word(word)

    def poll(self, timeout: float = 0.0) -> bool:
        """Look after all, after at most `timeout` s without news; whether there was any.

        Those that were to stop within a limit that is over are ended by force.
        """
        if timeout:
            wait([source for one in self.members for source in one.sources], timeout)
        news = sum(one.poll() for one in self.members) > 0
        if time.monotonic() > self._deadline:
            self.kill()
        return news

    def stop(self, word: str, limit: float) -> None:
        """Ask all to end; `poll` ends those by force that have not done so within `limit` s."""
        self._deadline = time.monotonic() + limit
        for one in self.members:
            one.stop(word)

    def kill(self) -> None:
        """End all by force."""
        self._deadline = math.inf
        for one in self.members:
            if not one.ended:
                one.stop("")
                one.kill()
                one.poll()


def exit_words(code: int | None) -> str:
    """An exit code for people."""
    if code is not None and code < 0:
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"


def restart_lines(deaths: list[Death]) -> list[str]:
    """The report of deaths at the end of a run: a line for each process that died."""
    by_name: dict[str, list[Death]] = {}
    for death in sorted(deaths, key=lambda one: one.time):
        by_name.setdefault(death.name, []).append(death)
    lines: list[str] = []
    for name, those in by_name.items():
        again = sum(death.restarted for death in those)
        how = ", ".join(
            f"{time.strftime('%H:%M:%S', time.localtime(death.time))} {death.how}"
            for death in those
        )
        lines.append(f"{name}: restarted {again} time{'s' if again != 1 else ''} ({how})")
    return lines
