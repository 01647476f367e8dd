"""A source without ledger starts again while nobody listens: the audit must not say OK."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pvapy_stream.accounting.ledger import Ledger, read_ledgers
from tests.in_process import call
from tests.support import Commands, Program, wait_until


def published(path: Path) -> int:
    """How many ids a source has published.

    It is not asked: on loopback the search for its channel may go to the server that is stopped.
    """
    return sum(len(one.published) for one in read(path))


def read(path: Path) -> list[Ledger]:
    return read_ledgers(path) if path.exists() else []


def ended(consumer: Program, second: Program, file: Path) -> list[Ledger]:
    """The ledgers of both epochs; what the second source sent before is told as unknown."""
    wait_until(lambda: len(parts := read(file)) == 2 and len(parts[1].processed) >= 10)
    consumer.signal(signal.SIGINT)
    assert consumer.wait() == 0, consumer.text
    second.signal(signal.SIGINT)
    second.wait()
    parts = read(file)
    audit = call("audit", file)
    assert audit.code == 1, audit.text
    assert f"1-{first_of(parts[1]) - 1} unknown" in audit.text
    return parts


def first_of(ledger: Ledger) -> int:
    first = ledger.processed.first
    assert first is not None
    return first


def test_what_it_sent_while_its_consumer_was_away_is_unknown(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    channel, file, sent = f"{prefix}image", tmp_path / "ledger.json", tmp_path / "sent.json"
    source = ("sim", "-cn", channel, "-nx", 8, "-ny", 8, "-rt", 300, "-std", 0, "-fps")
    consumer = commands("consumer", "-ic", channel, "-sqs", 500, "--ledger", file)
    first = commands(*source, 100)
    wait_until(lambda: sum(len(one.processed) for one in read(file)) >= 200)
    first.signal(signal.SIGKILL)
    first.wait()
    os.kill(consumer.process.pid, signal.SIGSTOP)
    try:
        # So slow that its consumer is back long before its ids pass those of the first.
        second = commands(*source, 10, "--ledger", sent)
        wait_until(lambda: published(sent) >= 10)
    finally:
        os.kill(consumer.process.pid, signal.SIGCONT)
    _, again = ended(consumer, second, file)
    assert first_of(again) > 10


@pytest.mark.parametrize("who", ["consumer shm", "consumer pva", "mirror pva"])
def test_a_new_source_is_known_though_its_ids_go_on(
    prefix: str, commands: Commands, tmp_path: Path, who: str
) -> None:
    program, mode = who.split()
    channel, file, sent = f"{prefix}image", tmp_path / "ledger.json", tmp_path / "sent.json"
    source = ("sim", "-cn", channel, "-nx", 8, "-ny", 8, "-rt", 300, "-std", 0, "-om", mode)
    words = (
        ("consumer", "-ic", channel, "-im", mode, "-sqs", 2)
        if program == "consumer"
        else ("mirror", "-cm", f"({prefix}mirror,{channel},{mode},2)")
    )
    consumer = commands(*words, "--ledger", file)
    first = commands(*source, "-fps", 50)
    wait_until(lambda: sum(len(one.processed) for one in read(file)) >= 20)
    first.signal(signal.SIGKILL)
    first.wait()
    last = read(file)[0].received.last
    assert last is not None
    os.kill(consumer.process.pid, signal.SIGSTOP)
    try:
        second = commands(*source, "-fps", 500, "--ledger", sent)
        wait_until(lambda: published(sent) > 2 * last + 50)
    finally:
        os.kill(consumer.process.pid, signal.SIGCONT)
    before, again = ended(consumer, second, file)
    assert not before.missed
    assert first_of(again) > 2 * last
