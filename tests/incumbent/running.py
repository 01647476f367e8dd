"""Runs the commands of a published example, with PvaPy's programs or with ours."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import IO, NoReturn

from pvapy_stream.accounting.ledger import Ledger, read_ledgers
from tests.incumbent.published import Example, Shape
from tests.support import PATIENCE, TOOLS, get, wait_until

MODULES = {
    "pvapy-hpc-consumer": ("pvapy.cli.hpcConsumer", "consumer"),
    "pvapy-hpc-collector": ("pvapy.cli.hpcCollector", "collector"),
    "pvapy-mirror-server": ("pvapy.cli.mirrorServer", "mirror"),
    "pvapy-ad-sim-server": ("pvapy.cli.adSimServer", "sim"),
}
# Added to the published commands: small images, few a second, and no delays. The last one counts.
RATE = 100
REDUCED = {
    "pvapy-ad-sim-server": f"-nx 16 -ny 8 -fps {RATE} -rp 0 -rt 300 -std 0 -shd 0 -dc",
    "pvapy-mirror-server": "-rt 300",
    "pvapy-hpc-consumer": "-rt 300 -rp 1 -dc",
    "pvapy-hpc-collector": "-rt 300 -rp 1 -dc",
}
# PvaPy's collector publishes nothing before its cache is full. Ours publishes what is complete; its
# cache bounds how long a producer that is slow, on a loaded machine, is waited for.
CACHES = "-ccs 40", "-ccs 4000"
_IDS = re.compile(r"^(\S+) \{.*?: ?(\d+)\}")
_IMAGES = 60  # s; until enough images have come
_LATE = 3 * RATE  # images; until all outputs of a chain that is started are followed
_FOUND = 200  # images; at 100 Hz, the channels of metadata are found before they are over
_ENDS = 30  # s; until a program of PvaPy that was interrupted has ended
_MOVES = 5  # s; until a channel that is published on has another object


class PvapyError(Exception):
    """PvaPy's programs did not do what the example promises, and ours have no part in it."""


