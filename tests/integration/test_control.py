"""Control and status, driven with the real pvput and pvget."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pvapy_stream.errors import MonitorError
from pvapy_stream.monitor.control import send_command
from tests.in_process import call
from tests.support import (
    Commands,
    Source,
    command,
    get,
    pvget,
    pvput,
    status,
    wait_for_monitors,
    wait_until,
    write_processor,
)

COUNTER = """
import pvaccess as pva
from pvapy_stream import UserDataProcessor

class Counter(UserDataProcessor):
    version = {version}
    def __init__(self, configDict):
        super().__init__(configDict)
        self.n = 0
        self.config = None
    def configure(self, configDict):
        if configDict == {{"refuse": True}}:
            raise ValueError("I refuse")
        self.config = configDict
    def process(self, pvObject):
        self.n += 1
        self.updateOutputChannel(pvObject)
    def getStats(self):
        return {{"n": self.n, "version": self.version, "config": str(self.config)}}
    def getStatsPvaTypes(self):
        return {{"n": pva.ULONG, "version": pva.INT, "config": pva.STRING}}
"""


def start(prefix: str, source: Source, commands: Commands, folder: Path, *options: object):
    file = write_processor(folder, COUNTER.format(version=1))
    program = commands(
        "consumer", "-ic", source.channel, "-oc", f"{prefix}out", "-sc", f"{prefix}status", "-cc",
        f"{prefix}control",
        "-pf", file, "-pc", "Counter", "-sqs", "300", *options,
    )  # fmt: skip
    wait_for_monitors([f"{prefix}status"])
    return program, file


def test_each_command_is_answered_after_it_ran(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    program, file = start(prefix, source, commands, tmp_path, "-rqs", "0")
    control, stat = f"{prefix}control", f"{prefix}status"
    # configure reaches the processor, with system keys too
    values = {"x": 100, "objectIdOffset": 1, "receiverQueueSize": 500}
    assert command(control, "configure", json.dumps(values)) == "Configuration successful"
    assert command(control, "get_stats") == "Stats update successful"
    assert pvget(stat)["userStats"]["config"] == str(values)
    # errors are told, and change nothing
    assert "args is not JSON" in command(control, "configure", "{x")
    assert "needs args" in command(control, "configure")
    assert "unknown command 'fly'; known are configure, get_stats" in command(control, "fly")
    assert "I refuse" in command(control, "configure", '{"refuse": true}')
    assert "receiverQueueSize must be a whole number" in command(
        control, "configure", '{"receiverQueueSize": "many"}'
    )
    before = get(control, "objectTime")
    pvput(control, args='{"y": 1}')
    wait_until(lambda: get(control, "objectTime") != before)
    assert "no command given" in pvget(control)["statusMessage"]
    # get_stats is never stale: the status shows what was processed a moment ago
    source.publish(range(1, 101))
    wait_until(lambda: get(f"{prefix}out", "uniqueId") == 100)
    command(control, "get_stats")
    stats = pvget(stat)
    assert stats["processorStats"]["nProcessed"] == stats["userStats"]["n"] == 100
    assert stats["state"] == "running"
    # reload loads the file again and loses nothing
    file.write_text(COUNTER.format(version=2))
    assert command(control, "reload") == "Reload successful"
    source.publish(range(101, 111))
    wait_until(lambda: get(f"{prefix}out", "uniqueId") == 110)
    command(control, "get_stats")
    assert pvget(stat)["userStats"] == {"n": 10, "version": 2, "config": "None"}
    file.write_text("def broken(:\n")
    assert "fails to load" in command(control, "reload")
    assert command(control, "reset_stats") == "Stats reset successful"
    assert pvget(stat)["processorStats"]["nProcessed"] == 0
    assert command(control, "stop").startswith("Stop")
    assert program.wait() == 0, program.text


def test_pause_keeps_objects_and_resume_processes_them(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.json"
    program, _ = start(
        prefix, source, commands, tmp_path, "--pause-queue-size", "5", "--ledger", ledger
    )
    control, stat = f"{prefix}control", f"{prefix}status"
    source.publish(range(1, 4))
    wait_until(lambda: status(stat)["processorStats"]["nProcessed"] == 3)
    assert command(control, "pause") == "Paused"
    assert pvget(stat)["state"] == "paused"
    source.publish(range(4, 12))
    wait_until(lambda: status(stat)["queueStats"]["nRejected"] == 3)
    assert status(stat)["processorStats"]["nProcessed"] == 3
    assert command(control, "resume") == "Resumed"
    wait_until(lambda: status(stat)["processorStats"]["nProcessed"] == 8)
    source.publish([12])
    wait_until(lambda: status(stat)["processorStats"]["nProcessed"] == 9)
    assert status(stat)["processorStats"]["nMissed"] == 0
    program.signal()
    assert program.wait() == 0, program.text
    (account,) = json.loads(ledger.read_text())["stages"]
    assert account["rejected"] == {"pause queue full": [[9, 3, 3, 1]]}


def test_stop_drains_the_queue_and_the_last_status_is_final(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    slow = write_processor(
        tmp_path,
        "import time\nfrom pvapy_stream import UserDataProcessor\nclass Slow(UserDataProcessor):\n "
        "   def process(self, pvObject):\n        time.sleep(0.02)\n",
    )
    import pvaccess as pva

    seen: list[tuple[str, int]] = []
    monitor = pva.Channel(f"{prefix}status")
    monitor.monitor(
        lambda o: seen.append((o["state"], o["processorStats"]["nProcessed"])), "field()"
    )
    program = commands(
        "consumer",
        "-ic",
        source.channel,
        "-sc",
        f"{prefix}status",
        "-pf",
        slow,
        "-pc",
        "Slow",
        "-sqs",
        "300",
        "-rqs",
        "0",
    )
    wait_for_monitors([f"{prefix}status"])
    wait_until(lambda: seen, what="the monitor of the status")
    source.publish(range(1, 101))
    program.signal()
    assert program.wait() == 0, program.text
    wait_until(lambda: seen[-1][0] == "stopped", what="the last status")
    monitor.stopMonitor()
    assert seen[-1] == ("stopped", 100)
    assert "draining" in [state for state, _ in seen]
    assert "nProcessed 100" in program.text


def test_what_cannot_be_drained_in_time_is_counted_as_left(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    hang = write_processor(
        tmp_path,
        "import time\nfrom pvapy_stream import UserDataProcessor\nclass Slow(UserDataProcessor):\n "
        "   def process(self, pvObject):\n        time.sleep(0.4)\n",
    )
    ledger = tmp_path / "ledger.json"
    program = commands(
        "consumer", "-ic", source.channel, "-sc", f"{prefix}status", "-pf", hang, "-pc", "Slow",
        "-sqs", "300", "-rqs", "0",
        "--drain-timeout", "1", "--ledger", ledger,
    )  # fmt: skip
    wait_for_monitors([f"{prefix}status"])
    source.publish(range(1, 21))
    wait_until(lambda: status(f"{prefix}status")["receiverStats"]["nReceived"] == 21)
    started = time.monotonic()
    program.signal()
    program.wait()
    assert time.monotonic() - started < 60
    assert "still waiting after 1 s and are left" in program.text
    (account,) = json.loads(ledger.read_text())["stages"]
    fates = sum(comb[1] * comb[3] for name in ("processed", "left") for comb in account[name])
    assert fates >= 20
    assert account["left"]


def test_a_foreign_put_reaches_no_stage(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    """All but control channels and inputs refuse puts."""
    ledger = tmp_path / "ledger.json"
    sim = commands(
        "sim", "-cn", f"{prefix}sim", "-nf", "5", "-fps", "5", "-nx", "8", "-ny", "6",
        "-mpv", f"pva://{prefix}meta", "-dc",
    )  # fmt: skip
    mirror = commands(
        "mirror", "--channel-map", f"({prefix}mirror,{source.channel},pva)", "-rp", "0"
    )
    first = commands(
        "consumer", "-ic", f"{prefix}mirror", "-oc", f"{prefix}out", "-sc", f"{prefix}status:1",
        "-cc", f"{prefix}control:1", "-sqs", "300",
    )  # fmt: skip
    last = commands(
        "consumer", "-ic", f"{prefix}out", "-oc", f"{prefix}last", "-sc", f"{prefix}status:2",
        "-cc", f"{prefix}control:2", "-sqs", "300", "--ledger", ledger,
    )  # fmt: skip
    taken = commands("consumer", "-im", "pvas", "-ic", f"{prefix}in", "-sc", f"{prefix}status:3")
    wait_for_monitors([f"{prefix}status:1"])
    wait_until(lambda: get(f"{prefix}status:2", "receiverStats")["nReceived"] >= 1)
    source.publish([1, 2])
    wait_until(lambda: get(f"{prefix}last", "uniqueId") == 2)
    wait_until(lambda: get(f"{prefix}meta"))
    for channel in ("sim", "mirror", "out", "last"):
        wait_until(lambda channel=channel: get(prefix + channel))
        assert "is not allowed" in pvput(f"{prefix}{channel}", uniqueId="987654")
    assert "is not allowed" in pvput(f"{prefix}meta", value="5")
    for number in (1, 2, 3):
        wait_until(lambda number=number: get(f"{prefix}status:{number}"))
        assert "is not allowed" in pvput(f"{prefix}status:{number}", message="hello")
    assert "is not allowed" not in pvput(f"{prefix}in", uniqueId="7")
    wait_until(lambda: status(f"{prefix}status:3")["processorStats"]["nProcessed"] == 1)
    source.publish([3])
    wait_until(lambda: get(f"{prefix}last", "uniqueId") == 3)
    for number in (1, 2):
        assert command(f"{prefix}control:{number}", "stop").startswith("Stop")
    for program in (first, last):
        assert program.wait() == 0, program.text
    assert "987654" not in ledger.read_text()
    for program in (mirror, taken, sim):
        program.signal()
        program.wait()


def test_control_channels_can_be_limited(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    rights = tmp_path / "rights.acf"
    rights.write_text("ASG(DEFAULT) { RULE(1, READ) }")
    limited = commands(
        "consumer", "-ic", source.channel, "-sc", f"{prefix}status:1", "-cc", f"{prefix}control:1",
        "--control-from", "192.0.2.1,nobody-else@*", "-nc", "1",
    )  # fmt: skip
    by_file = commands(
        "consumer", "-ic", source.channel, "-sc", f"{prefix}status:2", "-cc", f"{prefix}control:2",
        "--access-security", rights,
    )  # fmt: skip
    allowed = commands(
        "consumer", "-ic", source.channel, "-sc", f"{prefix}status:3", "-cc", f"{prefix}control:3",
        "--control-from", "192.0.2.1,127.0.0.1",
    )  # fmt: skip
    wait_for_monitors(f"{prefix}status:{number}" for number in (1, 2, 3))
    for number in (1, 2):
        assert "is not allowed" in pvput(f"{prefix}control:{number}", command="stop")
        assert status(f"{prefix}status:{number}")["state"] == "running"
        with pytest.raises(MonitorError, match="takes no commands from this user and host"):
            send_command(f"{prefix}control:{number}", "stop")
    assert command(f"{prefix}control:3", "stop").startswith("Stop")
    assert allowed.wait() == 0, allowed.text
    for program in (limited, by_file):
        program.signal()
        assert program.wait() == 0, program.text
    wrong = call("consumer", "-ic", source.channel, "--access-security", tmp_path / "none")
    assert wrong.code != 0
    assert f"--access-security: {tmp_path / 'none'} does not exist" in wrong.text
