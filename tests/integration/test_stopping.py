"""Every end comes within limits, names what was left, and leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.hpc.stage import NO_RETURN
from tests.in_process import call
from tests.support import (
    Commands,
    Program,
    Source,
    command,
    rounds,
    some_of,
    status,
    wait_for_monitors,
    wait_until,
    write_processor,
)

PID = (
    "import os, signal, time, pvaccess as pva\nfrom pvapy_stream import UserDataProcessor\n"
    "class P(UserDataProcessor):\n"
    "    def getStats(self):\n        return {'pid': os.getpid()}\n"
    "    def getStatsPvaTypes(self):\n        return {'pid': pva.INT}\n"
)
HANGS = PID + (
    "    def process(self, pvObject):\n        os.write(1, b'took %d\\n' % pvObject['uniqueId'])\n"
    "        time.sleep(600 if pvObject['uniqueId'] == 3 else 0)\n"
)
SLOW = PID + "    def process(self, pvObject):\n        time.sleep(0.02)\n"
SLOW_START = PID + (
    "    def start(self):\n        os.write(1, b'starting\\n')\n        time.sleep(600)\n"
)
STOP_HANGS = PID + (
    "    def process(self, pvObject):\n        pass\n    def stop(self):\n        time.sleep(600)\n"
)
# No signal handler runs while this waits.
DEAF_START = SLOW_START.replace(
    "time.sleep(600)",
    "import ctypes\n        lib, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)\n"
    "        lib.pthread_mutex_lock(mutex)\n        lib.pthread_mutex_lock(mutex)",
)


@pytest.fixture(autouse=True)
def _nothing_is_left(commands: Commands) -> Iterator[None]:
    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    yield
    commands.close()
    left = [one for one in me.children(recursive=True) if one.pid not in before]
    _, alive = psutil.wait_procs(left, timeout=1)
    for one in alive:
        one.kill()
    # The helper that multiprocessing starts lives as long as these tests.
    alive = [one for one in alive if "resource_tracker" not in " ".join(one.cmdline())]
    assert not alive, [one.cmdline() for one in alive]


def children_of(program: Program) -> list[psutil.Process]:
    return psutil.Process(program.process.pid).children(recursive=True)


def all_gone(processes: list[psutil.Process], timeout: float = 30.0) -> None:
    def runs(one: psutil.Process) -> bool:
        try:
            return one.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    wait_until(lambda: not any(map(runs, processes)), timeout, f"the end of {processes}")


def two(commands: Commands, source: Source, prefix: str, file: Path, *more: object) -> Program:
    """Two consumers, each of which gets all."""
    return commands(
        "consumer", "-ic", source.channel, "-nc", "2", "-sc", f"{prefix}status:*", "-cc",
        f"{prefix}control:*", "-pf", file, "-pc", "P", "-sqs", "500", *more,
    )  # fmt: skip


# sleep() of the C library, called with the lock of the interpreter held.
HOLDS = PID + (
    "    def process(self, pvObject):\n        os.write(1, b'took %d\\n' % pvObject['uniqueId'])\n"
    "        import ctypes\n        ctypes.PyDLL(None).sleep(600)\n"
)
POOL = """
import os, time
from pvapy_stream.hpc.workers import UserMpDataProcessor, UserMpWorkerPool

class Work(UserMpDataProcessor):
    def process(self, frame):
        os.write(1, b"took %d\\n" % frame.id)
        time.sleep(600 if frame.id == 1000 else 0.02)

class P(UserMpWorkerPool):
    workerClass = Work
