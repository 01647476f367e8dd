"""Objects that one stage repairs are late for those after it, and are nowhere lost or doubled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from chaos.proxy import Proxy
from pvapy_stream.accounting.ledger import read_ledgers
from tests.ports import free_port
from tests.repair.links import Link, N, audit_of, ids_in
from tests.support import Commands, get, image, wait_until


@pytest.mark.parametrize("between", ["", "mirror", "collector"])
def test_late_objects_reach_the_file(
    commands: Commands,
    link: Callable[..., Link],
    prefix: str,
    tmp_path: Path,
    between: str,
) -> None:
    source = link("--keep-past", 100, "--wait-for-stages", f"{prefix}writer")
    ledgers = [tmp_path / f"{name}.json" for name in ("sim", "consumer", between, "writer") if name]
    end = {"": f"{prefix}1"}.get(between, f"{prefix}2")
    writer = commands(
        "write", "-ic", end, "-o", tmp_path / "out.h5", "-sc", f"{prefix}writer", "-dc",
        "--ledger", tmp_path / "writer.json",
    )  # fmt: skip
    programs = [writer]
    if between == "mirror":
        programs.insert(0, commands(
            "mirror", "-cm", f"({prefix}2,{prefix}1,pva,100)", "--ledger", tmp_path / "mirror.json",
        ))  # fmt: skip
    elif between:
        programs.insert(0, commands(
            "collector", "-ic", f"{prefix}*", "-pid", "1", "-oc", f"{prefix}2", "-dc",
            "--ledger", tmp_path / "collector.json",
        ))  # fmt: skip
    stage = commands(
        "consumer", "-ic", source.channel, "-oc", f"{prefix}1", "-sc", f"{prefix}consumer", "-dc",
        "--repair", "--drain-timeout", 30, "--ledger", tmp_path / "consumer.json",
        **source.found_at,
    )  # fmt: skip
    source.disturb()
    for program in (stage, *programs, source.source):
        program.signal()
        assert program.wait() == 0, program.text
    (ledger,) = read_ledgers(tmp_path / "writer.json")
    assert len(ledger.repaired) >= 100
    assert sorted(ids_in(tmp_path / "out.h5")) == list(range(1, N + 1))
    code, text = audit_of(commands, *ledgers)
    assert code == 0, text
    verified = commands("verify", tmp_path / "out.h5")
    assert verified.wait() == 0, verified.text


def test_a_collector_asks_all_its_producers(
    commands: Commands, prefix: str, tmp_path: Path, proxies: Callable[[int], Proxy]
) -> None:
    np.save(tmp_path / "frames.npy", np.stack([image(n) for n in range(1, N + 1)]))
    source, producers = f"{prefix}image", []
    ports = [free_port(), free_port()]
    links = [proxies(port) for port in ports]
    names = " ".join(f"127.0.0.1:{link.search_port}" for link in links)
    writer = commands(
        "write", "-ic", f"{prefix}out", "-o", tmp_path / "out.h5", "-sc", f"{prefix}writer", "-dc",
        "--ledger", tmp_path / "writer.json",
    )  # fmt: skip
    for number, port in enumerate(ports, 1):
        producers.append(commands(
            "consumer", "-id", number, "-ic", source, "-oc", f"{prefix}*", "-dc", "-dg", "all",
            "--keep-past", 100, "--ledger", tmp_path / f"consumer{number}.json",
            EPICS_PVAS_SERVER_PORT=port,
        ))  # fmt: skip
    sim = commands(
        "sim", "-cn", source, "-if", tmp_path / "frames.npy", "-fps", 300, "--n-publish", N,
        "-std", 0, "--wait-for-clients", 2, "--wait-for-stages", f"{prefix}writer", "-shd", 120,
        "-rt", 0, "-rp", 0, "-dc", "--ledger", tmp_path / "sim.json",
    )  # fmt: skip

    for number in (1, 2):
        # Clients look only now and then whether a name server has come.
        wait_until(lambda number=number: get(f"{prefix}{number}"))
    collector = commands(
        "collector", "-ic", f"{prefix}*", "-pid", "1,2", "-oc", f"{prefix}out", "-dc", "--repair",
        "--drain-timeout", 30, "--gap-timeout", 0.5, "--ledger", tmp_path / "collector.json",
        EPICS_PVA_NAME_SERVERS=names, EPICS_PVA_ADDR_LIST="",
    )  # fmt: skip

    def newest() -> int:
        return get(source)["uniqueId"]

    for number in range(1, 5):
        wait_until(lambda number=number: newest() >= number * N // 5)
        link = links[number % 2]
        link.cut()
        end = newest() + 100
        wait_until(lambda end=end: newest() >= end)
        link.mend()
    wait_until(lambda: newest() == N)
    for program in (collector, writer, *producers, sim):
        program.signal()
        assert program.wait() == 0, program.text
    repaired = [one.repaired for one in read_ledgers(tmp_path / "collector.json")]
    assert all(repaired), repaired
    assert sorted(ids_in(tmp_path / "out.h5")) == list(range(1, N + 1))
    names = ("sim", "consumer1", "consumer2", "collector", "writer")
    code, text = audit_of(commands, *(tmp_path / f"{name}.json" for name in names))
    assert code == 0, text
