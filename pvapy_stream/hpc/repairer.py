"""Asks the source of a stage for objects that the stage missed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, Protocol

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.hpc.deadline import Deadline
from pvapy_stream.hpc.stage import Stage
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.net.client_past import NOT_OFFERED
from pvapy_stream.transport.past_reader import PastAnswer, PastReader
from pvapy_stream.transport.ports import Receiver

_LOOK = 0.1  # s; between two looks for ids that are missed
_TOGETHER = 1.0  # s; what is missed within this time is asked for together
_AT_ONCE = 250  # ids of one request
_AGAIN = 0.5  # s; until a request that was not answered is made again
_LAST = 5.0  # s; for the thread to end
_COMES_BACK = 5.0  # s; how long a source that cannot be reached is waited for at the end

ANOTHER_SOURCE = "the source is another program"
BEGAN_AGAIN = "ids have started again"
TOO_LATE = "the source did not answer in time"
NEVER = "the source did not publish it"
_REASONS = {
    "gone": "the source keeps too little of the past",
    "several": "the source published it more than once",
}

_log = logging.getLogger(__name__)


def await_connection(receiver: Receiver, deadline: Deadline) -> None:
    """Wait for a source whose connection was cut: it has what is missed."""
    until = time.monotonic() + _COMES_BACK
    while receiver.was_connected and not receiver.connected:
        if deadline.over or time.monotonic() > until:
            return
        time.sleep(_LOOK)


class Owner(Protocol):
    """What is needed of the runner of the stage."""

    stage: Stage
    paused: bool


class Asked(NamedTuple):
    """A channel that is asked for missed objects.

    Attributes:
        reader: asks its server.
        program: names the program that the present objects come from; "" if it is not known.
        take: gives the stage an object that was missed in an epoch; its id if the stage took it.
    """

    reader: PastReader
    program: Callable[[], str]
    take: Callable[[StreamObject, int], int | None]


@dataclass(slots=True)
class _Gap:
    """Ids that were missed together.

    Attributes:
        ids: those that are not answered yet.
        epoch: of the stage, when they were missed.
        ledger: of that epoch.
        programs: those that the objects around them came from, by channel.
        until: when they are asked for no longer, s of `time.monotonic`.
    """

    ids: IdSet
    epoch: int
    ledger: Ledger
    programs: list[str]
    until: float


@dataclass(slots=True)
class _Known:
    """Missed ids of one epoch that were seen."""

    epoch: int = -1
    ids: IdSet = field(default_factory=IdSet)


class Repairer:
    """Looks for missed ids and asks for them, in a thread of its own.

    Each id is asked for until all channels have answered, or its time is over. At most `_AT_ONCE`
    ids are asked for at a time. An object is given to the stage in the thread of the reader, which
    waits for it: the source waits, too.

    Args:
        owner: the runner of the stage.
        asked: the channels; of several, each has published a part of the ids.
        limit: how long an id is asked for, s.
    """

    def __init__(self, owner: Owner, asked: Sequence[Asked], limit: float) -> None:
        self._owner = owner
        self._stage = owner.stage
        self._asked = asked
        self._limit = limit
        self._gaps: list[_Gap] = []
        self._known = _Known()
        self._seen: tuple[int | None, ...] = ()
        self._not_before = 0.0
        self._ends = threading.Event()
        self._cut_off = self._finishes = False
        self._thread = threading.Thread(target=self._run, name="repair", daemon=True)
        self.problem = ""  # why the source gives nothing, or ""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def look(self) -> None:
        """Note what has been missed since the last look; needs the lock of the stage."""
        stage, present = self._stage, self._present
        if present == self._seen:
            return
        self._seen = present
        if self._known.epoch != stage.n_begun:
            self._known = _Known(stage.n_begun)
        new = stage.to_repair - self._known.ids
        if new:
            self._known.ids.update(new)
            until = time.monotonic() + self._limit
            programs = [one.program() for one in self._asked]
            self._add(_Gap(new, stage.n_begun, stage.missing_in, programs, until))

    @property
    def _present(self) -> tuple[int | None, ...]:
        """What differs when something more is missed."""
        tracker = self._stage.tracker
        missed, unknown = tracker.missed, tracker.unknown
        return len(missed), missed.last, len(unknown), unknown.last, self._stage.n_begun

    def _add(self, gap: _Gap) -> None:
        last = self._gaps[-1] if len(self._gaps) > 1 else None
        if (
            last is not None
            and (last.epoch, last.programs) == (gap.epoch, gap.programs)
            and gap.until - last.until < _TOGETHER
        ):
            # Not the first, which the other thread may be asking for.
            last.ids.update(gap.ids)
        else:
            self._gaps.append(gap)

    @property
    def outstanding(self) -> int:
        """How many ids are not answered yet."""
        return sum(len(gap.ids) for gap in list(self._gaps))

    def finish(self, deadline: Deadline) -> None:
        """Wait until what is missed now is answered, until the deadline; then end."""
        self._finishes = True
        while self._thread.is_alive() and not deadline.over:
            if self._stage.lock.acquire(timeout=_LOOK):
                try:
                    self.look()
                finally:
                    self._stage.lock.release()
                if not self._gaps:
                    break
            time.sleep(_LOOK)
        self._cut_off = True
        self._ends.set()
        self._thread.join(_LAST)
        for one in self._asked:
            one.reader.close()
        for gap in [*self._gaps]:
            self._give_up(gap, TOO_LATE)

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ends.wait(_LOOK):
            try:
                if self._present != self._seen:
                    with self._stage.lock:
                        self.look()
                while self._ask():
                    pass
            except Exception:
                _log.exception("missed objects cannot be asked for")
                self._not_before = time.monotonic() + _AGAIN

    def _ask(self) -> bool:
        """Deal with the first gap; whether to go on at once."""
        if not self._gaps or not self._may_take() or time.monotonic() < self._not_before:
            return False
        gap = self._gaps[0]
        with self._stage.lock:
            # Some have come late, or were filtered.
            still = self._stage.n_begun == gap.epoch
            if still:
                gap.ids = self._stage.still_missed(gap.ids)
        if not still:
            self._give_up(gap, BEGAN_AGAIN)
        elif not gap.ids:
            self._gaps.remove(gap)
        elif time.monotonic() > gap.until:
            self._give_up(gap, TOO_LATE)
        else:
            self._ask_for(gap)
        return True

    def _ask_for(self, gap: _Gap) -> None:
        """Ask all channels for the first ids of a gap."""
        ids = IdSet(islice(gap.ids, _AT_ONCE))
        reasons: dict[str, IdSet] = {}
        for one, program in zip(self._asked, gap.programs, strict=True):
            if not ids:
                break
            if not program or one.program() != program:
                reasons[ANOTHER_SOURCE if program else NOT_OFFERED] = ids
                continue
            answer, came = self._ask_one(one, program, ids, gap.epoch)
            gap.ids = gap.ids - came
            ids = ids - came
            self._note_problem(one.reader.channel, answer.problem)
            if answer.problem:
                reasons[answer.problem] = ids
            elif answer.complete:
                for why, absent in answer.absent.items():
                    reasons.setdefault(_REASONS.get(why, why), IdSet()).update(IdSet(absent))
            else:
                # Whether it has them is not known yet.
                self._not_before = time.monotonic() + _AGAIN
                return
        for reason, absent in reasons.items():
            self._stage.note_unrepairable(reason, ids & absent, gap.ledger)
            gap.ids = gap.ids - absent
            ids = ids - absent
        self._stage.note_unrepairable(NEVER, ids, gap.ledger)
        gap.ids = gap.ids - ids
        if not gap.ids:
            self._gaps.remove(gap)

    def _ask_one(
        self, one: Asked, program: str, ids: IdSet, epoch: int
    ) -> tuple[PastAnswer, IdSet]:
        """Ask a channel; its answer, and the ids that came."""
        came = IdSet()

        def take(obj: StreamObject) -> bool:
            if not self._may_take():
                return False
            value = one.take(obj, epoch)
            if value is not None:
                came.add(value)
            return True

        return one.reader.read([*ids], program, take, self._may_take), came

    def _note_problem(self, channel: str, problem: str) -> None:
        if problem and problem not in self.problem:
            _log.warning("channel %s: missed objects cannot be repaired: %s", channel, problem)
        self.problem = problem

    def _may_take(self) -> bool:
        return not self._cut_off and (self._finishes or not self._owner.paused)

    def _give_up(self, gap: _Gap, reason: str) -> None:
        self._stage.note_unrepairable(reason, gap.ids, gap.ledger)
        self._gaps.remove(gap)