"""

# The fate of what comes after the object that a processor hangs at: in a queue of ours it is left;
# in that of the binding, whose thread hangs too, it has not arrived, and only the audit knows.
STAGES = {
    "one": ("missed", "consumer"),
    "two": ("missed", "consumer", "-nc", "2"),
    "collector": ("", "collector", "-pid", "1"),
}


@pytest.mark.parametrize(("stage", "queue"), some_of([*STAGES], [False, True]))
def test_a_processor_that_hangs_is_ended_after_the_time_to_drain(
    prefix: str, source: Source, commands: Commands, tmp_path: Path, stage: str, queue: bool
) -> None:
    fate, kind, *more = STAGES[stage]
    if queue:
        fate, more = "left", [*more, "-rqs", "0"]
    ledger = tmp_path / "ledger.json"
    program = commands(
        kind, "-ic", source.channel, "-sc", f"{prefix}status:*", "-sqs", "100", *more,
        "-pf", write_processor(tmp_path, HANGS), "-pc", "P", "--drain-timeout", "1",
        "--ledger", ledger,
    )  # fmt: skip
    n = 2 if "-nc" in more else 1
    wait_until(lambda: all(status(f"{prefix}status:{k + 1}")["objectTime"] for k in range(n)))
    if kind == "consumer":
        wait_for_monitors(f"{prefix}status:{k + 1}" for k in range(n))
    else:
        wait_until(lambda: status(f"{prefix}status:1")["producerStats_1"]["receiverStats"][
            "nReceived"
        ])  # fmt: skip
    source.publish(range(1, 6))
    wait_until(lambda: program.text.count("took 3") == n)
    if fate == "missed":
        # The source says what it has sent when it is asked, which may take longer than the drain.
        for k in range(n):
            channel = f"{prefix}status:{k + 1}"
            wait_until(lambda channel=channel: status(channel)["processorStats"]["nMissed"] == 2)
    began = time.monotonic()
    program.signal()
    assert program.wait(40) == 1, program.text
    assert time.monotonic() - began < 30
    assert "process" in program.text
    accounts = read_ledgers(ledger)
    assert len(accounts) == n
    for one in accounts:
        assert str(one.processed) == "1-2"
        assert {kind: str(ids) for kind, ids in one.failed.items()} == {NO_RETURN: "3"}
        found = {name: str(getattr(one, name)) for name in ("left", "missed") if getattr(one, name)}
        assert found == ({fate: "4-5"} if fate else {})
        assert not one.without_fate()


def test_the_first_signal_drains_also_after_a_stop_command(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.json"
    program = commands(
        "consumer", "-ic", source.channel, "-sc", f"{prefix}status", "-cc", f"{prefix}control",
        "-pf", write_processor(tmp_path, SLOW), "-pc", "P", "-sqs", "500", "-rqs", "0",
        "--drain-timeout", "60", "--ledger", ledger,
    )  # fmt: skip
    wait_for_monitors([f"{prefix}status"])
    source.publish(range(1, 301))
    wait_until(lambda: status(f"{prefix}status")["receiverStats"]["nReceived"] == 301)
    assert command(f"{prefix}control", "stop").startswith("Stop")
    wait_until(lambda: status(f"{prefix}status")["state"] == "draining")
    program.signal()
    assert program.wait(60) == 0, program.text
    (account,) = read_ledgers(ledger)
    assert str(account.processed) == "1-300"


def test_the_first_signal_to_a_child_drains_also_after_the_parent_s_word(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.json"
    program = two(
        commands, source, prefix, write_processor(tmp_path, SLOW), "-rqs", "0",
        "--drain-timeout", "60", "--ledger", ledger,
    )  # fmt: skip
    both = [f"{prefix}status:{k}" for k in (1, 2)]
    wait_for_monitors(both)
    pids = [status(s)["userStats"]["pid"] for s in both]
    source.publish(range(1, 201))
    wait_until(lambda: all(status(s)["receiverStats"]["nReceived"] == 201 for s in both))
    program.signal()
    wait_until(lambda: all(status(s)["state"] == "draining" for s in both))
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    assert program.wait(60) == 0, program.text
    assert [str(one.processed) for one in read_ledgers(ledger)] == ["1-200", "1-200"]


def test_a_second_signal_ends_all_children_soon_and_says_what_was_left(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    program = two(
        commands, source, prefix, write_processor(tmp_path, HANGS), "-rqs", "0",
        "--drain-timeout", "300",
    )  # fmt: skip
    both = [f"{prefix}status:{k}" for k in (1, 2)]
    wait_for_monitors(both)
    source.publish(range(1, 6))
    wait_until(lambda: program.text.count("took 3") == 2)
    there = children_of(program)
    program.signal(signal.SIGINT)
    wait_until(lambda: all(status(s)["state"] == "draining" for s in both))
    program.signal(signal.SIGINT)
    assert program.wait(40) == 1, program.text
    all_gone(there, 5)
    assert "cut short by a second signal" in program.text
    assert "queued objects are left" in program.text


@pytest.mark.parametrize("n", range(1, 1 + min(2, rounds(1))))
def test_a_second_signal_leaves_what_waits_for_a_slow_processor_and_names_it(
    prefix: str, source: Source, commands: Commands, tmp_path: Path, n: int
) -> None:
    ledger = tmp_path / "ledger.json"
    program = commands(
        "consumer", "-ic", source.channel, "-nc", n, "-sc", f"{prefix}status:*", "-sqs", "500",
        "-rqs", "0", "-pf", write_processor(tmp_path, SLOW), "-pc", "P", "--drain-timeout", "300",
        "--ledger", ledger,
    )  # fmt: skip
    all_of_them = [f"{prefix}status:{k + 1}" for k in range(n)]
    wait_for_monitors(all_of_them)
    source.publish(range(1, 401))
    wait_until(lambda: all(status(s)["receiverStats"]["nReceived"] == 401 for s in all_of_them))
    program.signal(signal.SIGINT)
    wait_until(lambda: all(status(s)["state"] == "draining" for s in all_of_them))
    program.signal(signal.SIGINT)
    program.wait(20)
    assert "after a second signal and are left; see --drain-timeout" in program.text
    assert "by force" not in program.text
    for one in read_ledgers(ledger):
        assert len(one.processed) + len(one.left) == len(one.processed | one.left) == 400
        assert len(one.left) > 0
        assert not one.missed
        assert one.closed


WRITES = """
import os, time
from pvapy_stream.processors.hdf5_writer import Hdf5Writer

