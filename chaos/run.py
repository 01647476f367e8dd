"""``python -m chaos.run``: one run, in a process of its own, with shared memory of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import threading
import time
import traceback
from pathlib import Path

import psutil
import pvaccess as pva

from chaos.chain import Plan, plan
from chaos.commands import Commands
from chaos.faults import Faults
from chaos.judge import audit_of, judge, repaired, verified
from chaos.late import Late
from chaos.left import shared_memory
from chaos.programs import MARK, Program, left_of
from chaos.proxy import Proxy
from chaos.truth import Sent, counted, saved_in, sent_of
from pvapy_stream.errors import TransportError
from pvapy_stream.pva.lazy import pv_object
from pvapy_stream.pva.newest import Newest
from pvapy_stream.sim.chain_ready import wait_for_stages

_CONNECT = 60.0  # s; longest time until all stages are connected
_QUIET = 2.0  # s without a change of the files: all that will come has come
_LAST = 30.0  # s; longest wait for that
_ENDS = 3.0  # s; until the last process of an ended program is gone
_TICK = 0.03
_STATS = "receiverStats"
_STATUS = {_STATS: {"nReceived": pva.INT}}
_CRASHED = "Fatal Python error"  # of the fault handler, which all programs have
_CRASHES = {-4, -6, -7, -8, -11}  # SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV


class Run:
    """The programs of a plan, its faults, and what was wrong with them.

    Args:
        plan: what is done.
        folder: of this run alone.
        private: whether file systems may be mounted, for this run alone.
    """

    def __init__(self, plan: Plan, folder: Path, private: bool) -> None:
        self.plan = plan
        self.folder = folder
        self.wrong: list[str] = []
        self.gone = self.repaired = 0
        self.starts = 0
        self.disk = folder / "disk"
        self.disk.mkdir()
        self._mounted = private and plan.base == "disk-full"
        if self._mounted:
            _mount(self.disk, plan.disk_limit)
        self._commands = Commands(plan, f"{folder.name}:", folder, self.disk)
        self._proxy: Proxy | None = None
        self.programs: dict[str, Program] = {}

    def start(self) -> None:
        """Start all, and wait until all are connected."""
        self._commands.prepare()
        addresses = self._addresses()
        limit = 0 if self._mounted else self.plan.disk_limit
        for name in (*self.plan.stages, "source"):
            self.programs[name] = Program(
                name, self.folder, self._commands.of(name), addresses.get(name, {}),
                limit if name == "writer" else 0,
            )  # fmt: skip
        self._wait()
        self._gate = pva.PvaServer()
        self._gate.addRecord(self._commands.go, pva.PvObject(_STATUS, {_STATS: {"nReceived": 1}}))
        self._gate.start()
        self.programs["source"].tell("go\n")

    def _wait(self) -> None:
        """Wait until all stages are connected; those whose input is hosted must be there."""
        deadline = time.monotonic() + _CONNECT
        missing = wait_for_stages(self._commands.awaited, _CONNECT, threading.Event())
        for name in self._commands.unawaited:
            while not _is_there(name) and name not in missing:
                if time.monotonic() > deadline:
                    missing.append(name)
        if missing:
            why = "; ".join(
                f"{name}: {_problem(name) or 'it has received nothing'}" for name in missing
            )
            raise TimeoutError(f"not connected within {_CONNECT:g} s: {why}")

    def _addresses(self) -> dict[str, dict[str, str]]:
        """Environments that lead the proxied stage through the proxy."""
        stage = self.plan.proxied
        if not stage:
            return {}
        search_port, port, server_port = os.environ["CHAOS_PORTS"].split()
        self._proxy = Proxy(int(search_port), int(port), int(server_port))
        return {
            self.plan.before(stage): {"EPICS_PVAS_SERVER_PORT": server_port},
            stage: {
                "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{search_port}",
                "EPICS_PVA_ADDR_LIST": "",
            },
        }

    def go(self) -> None:
        """Let it run, with its faults, until nothing comes any more."""
        faults = Faults(self.programs, self._proxy, self._commands.outputs)
        due = list(self.plan.faults)
        start = time.monotonic()
        while (now := time.monotonic() - start) < self.plan.seconds + 0.5 or not faults.over:
            while due and now >= due[0].after:
                faults.do(due.pop(0))
            self._revive()
            time.sleep(_TICK)
        for fault in due:
            faults.do(fault)
        faults.join()
        if self.plan.complete:
            self._wait_for_all()
        self._wait_for_quiet()

    def _wait_for_all(self) -> None:
        """Wait until the stage before the proxy has published all; it ends after those behind."""
        names = self._commands.statuses.get(self.plan.before(self.plan.proxied), [])
        due = len(self._sent().expected(self.plan.filters)) if names else 0
        end = time.monotonic() + _LAST
        while sum(map(_processed, names)) < due and time.monotonic() < end:
            time.sleep(_TICK)

    def _wait_for_quiet(self) -> None:
        end = time.monotonic() + _LAST
        before, since = self._sizes(), time.monotonic()
        while time.monotonic() - since < _QUIET and time.monotonic() < end:
            started = self._revive()
            time.sleep(_TICK)
            now = self._sizes()
            if now != before or started:
                before, since = now, time.monotonic()

    def _sizes(self) -> list[int]:
        return [path.stat().st_size for path in sorted(self.disk.iterdir())]

    def _revive(self) -> bool:
        started = False
        for name, program in self.programs.items():
            code = program.process.poll()
            if code is not None and code in _CRASHES and not program.ending:
                self.wrong.append(f"{name} crashed by signal {-code}")
                program.ending = program.starts > 3
            if name != "source" or self.plan.base == "source-kill":
                started |= program.revive()
            elif code is not None and not program.ending:
                program.ending = True
                # A simulator that has published all may end.
                if code == 0:
                    continue
                self.wrong.append(f"source ended by itself, code {code}: {program.text()[-200:]}")
        return started

    def end(self) -> None:
        """Stop all, the source first; before it, those that may still miss what it has."""
        names = ("source", *self.plan.stages)
        if self.plan.repairs:
            at = names.index(self.plan.proxied)
            names = (*names[at:], *names[:at])
        for name in names:
            problem = self.programs[name].end()
            if problem:
                self.wrong.append(problem)
        if self._proxy is not None:
            self._proxy.close()

    def clean(self) -> None:
        """See that no process is left; kill those that are."""
        # Python's resource trackers end a moment after the program that they belong to.
        for process in psutil.wait_procs(left_of(os.environ[MARK]), _ENDS)[1]:
            self.wrong.append(f"process left: {process.pid} {' '.join(process.cmdline()[-6:])}")
            process.kill()

    def look_into_logs(self) -> None:
        """Count the starts, and name processes that crashed, children of a program among them."""
        logs = sorted(self.folder.glob("*.*.log"))
        self.starts = len(logs)
        self.wrong += [
            f"a process crashed: {log.name}"
            for log in logs
            if _CRASHED in log.read_text(errors="replace")
        ]

    def _sent(self) -> Sent:
        if not self.plan.own_source:
            return counted(self.plan.n_frames)
        return sent_of(sorted(self.folder.glob("source.*.record")))

    def judge(self) -> list[str]:
        """Compare what was written with the truth."""
        sent = self._sent()
        ledgers = sorted(self.folder.glob("*.ledger.json"))
        saved_before = saved_in(sorted([*self.disk.glob("*.h5"), *self.disk.glob("*.h5.part")]))
        audits = [audit_of(ledgers, self.folder / "audit.json")]
        problems = repaired(self.disk, self._mounted)
        if any(self.disk.glob("*.damaged")) or problems or saved_before.unreadable:
            # Half-written at the limit of a disk: after the repair alone it can be read.
            saved_before.unreadable.clear()
        files = sorted(self.disk.glob("*.h5"))
        saved = saved_in(files)
        there = {number for _, number, _ in saved.rows}
        self.gone = len(sent.expected(self.plan.filters).keys() - there)
        audits.append(audit_of(ledgers, self.folder / "audit-repaired.json"))
        late = Late.of(ledgers)
        self.repaired = len(late.repaired)
        return [
            *problems,
            *late.wrong,
            *late.false(sent),
            *judge(self.plan, sent, saved, audits),
            *verified(self.plan, sent, files),
        ]


def one_run(made: Plan, folder: Path, private: bool) -> Run:
    """Do a run; `wrong`, `gone`, `repaired` and `starts` of what is returned are its outcome."""
    if private:
        _mount(Path("/dev/shm"), 1 << 29)
    run = Run(made, folder, private)
    try:
        run.start()
        run.go()
        run.end()
    except Exception:
        run.clean()
        run.wrong.append(f"the run itself failed: {traceback.format_exc()[-500:]}")
        return run
    time.sleep(0.1)
    run.clean()
    run.look_into_logs()
    if private:
        run.wrong += shared_memory()
    try:
        run.wrong += run.judge()
    except Exception:
        run.wrong.append(f"cannot be judged: {traceback.format_exc()[-500:]}")
    return run


def _processed(name: str) -> int:
    """How many objects a stage has processed; 0 while it does not answer."""
    newest = Newest(name)
    try:
        return int(pv_object(newest.get(0.5)).toDict()["processorStats"]["nProcessed"])
    except TransportError:
        return 0
    finally:
        newest.close()


def _is_there(name: str) -> bool:
    return not _problem(name)


def _problem(name: str) -> str:
    """Why a status channel is not there; "" if it is, whatever its stage has received."""
    newest = Newest(name)
    try:
        newest.get(0.5)
    except TransportError as error:
        return str(error)
    finally:
        newest.close()
    return ""


def _mount(folder: Path, size: int) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "tmpfs", str(folder)],
        check=True,
    )


def main() -> None:
    """Do the run of a seed and write its outcome."""
    parser = argparse.ArgumentParser(prog="python -m chaos.run", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("kind")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--private", action="store_true", help="mount what this run alone has")
    options = parser.parse_args()
    made = plan(options.seed, (options.kind,))
    done = one_run(made, options.folder, options.private)
    outcome = {
        "violations": done.wrong, "gone": done.gone, "starts": done.starts,
        "repaired": done.repaired,
    }  # fmt: skip
    (options.folder / "outcome.json").write_text(json.dumps(outcome, indent=1))
    os._exit(0)


if __name__ == "__main__":
    main()
