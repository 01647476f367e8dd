"""What a terminal shows while stages run: a table that fits, and lines above it."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvapy_stream.cli.console import make_console
from pvapy_stream.cli.display import stats_lines
from pvapy_stream.cli.live_table import StageRates, status_table
from pvapy_stream.hpc.service import StageReport
from pvapy_stream.status.fields import read
from tests.in_process import call
from tests.support import (
    Source,
    some_of,
    wait_for_monitors,
    wait_until,
    write_processor,
)
from tests.terminal import TerminalProgram

# Lines of all kinds: logged, printed, and written by code that knows no Python.
NOISY = """
import os, sys
from pvapy.hpc.userDataProcessor import UserDataProcessor

class Noisy(UserDataProcessor):
    def process(self, pvObject):
        number = f'{pvObject["uniqueId"]} in {self.processorId}'
        self.logger.warning(f'logged {number}')
        sys.stdout.write(f'printed {number}\\n')
        sys.stdout.flush()
        os.write(2, f'written {number}\\n'.encode())
"""
KINDS = ("logged", "printed", "written")
_LINE = re.compile(r"(\d{4}-\S+ \S+ WARNING Noisy: logged|printed|written) \d+ in \d+")


@pytest.fixture
def terminals() -> Iterator[list[TerminalProgram]]:
    made: list[TerminalProgram] = []
    yield made
    for one in made:
        one.close()


def report(stage_id: int = 1, kind: str = "consumer", **changes: Any) -> StageReport:
    stats = {
        "receiverStats": {"nReceived": 123456789},
        "queueStats": {"nRejected": 12345, "nQueued": 98765},
        "publisherStats": {"nPublished": 123456700, "nErrors": 2},
        "processorStats": {
            "nProcessed": 123456700, "nFiltered": 1234, "nMissed": 54321, "nErrors": 3,
            "lastObjectId": 123456789, "firstObjectTime": 0.0, "lastObjectTime": 0.0,
        },
    }  # fmt: skip
    identity = {f"{kind}Id": stage_id, "inputChannel": "in", "state": "disconnected"}
    return StageReport(read({**identity, **stats, **changes}), [])


def shown(reports: dict[int, StageReport], columns: int) -> list[str]:
    out = io.StringIO()
    make_console(file=out, width=columns).print(status_table(reports, StageRates()))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("columns", [200, 130, 80, 60, 40, 24])
def test_a_table_of_any_width_cuts_nothing_in_two(columns: int) -> None:
    lines = shown({1: report(), 12: report(12)}, columns)
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    assert text.count("disconnected") == 2
    # Of both stages, and of all.
    assert text.count("123456700") == 4
    assert text.count("246913400") == 2
    assert "…" not in text
    for name in ("received", "processed", "frames/s", "published", "rejected", "last id"):
        assert name in text
    assert text.count("received") == (1 if columns >= 130 else 3)


def test_names_of_users_are_neither_emoji_nor_markup() -> None:
    out = io.StringIO()
    problem = "channel det:camera:image was never found [red]"
    for line in stats_lines({1: report(message="x")}, ["all"]):
        make_console(file=out).print(line)
    make_console(file=out).print(problem)
    assert problem in out.getvalue()


def test_a_collector_has_received_what_its_producers_brought() -> None:
    stats = {f"producerStats_{n}": {"receiverStats": {"nReceived": n * 10}} for n in (1, 2)}
    stats |= {"receiverStats": {}, "collectorStats": {"nRejected": 4}, "queueStats": {}}
    lines = shown({1: report(kind="collector", **stats)}, 200)
    assert re.search(r"disconnected .* 30 .* 4 ", lines[3]), lines
    text = "\n".join(stats_lines({1: report(kind="collector", **stats)}, ["receiver"]))
    assert "nReceived 10" in text
    assert "nReceived 20" in text


@pytest.mark.parametrize(("columns", "several"), some_of([130, 80, 50], [False, True]))
def test_lines_scroll_above_the_table(
    prefix: str,
    source: Source,
    terminals: list[TerminalProgram],
    tmp_path: Path,
    columns: int,
    several: bool,
) -> None:
    file = write_processor(tmp_path, NOISY)
    numbers = (1, 2) if several else (1,)
    program = TerminalProgram(
        columns, "consumer", "-ic", source.channel, "-sc", f"{prefix}status:*", "-pf", file,
        "-pc", "Noisy", "-sqs", "100", "-rs", "processor", "--status-period", "0.1",
        *(("-nc", "2") if several else ()),
    )  # fmt: skip
    terminals.append(program)
    wait_for_monitors([f"{prefix}status:{number}" for number in numbers])
    source.publish(range(1, 31), period=0.01)
    expected = {
        f"{kind} {number} in {stage}"
        for kind in KINDS for number in range(1, 31) for stage in numbers
    }  # fmt: skip

    def all_is_said() -> bool:
        # On a terminal that is too narrow for a line it goes on in the next.
        text = "".join(program.lines).replace(" ", "")
        return all(said.replace(" ", "") in text for said in expected)

    wait_until(all_is_said)
    program.process.send_signal(signal.SIGTERM)
    assert program.wait() == 0, program.lines
    if columns < 80:
        return
    last = [line for line in program.lines if _LINE.fullmatch(line)]
    assert len(last) == len(expected)
    for lines in program.frames[::5]:
        for line in lines:
            if any(kind in line for kind in KINDS):
                # What is read of a terminal may end in the middle of a line.
                assert any(whole.startswith(line) for whole in last), line
    # The table itself was there, and is gone.
    assert any("frames/s" in line for frame in program.frames for line in frame)
    assert not any("frames/s" in line for line in program.lines)


def test_standard_error_that_was_sent_to_a_file_goes_there(
    prefix: str, source: Source, terminals: list[TerminalProgram], tmp_path: Path
) -> None:
    file = write_processor(tmp_path, NOISY)
    with (tmp_path / "errors.txt").open("w") as errors:
        program = TerminalProgram(
            100, "consumer", "-ic", source.channel, "-sc", f"{prefix}status", "-pf", file,
            "-pc", "Noisy", "-sqs", "100", "-rs", "processor", errors=errors,
        )  # fmt: skip
    terminals.append(program)
    wait_for_monitors([f"{prefix}status"])
    source.publish(range(1, 4))
    wait_until(lambda: "printed 3 in 1" in program.lines)
    program.process.send_signal(signal.SIGTERM)
    assert program.wait() == 0, program.lines
    lines = (tmp_path / "errors.txt").read_text().splitlines()
    assert sum("logged" in line for line in lines) == 3
    assert sum("written" in line for line in lines) == 3
    assert not any("logged" in line or "written" in line for line in program.lines)


def test_a_channel_that_looks_like_an_emoji_is_shown_as_it_is(prefix: str) -> None:
    channel = f"{prefix}:camera:image[red]"
    ended = call("consumer", "-ic", channel, "-rt", "0.5")
    assert ended.code == 1
    assert f"channel {channel} was never found" in "".join(ended.out)