class P(Hdf5Writer):
    def process_frame(self, frame):
        os.write(1, b"took %d\\n" % frame.id)
        time.sleep(600 if frame.id == 3 else 0)
        return super().process_frame(frame)
"""


@pytest.mark.parametrize(("kind", "code"), [("writer", WRITES), ("pool", POOL)])
def test_writers_and_worker_pools_that_hang_call_nothing_processed_that_is_not(
    prefix: str, source: Source, commands: Commands, tmp_path: Path, kind: str, code: str
) -> None:
    ledger = tmp_path / "ledger.json"
    args = {"outputDirectory": str(tmp_path), "nWorkers": 1, "queueDepth": 1, "drainTimeout": 300}
    program = commands(
        "consumer", "-ic", source.channel, "-sc", f"{prefix}status", "-sqs", "500", "-rqs", "0",
        "-pf", write_processor(tmp_path, code), "-pc", "P", "-pa", json.dumps(args),
        "--drain-timeout", "1", "--ledger", ledger,
    )  # fmt: skip
    wait_for_monitors([f"{prefix}status"])
    hangs_at = 3 if kind == "writer" else 1000
    source.publish([1, 2, hangs_at, *range(hangs_at + 1, hangs_at + 10)])
    wait_until(lambda: f"took {hangs_at}" in program.text)
    wait_until(lambda: status(f"{prefix}status")["receiverStats"]["nReceived"] == 13)
    program.signal()
    assert program.wait(60) == 1, program.text
    (account,) = read_ledgers(ledger)
    assert set(account.processed) <= {1, 2}
    assert not account.without_fate()
    assert len(account.received - account.skipped) == 12
    assert len(account.left) >= 5
    audit = call("audit", "--json", ledger)
    (stage,) = json.loads("".join(audit.out))["stages"]
    assert stage["processed"] == [[1, 2]]


@pytest.mark.parametrize(("kind", "n"), [("consumer", 1), ("consumer", 2), ("collector", 1)])
def test_a_processor_whose_stop_hangs_is_ended_after_the_time_to_drain(
    prefix: str, source: Source, commands: Commands, tmp_path: Path, kind: str, n: int
) -> None:
    ledger = tmp_path / "ledger.json"
    program = commands(
        kind, "-ic", source.channel, "-sc", f"{prefix}status:*", "-sqs", "100", "-pf",
        write_processor(tmp_path, STOP_HANGS), "-pc", "P", "--drain-timeout", "1", "--ledger",
        ledger, *(("-nc", n) if kind == "consumer" else ("-pid", "1")),
    )  # fmt: skip
    channels = [f"{prefix}status:{k + 1}" for k in range(n)]
    received = "receiverStats" if kind == "consumer" else "producerStats_1"

    def has_received(channel: str) -> bool:
        stats = status(channel)[received]
        return bool(stats.get("receiverStats", stats)["nReceived"])

    wait_until(lambda: all(map(has_received, channels)))
    source.publish(range(1, 6))
    wait_until(lambda: all(status(one)["processorStats"]["lastObjectId"] == 5 for one in channels))
    there = children_of(program)
    program.signal()
    assert program.wait(40) == 1, program.text
    all_gone(there, 5)
    # What was processed before stays so.
    assert [str(one.processed) for one in read_ledgers(ledger)] == ["1-5"] * n
    assert "stop() of the processor has not returned within --drain-timeout 1 s" in program.text


@pytest.mark.parametrize(("n", "body"), [(1, SLOW_START), (2, SLOW_START), (1, DEAF_START)])
def test_a_signal_during_a_start_that_hangs_ends_all_and_each_stage_has_a_ledger_by_then(
    prefix: str, source: Source, commands: Commands, tmp_path: Path, n: int, body: str
) -> None:
    """Else what it receives before it is killed is in none."""
    file = tmp_path / "ledger.json"
    program = commands(
        "consumer", "-ic", source.channel, "-nc", n, "-oc", f"{prefix}out:*", "--ledger", file,
        "-pf", write_processor(tmp_path, body), "-pc", "P",
    )  # fmt: skip
    wait_until(lambda: program.text.count("starting") == n)
    ledgers = read_ledgers(file)
    assert [one.stage_id for one in ledgers] == list(range(1, n + 1))
    assert [one.output_channel for one in ledgers] == [f"{prefix}out:{k + 1}" for k in range(n)]
    assert not any(one.closed or one.received for one in ledgers)
    there = children_of(program)
    program.signal(signal.SIGINT)
    assert program.wait(40) == 1, program.text
    all_gone(there, 5)
    assert "had not started when it was asked to stop" in program.text


def test_children_end_when_the_parent_is_gone_though_their_processor_hangs(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = write_processor(tmp_path, HANGS)
    program = two(commands, source, prefix, file, "--drain-timeout", "1")
    wait_for_monitors([f"{prefix}status:{k}" for k in (1, 2)])
    source.publish(range(1, 6))
    wait_until(lambda: program.text.count("took 3") == 2)
    there = children_of(program)
    assert len(there) >= 2
    program.signal(signal.SIGKILL)
    program.process.wait(10)
    all_gone([one for one in there if "resource_tracker" not in " ".join(one.cmdline())])


def test_children_in_c_code_that_lets_no_thread_run_end_when_the_parent_is_gone(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    program = two(commands, source, prefix, write_processor(tmp_path, HOLDS))
    wait_for_monitors([f"{prefix}status:{k}" for k in (1, 2)])
    source.publish([1])
    wait_until(lambda: program.text.count("took 1") == 2)
    there = children_of(program)
    program.signal(signal.SIGKILL)
    program.process.wait(10)
    all_gone([one for one in there if "resource_tracker" not in " ".join(one.cmdline())], 60)


SLOW_IMPORT = """
import os, sys, time

