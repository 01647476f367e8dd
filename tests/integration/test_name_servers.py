"""Chains across firewalls: name servers instead of searches by UDP, puts instead of monitors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pvapy_stream.accounting.ledger import Ledger, merged, read_ledgers
from tests.ports import free_port
from tests.support import PATIENCE, Commands, pvget, rounds, wait_until

PASSES = "pvapy.hpc.adImageProcessor.AdImageProcessor"
N = 40


def ledger(path: Path) -> Ledger:
    return merged(read_ledgers(path))


@pytest.mark.parametrize("run", range(rounds(1)))
def test_the_published_example(run: int, prefix: str, commands: Commands, tmp_path: Path) -> None:
    """Source and last stage on host A, the stage between them on host B."""
    source_port, last_port = free_port(), free_port()
    ledgers = [tmp_path / f"{name}.json" for name in ("sim", "first", "last")]
    last = commands(
        "consumer", "--input-channel", f"{prefix}stage1:*:output",
        "--control-channel", f"{prefix}stage2:*:control",
        "--status-channel", f"{prefix}stage2:*:status",
        "--output-channel", f"{prefix}stage:*:output", "--processor-class", PASSES,
        "--report-period", "10", "--skip-initial-updates", "0", "--consumer-id", "1",
        "--input-mode", "pvas", "--ledger", ledgers[2],
        EPICS_PVAS_SERVER_PORT=last_port, EPICS_PVA_BROADCAST_PORT=free_port(),
    )  # fmt: skip
    first = commands(
        "consumer", "--input-channel", f"{prefix}image",
        "--control-channel", f"{prefix}stage1:*:control",
        "--status-channel", f"{prefix}stage1:*:status",
        "--output-channel", f"{prefix}stage1:*:output", "--processor-class", PASSES,
        "--report-period", "10", "--server-queue-size", "100", "--consumer-id", "1",
        "--output-mode", "pva", "--ledger", ledgers[1],
        EPICS_PVA_NAME_SERVERS=f"127.0.0.1:{source_port} 127.0.0.1:{last_port}",
        EPICS_PVA_BROADCAST_PORT=free_port(),
    )  # fmt: skip
    sim = commands(
        "sim", "-cn", f"{prefix}image", "-nx", "64", "-ny", "64", "-dt", "uint8", "-rt", "60",
        "-fps", "20", "-rp", "20", "-mn", "1", "-mx", "200", "-std", "0", "-shd", "1",
        "--wait-for-clients", "1", "--ledger", ledgers[0],
        EPICS_PVAS_SERVER_PORT=source_port, EPICS_PVA_BROADCAST_PORT=free_port(),
    )  # fmt: skip
    wait_until(lambda: len(ledger(ledgers[2]).processed) >= N if ledgers[2].exists() else False)
    for program in (sim, first, last):
        program.signal(signal.SIGINT)
        assert program.wait() == 0, program.text
    sent = ledger(ledgers[0]).published
    assert len(sent) >= N
    assert ledger(ledgers[1]).published == sent


def test_all_channels_of_a_stage_are_found_by_its_one_port(prefix: str, commands: Commands) -> None:
    """The output and the status are on two servers, of which a name server's address names one."""
    port = free_port()
    sim = commands(
        "sim", "-cn", f"{prefix}image", "-nx", "8", "-ny", "8", "-rt", "60", "-fps", "20",
        "-std", "0",
    )  # fmt: skip
    stage = commands(
        "consumer", "-ic", f"{prefix}image", "-oc", f"{prefix}out", "-sc", f"{prefix}status",
        EPICS_PVAS_SERVER_PORT=port,
    )  # fmt: skip
    wait_until(lambda: pvget(f"{prefix}out")["uniqueId"] > 0)
    text = (
        "from p4p.client.thread import Context\nc = Context('pva', nt=False)\n"
        f"out, status = (c.get('{prefix}' + n, timeout=30) for n in ('out', 'status'))\n"
        "print(out.uniqueId > 0, status.consumerId)"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=PATIENCE,
        env={
            **os.environ,
            "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{port}",
            "EPICS_PVA_BROADCAST_PORT": str(free_port()),
        },
    )  # fmt: skip
    assert done.stdout == "True 1\n", done.stderr
    for program in (sim, stage):
        program.signal()
        assert program.wait() == 0, program.text
