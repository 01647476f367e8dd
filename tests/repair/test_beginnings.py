"""What a source sends first is repaired, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.repair.links import Link, N, audit_of, ids_in
from tests.support import Commands, status, wait_until


@pytest.mark.parametrize("stage", ["writer", "collector"])
def test_a_connection_that_is_cut_before_the_first_object(
    commands: Commands, link: Callable[..., Link], prefix: str, tmp_path: Path, stage: str
) -> None:
    # The source begins when another stage is there.
    source = link("--keep-past", 100, "--wait-for-stages", f"{prefix}another")
    repairing = {
        "-sc": f"{prefix}{stage}", "--drain-timeout": 30, "--ledger": tmp_path / f"{stage}.json",
    }  # fmt: skip
    words = ["-dc", "--repair", *(word for option in repairing.items() for word in option)]
    programs = []
    ledgers = [tmp_path / "sim.json", tmp_path / f"{stage}.json"]
    if stage == "collector":
        programs.append(commands(
            "collector", "-ic", source.channel, "-pid", "1", "-oc", f"{prefix}gathered", *words,
            **source.found_at,
        ))  # fmt: skip
        ledgers.append(tmp_path / "writer.json")
        words = ["-dc", "-sc", f"{prefix}writer", "--ledger", ledgers[-1]]
    programs.append(commands(
        "write", "-ic", f"{prefix}gathered" if programs else source.channel, "-o",
        tmp_path / "out.h5", *words, **({} if programs else source.found_at),
    ))  # fmt: skip
    for name in (stage, "writer"):
        wait_until(lambda name=name: _has_received(prefix, name))
    source.proxy.cut()
    another = commands("consumer", "-ic", source.channel, "-sc", f"{prefix}another", "-dc")
    wait_until(lambda: source.newest() >= 100)
    source.proxy.mend()
    wait_until(lambda: source.newest() == N)
    for program in (*programs, another, source.source):
        program.signal()
        assert program.wait() == 0, program.text
    assert sorted(ids_in(tmp_path / "out.h5")) == list(range(1, N + 1))
    code, text = audit_of(commands, *ledgers)
    assert code == 0, text


def _has_received(prefix: str, name: str) -> bool:
    """Whether a stage has received the opening object."""
    found = status(f"{prefix}{name}")
    counted = found.get("producerStats_1", found).get("receiverStats", {})
    return counted.get("nReceived", 0) > 0
