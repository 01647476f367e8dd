"""The programs of one run: started, hurt, started again as a user would, and stopped."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pvaccess as pva

from chaos.plan import Fault, Plan

_SIDE = 16
_START = 60.0  # s
_END = 40.0
_QUIET = 1.5
_MOST_RESTARTS = 6


class Program:
    """A command, which may be started again with another ledger and file."""

    def __init__(self, name: str, folder: Path, words: Callable[[int], list[str]], limit: int = 0):
        self.name = name
        self.folder = folder
        self._words = words
        self._limit = limit
        self.count = 0
        self.ending = False
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.count += 1
        limit = self._limit
        with (self.folder / f"{self.name}.{self.count}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._words(self.count)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=(
                    (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
                    if limit
                    else None
                ),
            )

    def poll(self) -> None:
        """Start it again when it died before its time."""
        if self.process is None or self.process.poll() is None or self.ending:
            return
        if self.count < _MOST_RESTARTS:
            self.start()

    def children(self) -> list[psutil.Process]:
        """The processes that do the work: those it supervises, or itself."""
        assert self.process is not None
        try:
            me = psutil.Process(self.process.pid)
            found = [c for c in me.children() if "spawn_main" in " ".join(c.cmdline())]
        except psutil.Error:
            return []
        return found or [me]

    def end(self) -> int | None:
        """Stop it in order; its exit code, None if it had to be killed."""
        self.ending = True
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_END)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
            return None

    def tell(self, line: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()


class Chain:
    """All programs of a plan."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.prefix = f"chaos{os.getpid()}x{plan.seed}:"
        self.programs: dict[str, Program] = {}
        self.slow: list[str] = []

    # -- commands --------------------------------------------------------------------------------

    def _cli(self, command: str, *words: object) -> Callable[[int], list[str]]:
        def made(count: int) -> list[str]:
            given = [str(word).replace("{n}", str(count)) for word in words]
            return ["-m", "pvapy_stream.cli.main", command, *given]

        return made

    def _ledger(self, name: str) -> list[str]:
        return ["--ledger", str(self.folder / f"{name}.{{n}}.ledger.json")]

    def start(self) -> None:
        """Start all but the source, then the source, and wait until all is connected."""
        plan, p = self.plan, self.prefix
        into = {"pva": "pva", "shm": "shm", "both": "auto"}[plan.transport]
        out = {"pva": "pvas", "shm": "shm", "both": "both"}[plan.transport]
        first = f"{p}mirror" if plan.mirror else f"{p}image"
        head = "pva" if plan.mirror or plan.foreign else into
        add = self._add
        if plan.mirror:
            add("mirror", "mirror", "-cm", f"({first},{p}image,pva,2000)")
        share = ["-nc", plan.consumers, "-dg", "g"] if plan.consumers > 1 else []
        processor = "HitFinder" if plan.filters else "Work"
        middle = f"{p}out:*" if plan.consumers > 1 else f"{p}out"
        status = f"{p}status:*" if plan.consumers > 1 else f"{p}status"
        add(
            "consumer", "consumer", "-ic", first, "-im", head, "-oc", middle, "-om", out, "-sc",
            status, "-sqs", 2000, "-rqs", 0, "-pf", Path(__file__).with_name("processors.py"),
            "-pc", processor, *share, "--status-period", 0.3,
        )  # fmt: skip
        last = middle
        if plan.consumers > 1:
            last = f"{p}gathered"
            add(
                "collector", "collector", "-ic", middle, "-pid", "1,2", "-im", into, "-oc", last,
                "-om", out, "-sc", f"{p}cstatus", "-sqs", 2000, "-rqs", 0, "--gap-timeout", 2,
                "--status-period", 0.3,
            )  # fmt: skip
        add(
            "writer", "write", "-ic", last, "-im", into, "-sc", f"{p}wstatus", "-sqs", 2000,
            "-rqs", 0, "-o", self.folder / "run.{n}.h5", "--status-period", 0.3,
            limit=plan.disk_limit,
        )  # fmt: skip
        self._source()
        self._wait_for_stages()

    def _add(self, name: str, command: str, *words: object, limit: int = 0) -> None:
        self.programs[name] = Program(
            name, self.folder, self._cli(command, *words, *self._ledger(name)), limit
        )

    def _source(self) -> None:
        plan, channel = self.plan, f"{self.prefix}image"
        if plan.foreign:
            words = [
                "-m", "chaos.source", channel, plan.kind, str(plan.n_frames), str(plan.rate),
                str(plan.seed), str(self.folder / "sent.txt"),
            ]  # fmt: skip
            self.programs["source"] = Program("source", self.folder, lambda _: words)
            return
        frames = np.arange(1, plan.n_frames + 1, dtype=np.uint32)
        np.save(
            self.folder / "frames.npy",
            np.broadcast_to(frames[:, None, None], (plan.n_frames, _SIDE, _SIDE)),
        )
        mode = "pva" if plan.mirror else plan.transport
        self._add(
            "source", "sim", "-cn", channel, "-om", mode, "-if", self.folder / "frames.npy",
            "-fps", plan.rate, "--n-publish", plan.n_frames, "-dc", "-cs", plan.n_frames, "-shd", 3,
            "--wait-for-stages", f"{self.prefix}wstatus", "--wait-timeout", _START,
        )  # fmt: skip

    def _wait_for_stages(self) -> None:
        deadline = time.monotonic() + _START
        channel = pva.Channel(f"{self.prefix}wstatus")
        channel.setTimeout(0.5)
        while time.monotonic() < deadline:
            try:
                if channel.get("field(receiverStats)")["receiverStats"]["nReceived"]:
                    break
            except (pva.PvaException, KeyError):
                pass
            time.sleep(0.1)
        if self.plan.foreign:
            self.programs["source"].tell("go\n")

    # -- faults ----------------------------------------------------------------------------------

    def run(self) -> None:
        """Let it run, with its faults, until the source is done and all is quiet."""
        start = time.monotonic()
        due = sorted(self.plan.faults, key=lambda fault: fault.after)
        length = self.plan.n_frames / self.plan.rate
        while time.monotonic() - start < length + 1.0:
            while due and time.monotonic() - start >= due[0].after:
                self._hurt(due.pop(0))
            self._poll()
            time.sleep(0.02)
        quiet, sizes = time.monotonic(), self._sizes()
        while time.monotonic() - quiet < _QUIET and time.monotonic() - start < length + 30:
            self._poll()
            time.sleep(0.1)
            if (now := self._sizes()) != sizes:
                quiet, sizes = time.monotonic(), now

    def _sizes(self) -> list[int]:
        return [path.stat().st_size for path in sorted(self.folder.glob("*.h5*"))]

    def _poll(self) -> None:
        for name, program in self.programs.items():
            if name != "source":
                program.poll()

    def _hurt(self, fault: Fault) -> None:
        program = self.programs[fault.whom]
        found = program.children()
        if not found or program.process is None:
            return
        whom = found[self.plan.seed % len(found)]
        try:
            if fault.what == "kill":
                whom.kill()
            elif fault.what == "term":
                program.process.send_signal(signal.SIGTERM)
            elif fault.what == "interrupt":
                program.process.send_signal(signal.SIGINT)
            elif fault.what == "pause":
                whom.suspend()
                time.sleep(fault.length)
                whom.resume()
            else:
                self._put()
        except psutil.Error:
            return

    def _put(self) -> None:
        """Put a foreign object into outputs and status channels."""
        foreign = pva.NtNdArray()
        foreign["uniqueId"] = 987654
        for name in ("out", "out:1", "gathered", "mirror", "image", "wstatus"):
            channel = pva.Channel(self.prefix + name)
            channel.setTimeout(0.3)
            try:
                channel.put(foreign if "status" not in name else "objectId=987654")
            except (pva.PvaException, RuntimeError, ValueError):
                continue

    # -- the end ---------------------------------------------------------------------------------

    def end(self) -> list[str]:
        """Stop all, the source first; who did not end when asked to."""
        if self.plan.foreign:
            self.programs["source"].tell("stop\n")
        slow: list[str] = []
        for name in ("source", "mirror", "consumer", "collector", "writer"):
            program = self.programs.get(name)
            if program is not None and program.end() is None:
                slow.append(name)
        return slow

    def kill(self) -> None:
        """Leave no process behind, whatever happened."""
        for program in self.programs.values():
            program.ending = True
            if program.process is not None and program.process.poll() is None:
                try:
                    os.killpg(program.process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                program.process.wait(10)
