"""Collectors: the order of ids, over producers that start, lag, repeat and die as they like."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.cli import collector as collector_command
from tests.support import (
    Commands,
    Program,
    Source,
    command,
    get,
    pvget,
    status,
    wait_until,
    write_processor,
)

ORDER = """
import pvaccess as pva
from pvapy_stream import UserDataProcessor

class Order(UserDataProcessor):
    def __init__(self, configDict):
        super().__init__(configDict)
        self.last, self.ok, self.n = -1, True, 0
    def process(self, pvObject):
        value = pvObject["uniqueId"]
        self.ok, self.last, self.n = self.ok and value >= self.last, value, self.n + 1
        self.updateOutputChannel(pvObject)
    def getStats(self):
        return {"ok": self.ok, "n": self.n}
    def getStatsPvaTypes(self):
        return {"ok": pva.BOOLEAN, "n": pva.ULONG}
"""


class Producers:
    """Hosted channels 1…n of a test."""

    def __init__(self, prefix: str, n: int) -> None:
        self.sources = {k: Source(f"{prefix}out:{k}") for k in range(1, n + 1)}

    def __getitem__(self, number: int) -> Source:
        return self.sources[number]

    def close(self) -> None:
        for source in self.sources.values():
            source.close()


@pytest.fixture
def producers(prefix: str):
    made = Producers(prefix, 2)
    yield made
    made.close()


def start(prefix: str, commands: Commands, folder: Path, *options: object) -> Program:
    file = write_processor(folder, ORDER)
    program = commands(
        "collector", "-ic", f"{prefix}out:*", "-oc", f"{prefix}all", "-sc", f"{prefix}status",
        "-cc", f"{prefix}control", "-pf", file, "-pc", "Order", "-sqs", "500",
        "--ledger", folder / "ledger.json", "--status-period", "0.2", *options,
    )  # fmt: skip
    wait_until(
        lambda: (
            (s := status(f"{prefix}status"))
            and all(
                s[name]["receiverStats"]["nReceived"] >= 1
                for name in s
                if name.startswith("producer")
            )
        )
    )
    return program


def processed(prefix: str) -> int:
    return status(f"{prefix}status")["processorStats"]["nProcessed"]


def test_what_lags_is_waited_for_and_the_order_is_kept(
    prefix: str, producers: Producers, commands: Commands, tmp_path: Path
) -> None:
    program = start(prefix, commands, tmp_path, "-ccs", "1000")
    producers[1].publish(range(1, 200, 2))
    wait_until(lambda: status(f"{prefix}status")["collectorStats"]["nCached"] == 100)
    producers[2].publish(range(2, 201, 2))
    # The last id waits until the other producer has passed it, or the stop comes.
    wait_until(lambda: processed(prefix) == 199)
    stats = pvget(f"{prefix}status")
    assert stats["collectorStats"]["nMissed"] == 0
    assert stats["producerStats_1"]["channel"] == f"{prefix}out:1"
    assert command(f"{prefix}control", "stop").startswith("Stop")
    assert program.wait() == 0, program.text
    assert "nProcessed 200" in program.text
    assert "ok True" in program.text
    accounts = read_ledgers(tmp_path / "ledger.json")
    assert [list(a.processed) for a in accounts] == [
        list(range(1, 201, 2))[: len(accounts[0].processed)],
        list(range(2, 201, 2)),
    ]


def test_equal_ids_missing_ids_and_ids_too_late(
    prefix: str, producers: Producers, commands: Commands, tmp_path: Path
) -> None:
    program = start(prefix, commands, tmp_path, "--gap-timeout", "1")
    producers[1].publish([1, 2, 5])
    producers[2].publish([1, 2, 6])
    wait_until(lambda: processed(prefix) == 6)
    assert status(f"{prefix}status")["collectorStats"]["nMissed"] == 2
    producers[1].publish([6])
    wait_until(lambda: status(f"{prefix}status")["collectorStats"]["nRejected"] == 1)
    program.signal()
    assert program.wait() == 0, program.text
    one, two = read_ledgers(tmp_path / "ledger.json")
    assert (str(one.processed), str(two.processed)) == ("1-2,5", "1-2,6")
    assert list(one.missed) == [3, 4]
    assert list(one.rejected["late"]) == [6]


def test_a_producer_that_dies_does_not_stop_the_others(
    prefix: str, producers: Producers, commands: Commands, tmp_path: Path
) -> None:
    program = start(prefix, commands, tmp_path, "--gap-timeout", "60")
    producers[1].publish([1, 2])
    producers[2].publish([2, 3])
    wait_until(lambda: processed(prefix) == 3)
    producers[2].vanish()
    producers[1].publish([4, 5])
    wait_until(lambda: processed(prefix) == 6)
    program.signal()
    assert program.wait() == 0, program.text


def test_ids_that_start_again_are_a_new_sequence(
    prefix: str, producers: Producers, commands: Commands, tmp_path: Path
) -> None:
    program = start(prefix, commands, tmp_path)
    for _ in range(2):
        for k in (1, 2):
            producers[k].publish(range(k, 21, 2))
    wait_until(lambda: processed(prefix) >= 39)
    program.signal()
    assert program.wait() == 0, program.text
    assert "a new sequence begins" in program.text
    assert "nProcessed 40" in program.text


def test_pause_cache_size_and_queue_can_be_changed_while_it_runs(
    prefix: str, producers: Producers, commands: Commands, tmp_path: Path
) -> None:
    program = start(prefix, commands, tmp_path, "-rqs", "0", "-ccs", "50")
    control = f"{prefix}control"
    assert command(control, "pause") == "Paused"
    producers[1].publish(range(1, 31))
    wait_until(lambda: status(f"{prefix}status")["queueStats"]["nQueued"] == 30)
    assert processed(prefix) == 0
    assert command(control, "resume") == "Resumed"
    wait_until(lambda: status(f"{prefix}status")["collectorStats"]["nCached"] == 30)
    assert command(control, "configure", '{"collectorCacheSize": 10}') == "Configuration successful"
    producers[1].publish([31])
    wait_until(lambda: processed(prefix) == 21)
    assert get(f"{prefix}all", "uniqueId") == 21
    program.signal()
    assert program.wait() == 0, program.text
    assert "nProcessed 31" in program.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-ic", "x:*", "-pid", ""], "--producer-id-list is empty"),
        (["-ic", "x:*", "-pid", "1,2,1"], "has an id twice"),
        (["-ic", "x", "-pid", "1,2"], "has no * for the ids"),
        (["-ic", "x:*", "-pid", "one"], "is not an id list"),
        (["-ic", "x:*", "--gap-timeout", "0"], "--gap-timeout"),
    ],
)
def test_wrong_options(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        collector_command.main(options)
    assert end.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_producer_that_never_comes_is_an_error(
    prefix: str, producers: Producers, commands: Commands, tmp_path: Path
) -> None:
    program = commands(
        "collector", "-ic", f"{prefix}out:*", "-pid", "1,2,3", "-sc", f"{prefix}status",
        "--gap-timeout", "0.5",
    )  # fmt: skip
    wait_until(lambda: (s := status(f"{prefix}status")) and s["state"] == "running")
    wait_until(
        lambda: all(
            status(f"{prefix}status")[f"producerStats_{k}"]["receiverStats"]["nReceived"]
            for k in (1, 2)
        )
    )
    producers[1].publish([1, 2])
    producers[2].publish([3])
    wait_until(lambda: processed(prefix) == 3)
    program.signal()
    assert program.wait() == 1
    assert f"channel {prefix}out:3 was never found" in program.text
