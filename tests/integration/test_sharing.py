"""Consumers that share a source whose server has no distributor: PVXS, as in p4p."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvapy_stream.accounting.ledger import Ledger, read_ledgers
from tests.pva.net.partner import Partner
from tests.support import (
    Commands,
    Program,
    Source,
    command,
    status,
    wait_for_monitors,
    wait_until,
    write_processor,
)

N = 200

# Posts images with these ids, whose pixels carry them, and as large ones as it is told.
P4P = """
import sys, time
import numpy as np
from p4p.nt import NTNDArray
from p4p.server import Server, StaticProvider
from p4p.server.thread import SharedPV
nt = NTNDArray()
def image(number, side=8):
    value = nt.wrap(np.full((side, side), number, "u2"))
    value.uniqueId = number
    return value
pv = SharedPV(initial=image(0))
provider = StaticProvider("x")
provider.add(sys.argv[1], pv)
server = Server(providers=[provider])
print("up", flush=True)
for line in sys.stdin:
    first, last, period = line.split()
    for number in range(int(first), int(last) + 1):
        pv.post(image(number))
        time.sleep(float(period))
    print("posted", flush=True)
"""

# Fails for an image whose pixels are not those of its id.
PROCESSOR = """
from pvapy_stream import FrameProcessor
class P(FrameProcessor):
    def process_frame(self, frame):
        if frame.image.min() != frame.id or frame.image.max() != frame.id:
            raise ValueError(f"pixels {frame.image.flat[0]}, id {frame.id}")
        return frame
"""


class Servers:
    """Servers in processes of their own, one after the other."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self._made: list[Partner] = []

    def start(self) -> Partner:
        self._made.append(Partner(P4P, self.channel))
        return self._made[-1]

    def close(self) -> None:
        for one in self._made:
            one.kill()


@pytest.fixture
def pvxs(prefix: str) -> Iterator[Servers]:
    made = Servers(f"{prefix}image")
    yield made
    made.close()


def consumers(
    commands: Commands, prefix: str, folder: Path, *options: object, n: int = 2
) -> Program:
    file = write_processor(folder, PROCESSOR)
    return commands(
        "consumer", "-ic", f"{prefix}image", "-nc", n, "-dg", "g", "-dt", "uniqueId", "-sqs", "200",
        "-sc", f"{prefix}status:*", "-cc", f"{prefix}control:*", "-pf", file, "-pc", "P",
        "--ledger", folder / "ledger.json", *options,
    )  # fmt: skip


def statuses(prefix: str) -> list[str]:
    return [f"{prefix}status:1", f"{prefix}status:2"]


def processed(prefix: str) -> list[int]:
    return [status(one)["processorStats"]["nProcessed"] for one in statuses(prefix)]


def wait_for_dealer(prefix: str) -> None:
    """Wait until what the source posts is dealt out."""
    wait_for_monitors(statuses(prefix))
    wait_until(lambda: status(f"{prefix}image:dealer:g").get("state") == "running", 60)


def end(program: Program, code: int = 0) -> None:
    program.signal()
    assert program.wait() == code, program.text


def by_stage(folder: Path) -> dict[str, list[Ledger]]:
    found: dict[str, list[Ledger]] = {}
    for one in read_ledgers(folder / "ledger.json"):
        found.setdefault(f"{one.stage} {one.stage_id}", []).append(one)
    return found


def audit(commands: Commands, folder: Path) -> Program:
    program = commands("audit", folder / "ledger.json")
    program.wait()
    return program


@pytest.mark.parametrize("fields", [[], ["-fr", "value,dimension,timeStamp"]])
def test_two_consumers_process_each_id_of_a_pvxs_source_once(
    prefix: str, pvxs: Servers, commands: Commands, tmp_path: Path, fields: list[str]
) -> None:
    server = pvxs.start()
    program = consumers(commands, prefix, tmp_path, *fields)
    wait_for_dealer(prefix)
    assert server.tell(f"1 {N} 0.002") == "posted"
    wait_until(lambda: sum(processed(prefix)) == N, 60)
    assert processed(prefix) == [N / 2, N / 2]
    end(program)
    ledgers = by_stage(tmp_path)
    shares = [list(ledgers[f"consumer {k}"][0].processed) for k in (1, 2)]
    assert sorted(shares[0] + shares[1]) == [*range(1, N + 1)]
    assert [list(one.received) for one in ledgers["mirror 1"]] == [[*range(N + 1)]]
    report = audit(commands, tmp_path)
    assert report.process.returncode == 0, report.text
    assert f"published {N}, processed {N}, missed 0, without a fate 0: OK" in report.out[-1]
    assert "its server (PVXS" in program.text
    assert program.text.count("deals it out to the 2 consumers") == 1
