"""Runs connected stages: starts them in any order, supervises, drains in order, audits."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from pvapy_stream.accounting.audit_result import AuditResult, audit
from pvapy_stream.accounting.ledger import Ledger, wanted
from pvapy_stream.accounting.witness import witnessed
from pvapy_stream.errors import SettingsError, WorkflowError
from pvapy_stream.files.summary import decided_by_files
from pvapy_stream.launch.entry import FINISH, GO, HURRY, STOP
from pvapy_stream.launch.programs import Launcher, SupervisedProgram
from pvapy_stream.launch.supervisor import Death
from pvapy_stream.signals import hurry_of
from pvapy_stream.workflow.model.graph import Workflow
from pvapy_stream.workflow.model.node import Node
from pvapy_stream.workflow.model.streaming_stage import BSREAD, Site
from pvapy_stream.workflow.run.running_stage import RunningStage, has_received, hosted_names

_TICK = 0.05  # s
# Who has nothing new for as long as so many objects take has nothing to come.
_QUIET_OBJECTS = 5
_QUIET_LIMIT = 20.0  # s
_DRAIN_LIMIT = 60.0  # s; for each stage
_END_LIMIT = 20.0  # s; from the word stop, and the time to drain, to the end of a program
_HURRY_LIMIT = 6.0  # s; from the word hurry to the end of all programs
_KILL_LIMIT = 20.0  # s; from the kill to the end of a program, wherever it runs
_START_FAILED_LIMIT = 2.0  # s; the same, when nothing was streamed yet

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class StreamOutcome:
    """How it went.

    Attributes:
        problems: why it is no success, a sentence each.
        audit: the fate of all ids.
        ledgers: accounts of all stages, with what was witnessed of killed ones.
        deaths: programs that died, and when.
    """

    problems: tuple[str, ...]
    audit: AuditResult
    ledgers: tuple[Ledger, ...]
    deaths: tuple[Death, ...] = ()


class StreamRun:
    """Stages that are connected by streams, from start to audit.

    Args:
        workflow: the graph.
        nodes: its stages, each after those it follows.
        site: where the run is.
        folder_of: folder of a stage, by label.
        launcher: starts programs.
        say: takes a line about what happens.

    Raises:
        SettingsError: a stage's settings are wrong.
    """

    def __init__(
        self,
        workflow: Workflow,
        nodes: Sequence[Node],
        site: Site,
        folder_of: Mapping[str, Path],
        launcher: Launcher,
        say: Say,
    ) -> None:
        self._say = say
        self.stages: dict[str, RunningStage] = {}
        self.phase = "starting"
        self._began = time.monotonic()
        self._hurry = threading.Event()
        hosts: dict[str, str] = {}
        plan = workflow.plan(site)
        for node in nodes:
            wired = plan.stages[node.label]
            if launcher.address and wired.output is not None and wired.output.kind == BSREAD:
                raise SettingsError(
                    f"{node.label}: bsread streams stay on one host; run this workflow without"
                    " --cluster"
                )
            for spec in wired.programs:
                for name in hosted_names(spec):
                    if name in hosts:
                        raise SettingsError(
                            f"{node.label}: channel {name} is also served by {hosts[name]}; give"
                            " one of them another name"
                        )
                    hosts[name] = spec.name
            programs = [
                SupervisedProgram(
                    spec,
                    folder_of[node.label],
                    launcher,
                    wired.stage.restart_policy(),
                    say,
                    waits=wired.stage.is_source,
                )
                for spec in wired.programs
            ]
            self.stages[node.label] = RunningStage(wired, programs)

    def run(self, stop: threading.Event) -> StreamOutcome:
        """Run until the sources have ended, or `stop` is set; then drain, and audit.

        Raises:
            WorkflowError: a stage was not ready in time; the message has its last log lines.
        """
        self._hurry = hurry_of(stop)
        try:
            self._start(stop)
            self.phase = "running"
            self._follow(stop)
            self.phase = "draining"
            self._drain()
        finally:
            self._end_all()
        self.phase = "ended"
        return self._outcome()

    # -- start -----------------------------------------------------------------------------------

    def _start(self, stop: threading.Event) -> None:
        started = time.monotonic()
        for stage in self.stages.values():
            for one in stage.members:
                one.start()
        while not stop.is_set():
            waiting = [stage for stage in self.stages.values() if not self._ready(stage)]
            if not waiting:
                break
            self._poll()
            self._give_up_waiting(waiting, time.monotonic() - started)
            stop.wait(_TICK)
        seconds = time.monotonic() - started
        n = sum(len(stage.members) for stage in self.stages.values())
        if not stop.is_set():
            self._say(f"{n} programs of {len(self.stages)} stages are ready after {seconds:.1f} s")
        self._began = time.monotonic()
        if not stop.is_set():
            for stage in self._sources():
                stage.send_word(GO)

    def _give_up_waiting(self, waiting: list[RunningStage], seconds: float) -> None:
        for stage in waiting:
            dead = [one for one in stage.members if one.ended]
            late = seconds > stage.ready_timeout
            if not dead and not late:
                continue
            why = dead[0].problem if dead else f"was not ready within {stage.ready_timeout:g} s"
            if not dead and stage.outside and all(one.now() for one in stage.members):
                why += (
                    f": no object from {stage.outside}; check its name, that it is served, and"
                    " EPICS_PVA_ADDR_LIST, or give a longer ready_timeout"
                )
            upstream = self.stages.get(stage.upstream)
            if late and not dead and upstream in waiting:
                # Who is further up is the reason.
                continue
            one = (dead or [p for p in stage.members if not has_received(p)] or stage.members)[0]
            raise WorkflowError(
                f"stage {stage.label} {why}; the last lines of the log of {one.spec.name}:\n"
                + ("\n".join(one.log_tail().splitlines()[-8:]) or "(empty)")
            )

    def _ready(self, stage: RunningStage) -> bool:
        if stage.is_source:
            return all(one.state() for one in stage.members)
        root = self._root(stage)
        # What a source shows goes through all stages, also what one shows that is there already.
        streamed = (root.is_source or root.outside) and not stage.waits_for_messages
        if streamed or stage.outside:
            return all(has_received(one) for one in stage.members)
        # What begins with messages, or with who comes to us, may begin later.
        return all(one.now() or not one.spec.has_ledger for one in stage.members)

    def _root(self, stage: RunningStage) -> RunningStage:
        while stage.upstream in self.stages:
            stage = self.stages[stage.upstream]
        return stage

    def _sources(self) -> list[RunningStage]:
        return [stage for stage in self.stages.values() if stage.is_source]

    # -- middle ----------------------------------------------------------------------------------

    def _poll(self) -> None:
        for stage in self.stages.values():
            stage.poll()

    def _follow(self, stop: threading.Event) -> None:
        roots = [stage for stage in self.stages.values() if stage.upstream not in self.stages]
        while not stop.is_set():
            self._poll()
            if all(self._done(root) for root in roots):
                return
            # Who ends by itself has all that it was asked for; others may not.
            gone = [
                stage
                for stage in self.stages.values()
                if stage.ended and stage not in roots and not stage.kind.ends_itself
            ]
            if gone:
                names = ", ".join(stage.label for stage in gone)
                self._say(f"{names} has ended: the other stages are stopped in order")
                return
            if all(stage.ended for stage in self._last()):
                self._say("the last stages have ended: the others are stopped in order")
                return
            stop.wait(_TICK)
        self._say("stopping in order")

    def _last(self) -> list[RunningStage]:
        """Stages that no other follows."""
        followed = {stage.upstream for stage in self.stages.values()}
        return [stage for label, stage in self.stages.items() if label not in followed]

    def _done(self, stage: RunningStage) -> bool:
        if stage.is_source:
            return all(one.ended or one.state() == "done" for one in stage.members)
        return stage.ended

    # -- end -------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Stop each stage when it has all that came before, and those after it have what it gave.

        The account of a stage that was stopped is final; so this goes down the stream.
        """
        for source in self._sources():
            source.send_word(FINISH)
            self._until(lambda source=source: self._done(source), _END_LIMIT)
        for stage in self.stages.values():
            after = [one for one in self.stages.values() if one.upstream == stage.label]
            self._settle([stage], self._has_all)
            self._settle(after, lambda one, stage=stage: self._has_from(one, stage))
            self._stop_stage(stage)

    def _has_all(self, stage: RunningStage) -> bool:
        before = self.stages.get(stage.upstream)
        return before is None or self._has_from(stage, before)

    def _has_from(self, stage: RunningStage, before: RunningStage) -> bool:
        ledgers = stage.ledgers()
        asked = wanted(ledgers) if ledgers else None
        published = before.published()
        return not (published if asked is None else published & asked) - stage.received()

    def _settle(self, stages: list[RunningStage], complete: Callable[[RunningStage], bool]) -> None:
        """Wait until stages have all, or get nothing more."""
        last: dict[str, Any] = {}
        quiet = max((self._quiet(stage) for stage in stages), default=0.0)
        quiet_since = time.monotonic()

        def settled() -> bool:
            nonlocal last, quiet_since
            if all(stage.ended or complete(stage) for stage in stages):
                return True
            now = {stage.label: stage.counts() for stage in stages}
            # One who is being started again has yet to come.
            away = any(one.away for stage in stages for one in stage.members)
            if now != last or away:
                last, quiet_since = now, time.monotonic()
            return time.monotonic() - quiet_since > quiet

        self._until(settled, _DRAIN_LIMIT)

    def _quiet(self, stage: RunningStage) -> float:
        each = (time.monotonic() - self._began) * len(stage.members)
        pace = each / max(1, stage.counts()["processed"])
        return min(max(stage.kind.quiet, _QUIET_OBJECTS * pace), _QUIET_LIMIT)

    def _until(self, condition: Callable[[], bool], limit: float) -> bool:
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() > deadline or self._hurry.is_set():
                return False
            self._poll()
            time.sleep(_TICK)
        return True

    def _stop_stage(self, stage: RunningStage) -> None:
        if not self._hurry.is_set():
            drain = max((one.spec.drain_timeout for one in stage.members), default=0.0)
            limit = _START_FAILED_LIMIT if self.phase == "starting" else drain + _END_LIMIT
            stage.stop(STOP, limit)
            self._until(lambda: stage.ended, limit + _KILL_LIMIT)

    def _end_all(self) -> None:
        """Leave nothing running, whatever happened."""
        if not self._hurry.is_set():
            for stage in self.stages.values():
                if not any(one.stopping for one in stage.members):
                    stage.stop(STOP, math.inf)
            for stage in self.stages.values():
                if not stage.ended:
                    self._stop_stage(stage)
        left = [stage for stage in self.stages.values() if not stage.ended]
        if not left:
            return
        self._say(f"second stop: {', '.join(stage.label for stage in left)} end without draining")
        for stage in left:
            stage.stop(HURRY, _HURRY_LIMIT)
        deadline = time.monotonic() + _HURRY_LIMIT + _KILL_LIMIT
        while any(not stage.ended for stage in left) and time.monotonic() < deadline:
            self._poll()
            time.sleep(_TICK)

    def _outcome(self) -> StreamOutcome:
        ledgers = [ledger for stage in self.stages.values() for ledger in stage.ledgers()]
        problems = tuple(text for stage in self.stages.values() for text in stage.problems)
        ledgers, notes = decided_by_files(ledgers)
        whole = tuple(witnessed(ledgers))
        deaths = tuple(death for stage in self.stages.values() for death in stage.deaths)
        return StreamOutcome(problems, audit(ledgers, notes=notes), whole, deaths)

    def status(self) -> list[dict[str, Any]]:
        """How the stages do, for people."""
        return [
            {
                "label": stage.label,
                "state": "ended" if stage.ended else self.phase,
                "programs": [
                    {
                        "name": one.spec.name,
                        "pid": one.process.pid if one.process else None,
                        "host": one.process.host if one.process else "",
                        "restarts": one.restarts,
                        "deaths": [asdict(death) for death in one.deaths],
                        "problem": one.problem,
                    }
                    for one in stage.members
                ],
                **stage.counts(),
            }
            for stage in self.stages.values()
        ]
