"""The distribution examples of the published page: which ids does each consumer get?"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvapy_stream.accounting.ledger import Ledger, read_ledgers
from tests.in_process import Called, call
from tests.support import (
    Commands,
    Program,
    Source,
    command,
    get,
    pvget,
    rounds,
    wait_for_monitors,
    wait_until,
    write_processor,
)

N = 120


def run_of(start: int, width: int, period: int) -> list[int]:
    """Runs of ids as the distributor hands them out."""
    return [i for i in range(1, N + 1) if (i - 1) % period in range(start, start + width)]


def stop_all(prefix: str, ids: list[int], programs: list[Program]) -> None:
    for number in ids:
        assert command(f"{prefix}control:{number}", "stop").startswith("Stop")
    for program in programs:
        assert program.wait() == 0, program.text


def processed(files: list[Path]) -> dict[int, Ledger]:
    return {ledger.stage_id: ledger for file in files for ledger in read_ledgers(file)}


def channels(prefix: str) -> list[str]:
    return [
        "-sc",
        f"{prefix}status:*",
        "-cc",
        f"{prefix}control:*",
        "-oc",
        f"{prefix}out:*",
        "-sqs",
        "200",
    ]


def test_one_consumer_gets_every_id(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = tmp_path / "ledger.json"
    program = commands("consumer", "-ic", source.channel, *channels(prefix), "--ledger", file)
    wait_for_monitors([f"{prefix}status:1"])
    source.publish(range(1, N + 1))
    # An object is processed before it is published, and a status may be of between.
    stats = wait_until(
        lambda: (s := pvget(f"{prefix}status:1"))["publisherStats"]["nPublished"] >= N and s
    )
    assert stats["processorStats"]["nProcessed"] == N
    assert stats["processorStats"]["firstObjectId"] == 1
    assert stats["processorStats"]["lastObjectId"] == N
    assert stats["processorStats"]["nMissed"] == 0
    assert stats["publisherStats"]["nPublished"] == N
    assert pvget(f"{prefix}out:1")["uniqueId"] == N
    stop_all(prefix, [1], [program])
    assert list(processed([file])[1].processed) == list(range(1, N + 1))


@pytest.mark.parametrize(
    ("options", "width"),
    # Without the option, it is 1.
    [([], 1), (["-du", "4", "-fr", "value,dimension"], 4), (["-du", "1"], 1)][: 1 + rounds(1)],
)
def test_two_consumers_share_the_ids(
    prefix: str, source: Source, commands: Commands, tmp_path: Path, options: list[str], width: int
) -> None:
    file = tmp_path / "ledger.json"
    program = commands(
        "consumer", "-ic", source.channel, "-nc", "2", "-dg", "share", "-dt", "uniqueId", *options,
        *channels(prefix), "--ledger", file,
    )  # fmt: skip
    wait_for_monitors([f"{prefix}status:1", f"{prefix}status:2"])
    source.publish(range(1, N + 1))
    stats = [
        wait_until(
            lambda k=k: (
                (s := pvget(f"{prefix}status:{k}"))["processorStats"]["nProcessed"] == N / 2 and s
            )
        )
        for k in (1, 2)
    ]
    assert [s["processorStats"]["nMissed"] for s in stats] == [0, 0]
    if "-fr" in options:
        assert set(pvget(f"{prefix}out:1")) == {"uniqueId", "value", "dimension"}
    stop_all(prefix, [1, 2], [program])
    ledgers = processed([file])
    # Which of the two comes first is the server's choice.
    got = sorted(list(ledgers[k].processed) for k in (1, 2))
    assert got == [run_of(0, width, 2 * width), run_of(width, width, 2 * width)]
    assert not ledgers[1].missed
    assert not ledgers[2].missed


def test_sets_get_runs_and_all_of_a_set_the_same(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    programs = [
        commands(
            "consumer",
            "-ic",
            source.channel,
            "-cid",
            ids,
            "-dg",
            "share",
            "-ds",
            name,
            "-dt",
            "uniqueId",
            "-du",
            "3",
            "-nds",
            "2",
            *channels(prefix),
            "--ledger",
            file,
        )
        for name, ids, file in (("A", "1,2", files[0]), ("B", "range(3,5)", files[1]))
    ]
    wait_for_monitors(f"{prefix}status:{k}" for k in (1, 2, 3, 4))
    source.publish(range(1, N + 1))
    for k in (1, 2, 3, 4):
        wait_until(
            lambda k=k: pvget(f"{prefix}status:{k}")["processorStats"]["nProcessed"] == N / 2
        )
    stop_all(prefix, [1, 3], [])
    stop_all(prefix, [2, 4], programs)
    ledgers = processed(files)
    assert list(ledgers[1].processed) == list(ledgers[2].processed)
    assert list(ledgers[3].processed) == list(ledgers[4].processed)
    assert sorted(list(ledgers[k].processed) for k in (1, 3)) == [run_of(0, 3, 6), run_of(3, 3, 6)]
    assert not any(ledger.missed for ledger in ledgers.values())


@pytest.mark.parametrize("option", ["output", "status", "control"])
def test_a_forgotten_star_is_refused_with_the_fix(prefix: str, option: str) -> None:
    ended = call("consumer", "-ic", "x", "-nc", "2", f"--{option}-channel", f"{prefix}x")
    assert ended.code == 2, ended.text
    assert f"--{option}-channel {prefix}x: each of the 2 consumers needs its own" in ended.text
    assert f"write it like {prefix}x:*" in ended.text


@pytest.fixture(scope="module")
def taken() -> Iterator[str]:
    """The start of the names that a program serves while the tests run: its output and so on.

    When they are over, it ends, and is in nobody's way.
    """
    prefix = f"t{uuid.uuid4().hex[:8]}:"
    source, commands = Source(f"{prefix}image"), Commands()
    words = (
        "consumer", "-ic", source.channel, "-oc", f"{prefix}-oc", "-sc", f"{prefix}-sc",
        "-cc", f"{prefix}-cc",
    )  # fmt: skip
    try:
        first = commands(*words)
        wait_for_monitors([f"{prefix}-sc"])
        wait_until(lambda: get(f"{prefix}-oc") is not None)
        yield prefix
        first.signal()
        assert first.wait() == 0, first.text
        third = commands(*words, "--runtime", "1")
        assert third.wait() == 0, third.text
    finally:
        commands.close()
        source.close()


def see_that_it_is_refused(ended: Called, name: str) -> None:
    assert ended.code == 1, ended.text
    assert f"channel {name} is already served by the program at 127.0.0.1:" in ended.text
    assert "stop that program, or give another name" in ended.text


@pytest.mark.parametrize("option", ["-oc", "-sc", "-cc"])
def test_a_name_that_another_program_serves_is_refused(taken: str, option: str) -> None:
    ended = call("consumer", "-ic", f"{taken}image", option, f"{taken}{option}")
    see_that_it_is_refused(ended, f"{taken}{option}")


@pytest.mark.parametrize("words", [
    ("mirror", "-cm", "({},other)"),
    ("sim", "-rt", "1", "-nx", "8", "-ny", "8", "-nf", "2", "-cn", "{}"),
    ("buffer", "tcp://127.0.0.1:9", "-o", "0", "--no-rest", "-sc", "{}"),
])  # fmt: skip
def test_other_programs_refuse_names_that_are_served(taken: str, words: tuple[str, ...]) -> None:
    ended = call(*(word.format(f"{taken}-oc") for word in words))
    see_that_it_is_refused(ended, f"{taken}-oc")


def test_a_bsread_writer_refuses_a_name_that_is_served(taken: str, commands: Commands) -> None:
    program = commands("writer", "tcp://127.0.0.1:9", "/dev/null", "-1", "0", "-sc", f"{taken}-sc")
    # Its port for requests is closed by the end of its process.
    ended = Called(program.wait(), program.out, program.err)
    see_that_it_is_refused(ended, f"{taken}-sc")


def test_two_programs_that_start_together_with_one_name_are_both_told(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    """Each looks before the other serves: a processor that starts slowly makes it so."""
    file = write_processor(
        tmp_path,
        "import time, pathlib\nfrom pvapy_stream import UserDataProcessor\n"
        "here = pathlib.Path(__file__).parent\nclass P(UserDataProcessor):\n"
        "    def __init__(self, config):\n        super().__init__(config)\n"
        # The search has ended when both are here for a while.
        "        (here / str(config['me'])).touch()\n"
        "        while not all((here / me).exists() for me in '12'):\n"
        "            time.sleep(0.01)\n        time.sleep(1)\n",
    )
    words = ("consumer", "-ic", source.channel, "-sc", f"{prefix}x", "-pf", file, "-pc", "P")
    two = [commands(*words, "-pa", f'{{"me": {me}}}') for me in (1, 2)]
    for program in two:
        wait_until(lambda program=program: "is served by 2 programs" in program.text)
    for program in two:
        program.signal()
    assert [program.wait() for program in two] == [1, 1]


def served(program: Program) -> bool:
    return "is served by 2 programs" in program.text


def test_mirrors_that_wait_for_their_source_under_one_name_are_both_told(
    prefix: str, commands: Commands
) -> None:
    two = [commands("mirror", "-cm", f"({prefix}x,{prefix}late)", "-rp", "0.2") for _ in "ab"]
    # Both look, and see nobody, as a mirror serves a name once its source has come.
    wait_until(lambda: all("Channel" in one.text for one in two))
    source = Source(f"{prefix}late")
    try:
        wait_until(lambda: all(map(served, two)))
        for one in two:
            one.signal()
        assert [one.wait() for one in two] == [1, 1]
    finally:
        source.close()


@pytest.mark.parametrize("words", [
    ("sim", "-nx", "8", "-ny", "8", "-nf", "2", "-cn"),
    ("buffer", "tcp://127.0.0.1:9", "-o", "0", "--no-rest", "-sc"),
    ("writer", "tcp://127.0.0.1:9", "/dev/null", "-1", "0", "-sc"),
])  # fmt: skip
def test_programs_that_start_together_with_one_name_know_of_each_other(
    prefix: str, commands: Commands, words: tuple[str, ...]
) -> None:
    two = [commands(*words, f"{prefix}x") for _ in "ab"]

    def refused(one: Program) -> bool:
        return "is already served by the program at" in one.text

    # On a machine that is slow in starting one of them, it sees the other before.
    wait_until(lambda: any(map(refused, two)) or all(map(served, two)))
    for one in two:
        if one.process.poll() is None:
            one.signal()
        one.wait()