class Slow:
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            os.write(1, b"importing\\n")
            time.sleep(60)

sys.meta_path.insert(0, Slow())
"""


@pytest.mark.parametrize("name", ["pvapy_stream.errors", "pvapy_stream.hpc.service"])
def test_ctrl_c_during_imports_prints_no_traceback(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT.format(name=name))
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", path)
    program = commands("consumer", "-ic", "x")
    wait_until(lambda: "importing" in program.text)
    program.signal(signal.SIGINT)
    assert program.wait(20) in (-signal.SIGINT, 128 + signal.SIGINT)
    assert program.text == "importing\n"


@pytest.mark.parametrize("n", [1, 2])
def test_a_ledger_that_cannot_be_written_ends_nothing(
    prefix: str, source: Source, commands: Commands, tmp_path: Path, n: int
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    program = commands(
        "consumer", "-ic", source.channel, "-nc", n, "-sc", f"{prefix}status:*", "-sqs", "100",
        "--ledger", folder / "ledger.json",
    )  # fmt: skip
    all_of_them = [f"{prefix}status:{k + 1}" for k in range(n)]
    wait_for_monitors(all_of_them)
    wait_until(lambda: (folder / "ledger.json").exists())
    (folder / "ledger.json").unlink()
    folder.rename(tmp_path / "elsewhere")
    wait_until(lambda: "ledger" in program.text)
    source.publish(range(1, 21))
    wait_until(
        lambda: all(status(s)["processorStats"]["nProcessed"] == 20 for s in all_of_them), 20
    )
    wait_until(lambda: all("cannot write ledger" in status(s)["message"] for s in all_of_them))
    program.signal()
    assert program.wait() == 1, program.text
    assert program.text.count("the stream continues") == 1


def test_workers_leave_the_end_to_their_parent(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    """A service manager sends SIGTERM to all processes of a service."""
    ledger = tmp_path / "ledger.json"
    program = commands(
        "consumer", "-ic", source.channel, "-sc", f"{prefix}status", "-sqs", "500", "-rqs", "0",
        "-pf", write_processor(tmp_path, POOL), "-pc", "P", "--drain-timeout", "60",
        "--ledger", ledger,
    )  # fmt: skip
    wait_for_monitors([f"{prefix}status"])
    source.publish(range(1, 101))
    wait_until(lambda: "took 10" in program.text)
    for one in children_of(program):
        one.send_signal(signal.SIGTERM)
    program.signal()
    assert program.wait(60) == 0, program.text
    (account,) = read_ledgers(ledger)
    assert str(account.processed) == "1-100"


def test_a_worker_that_hangs_ends_when_its_parent_is_gone(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    program = commands(
        "consumer", "-ic", source.channel, "-sc", f"{prefix}status", "-sqs", "500",
        "-pf", write_processor(tmp_path, POOL), "-pc", "P",
    )  # fmt: skip
    wait_for_monitors([f"{prefix}status"])
    source.publish([1000])
    wait_until(lambda: "took 1000" in program.text)
    there = children_of(program)
    program.signal(signal.SIGKILL)
    program.process.wait(10)
    all_gone(there)


@pytest.mark.parametrize("mode", ["pvas", "rpc"])
def test_a_stage_to_which_nobody_sends_is_no_failure(
    mode: str, prefix: str, commands: Commands
) -> None:
    program = commands("consumer", "-ic", f"{prefix}in", "-im", mode, "-sc", f"{prefix}status")
    wait_until(lambda: status(f"{prefix}status").get("state") == "waiting")
    program.signal(signal.SIGINT)
    assert program.wait() == 0, program.text
    assert f"nobody sent anything to channel {prefix}in" in program.text