class Run:
    """An example under way: all its programs, and a `pvmonitor` at its end.

    Args:
        theirs: how many of its commands, counted along the stream, are of PvaPy. When all are ours
            they are started in the published order, which PvaPy's take minutes to connect in.
        words: what stands for words of the commands.

    Its methods raise `PvapyError` for what PvaPy's programs alone can have done.
    """

    def __init__(self, example: Example, theirs: int, words: dict[str, str]) -> None:
        self.example, self.theirs, self.words = example, theirs, words
        self.run = 2 if example.shape.run is None else example.shape.run
        self.ids: dict[str, list[int]] = {}
        self._log = tempfile.TemporaryFile()
        self.programs: list[subprocess.Popen[str]] = []
        self._order: dict[int, subprocess.Popen[str]] = {}
        self._commands = [example.source, example.mirror, *example.stages]
        self._monitor: tuple[subprocess.Popen[str], threading.Thread] | None = None
        self._since = 0.0
        self.ends = [self.text(example.ends.format(i + 1)) for i in range(example.n)]

    @property
    def remote(self) -> bool:
        """Whether its parts are on hosts that search for channels apart from each other."""
        return "@PORT_1" in self.example.source

    def text(self, command: str) -> str:
        for word, meaning in self.words.items():
            command = command.replace(word, meaning)
        return command

    def steps(self) -> list[list[str]]:
        """The commands in the order of their start; what is in one step is started at once."""
        first = [self.example.source, *filter(None, [self.example.mirror])]
        if not self.theirs:
            return [[*self.example.stages, *reversed(first)]]
        if self.remote:
            # What puts to a channel must find it.
            return [[first[0], self.example.stages[1]], [self.example.stages[0]]]
        return [first, *([stage] for stage in self.example.stages)]

    def start(self, command: str) -> None:
        """Start the program of a command."""
        words = shlex.split(self.text(command))
        # Of two IOCs at one port, one gets all searches.
        env = {**os.environ, "COLUMNS": "200", "EPICS_CA_SERVER_PORT": self.words["@PORT_6"]}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            env[name] = value
        program, *options = words
        options += REDUCED[program].split()
        if program == "pvapy-ad-sim-server" and self.example.loses:
            options += ["-fps", "2000"]
        if program.startswith("pvapy-hpc") and "--server-queue-size" not in options:
            # Without a queue, whether an image is lost is up to the scheduler.
            options += [] if self.example.loses else ["--server-queue-size", "100"]
        place = self._commands.index(command)
        theirs, ours = MODULES[program]
        module = [theirs] if place < self.theirs else ["pvapy_stream.cli.main", ours]
        if program == "pvapy-hpc-collector":
            options += CACHES[place >= self.theirs].split()
        if place >= self.theirs and place:
            options += ["--ledger", str(self._ledger(place))]
        self._order[place] = self._launch([sys.executable, "-m", *module, *options], env)

    def _launch(self, words: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
        # In a group of its own: SIGINT reaches its workers too, as from a terminal.
        program = subprocess.Popen(
            words,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        self.programs.append(program)
        return program

    def _ledger(self, place: int) -> Path:
        return Path(f"{self.words['@FOLDER']}.{place}.json")

    def accounts(self) -> list[Ledger]:
        """Those of the first stage that is ours."""
        places = [place for place in self._order if place > 1 and place >= self.theirs]
        return read_ledgers(self._ledger(min(places)))

    def outputs(self, command: str) -> list[str]:
        """The output channels of a stage, or the channel of a source or mirror."""
        words = shlex.split(self.text(command))
        if "--output-channel" not in words:
            return []
        name = words[words.index("--output-channel") + 1]
        n = int(words[words.index("--n-consumers") + 1]) if "--n-consumers" in words else 1
        first = int(words[words.index("--consumer-id") + 1]) if "--consumer-id" in words else 1
        return [name.replace("*", str(first + number)) for number in range(n)]

    def wait_for(self, commands: list[str]) -> None:
        """Wait until the output channels of these commands are there."""
        if self.remote:
            return
        for channel in (one for command in commands for one in self.outputs(command)):
            try:
                wait_until(lambda channel=channel: self.alive() and get(channel), timeout=_IMAGES)
            except AssertionError:
                self.fail(f"{channel} does not come")

    def alive(self) -> bool:
        for place, one in self._order.items():
            if one.poll() is not None:
                fault = PvapyError if place < self.theirs else AssertionError
                raise fault(f"{one.args} has ended with {one.returncode}\n{self.log}")
        return True

    def fail(self, why: str) -> NoReturn:
        """Fail.

        Raises:
            PvapyError: ours are not started, or get nothing from PvaPy's.
            AssertionError: ours may have done it.
        """
        ours = max(self._order) >= self.theirs
        fault = AssertionError if ours and (not self.theirs or self._supplied()) else PvapyError
        raise fault(f"{why}\n{self.log[-20_000:]}")

    def _supplied(self) -> bool:
        """Whether PvaPy's last program publishes on all its channels."""
        channels = self.outputs(self._commands[self.theirs - 1])
        before = [get(one) for one in channels]
        try:
            for channel, value in zip(channels, before, strict=True):
                wait_until(lambda c=channel, v=value: get(c) not in (None, v), timeout=_MOVES)
        except AssertionError:
            return False
        return True

    def watch(self) -> None:
        """Start `pvmonitor` at the end of the chain."""
        port = self.words["@PORT_5"] if self.remote else None
        env = {**os.environ, **({"EPICS_PVA_BROADCAST_PORT": port} if port else {})}
        request = "record[queueSize=2000]field(uniqueId)"
        words = [str(TOOLS / "pvmonitor"), "-M", "json", "-r", request, *self.ends]
        monitor = subprocess.Popen(
            words,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert monitor.stdout is not None
        self.ids, self._since = {channel: [] for channel in self.ends}, time.monotonic()
        reader = threading.Thread(target=self._read, args=(monitor.stdout, self.ids), daemon=True)
        reader.start()
        self._monitor = monitor, reader

    def unwatch(self) -> None:
        """End `pvmonitor`."""
        if self._monitor is None:
            return
        (monitor, reader), self._monitor = self._monitor, None
        kill(monitor)
        reader.join(10)
        assert monitor.stdout is not None
        monitor.stdout.close()

    @staticmethod
    def _read(lines: IO[str], ids: dict[str, list[int]]) -> None:
        for line in lines:
            # An output is an empty object before the first image.
            if (found := _IDS.match(line)) and int(found[2]):
                ids[found[1]].append(int(found[2]))

    def window(self) -> range:
        """The ids that were published when all consumers were there."""
        ids = [one[:] for one in self.ids.values()]
        if not all(ids):
            return range(0)
        # The distributor begins anew with each consumer that comes.
        settled = 2 * len(ids) * self.run
        first = max(one[0] for one in ids) + settled + 1
        end = min(max(one) for one in ids)
        # An output that appears later than others of its stage is found within about a second.
        seen = set().union(*ids)
        late = [number for number in range(first, min(end, first + _LATE)) if number not in seen]
        return range(late[-1] + 1 if late else first, end)

    def wait_for_images(self) -> None:
        """Wait until enough images were seen at all ends."""
        needed = max(20, 3 * len(self.ends) * self.run)
        if any("--metadata-channels" in stage for stage in self.example.stages):
            # Each channel is searched for once a second at least.
            needed = max(needed, _FOUND)

        def seen() -> bool:
            if not all(self.ids.values()) and time.monotonic() > self._since + 10:
                # Who has searched in vain for some seconds searches seldom; a new one does not.
                self.unwatch()
                self.watch()
            return self.alive() and len(self.window()) >= needed

        try:
            wait_until(seen, timeout=_IMAGES)
        except AssertionError:
            self.fail(f"not {needed} images at the ends: {self.ids}")

    def shape(self) -> Shape:
        """How the images of the window are spread over the channels."""
        ids = {channel: set(one) for channel, one in self.ids.items()}
        owners = [tuple(c for c, one in ids.items() if number in one) for number in self.window()]
        missing = [number for number, who in zip(self.window(), owners, strict=True) if not who]
        if missing:
            self._fail_for(missing)
        copies = len(owners[0]) if owners else 0
        if any(len(who) != copies for who in owners):
            self._fail_as_distributed(f"images in one and in several channels: {self.ids}")
        if self.example.shape.run is None:
            return Shape(copies, None)
        runs = [len(list(group)) for _, group in groupby(owners)]
        inner = set(runs[1:-1])
        if len(inner) > 1:
            self._fail_as_distributed(f"runs of several lengths: {runs}\n{self.ids}")
        return Shape(copies, inner.pop() if inner else 0)

    def _fail_as_distributed(self, why: str) -> NoReturn:
        # It is a part of PvaPy's, if there is one, that shares images out.
        raise (PvapyError if self.theirs else AssertionError)(why)

    def _fail_for(self, missing: list[int]) -> NoReturn:
        ours = max(self._order) >= self.theirs
        if ours and self.theirs:
            # As many of ours have to get an image to have all of it.
            accounts, copies = self.accounts(), self.example.copies
            ours = any(sum(n in one.received for one in accounts) >= copies for n in missing)
        why = f"not published: {missing}\n{self.ids}"
        raise (AssertionError if ours else PvapyError)(why)

    def stop(self) -> None:
        """Interrupt the programs, from the source on, and wait until they have ended."""
        for place, program in sorted(self._order.items()):
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGINT)
                if place >= self.theirs:
                    program.wait(PATIENCE)
        for place, program in self._order.items():
            if place < self.theirs:
                # They take seconds to end; some never do.
                with suppress(subprocess.TimeoutExpired):
                    program.wait(_ENDS)

    def codes(self) -> set[int]:
        """The exit codes of our programs."""
        return {one.returncode for n, one in self._order.items() if n >= self.theirs}

    @property
    def log(self) -> str:
        # Not by a read, which moves the place where the programs write.
        number = self._log.fileno()
        return os.pread(number, os.fstat(number).st_size, 0).decode(errors="replace")

    def reported(self, name: str) -> int:
        """A count in the last report; of several consumers, of all together."""
        found = re.findall(rf"\b{name}'?:? (\d+)", self.log)
        assert found, f"no {name} in\n{self.log}"
        return int(found[-1])

    def close(self) -> None:
        for program in self.programs:
            kill(program)
        self.unwatch()
        self._log.close()


def kill(program: subprocess.Popen[str]) -> None:
    """End a program and its children, of which some may outlive it."""
    with suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    program.wait(10)
