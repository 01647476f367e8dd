"""Who serves a channel, asked without the binding and answered by real servers."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.search import NameCheck, find_servers, served_twice
from tests.support import Source, wait_until

SERVER = """
import sys, pvaccess as pva
server = pva.PvaServer(sys.argv[1], pva.PvObject({'value': pva.INT}))
print("ready", flush=True)
sys.stdin.read()
"""


def serve(name: str) -> subprocess.Popen[str]:
    made = subprocess.Popen(
        [sys.executable, "-c", SERVER, name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    assert made.stdout is not None
    assert made.stdout.readline() == "ready\n"
    return made


def end(made: subprocess.Popen[str]) -> None:
    made.kill()
    made.communicate()


def test_a_server_of_this_process_is_found_and_an_absent_name_takes_a_short_time(
    source: Source, prefix: str
) -> None:
    found = wait_until(
        lambda: (f := find_servers([f"{prefix}none", source.channel]))[source.channel] and f
    )
    assert found[f"{prefix}none"] == {}
    assert len(found[source.channel]) == 1
    with pytest.raises(TransportError, match=rf"{source.channel} is already served by the pro.*at"):
        NameCheck([f"{prefix}none", source.channel]).refuse()
    begin = time.monotonic()
    NameCheck([f"{prefix}none", ""]).refuse()
    assert time.monotonic() - begin < 3
    begin = time.monotonic()
    NameCheck([]).refuse()
    assert time.monotonic() - begin < 0.2


def test_two_servers_of_a_name_are_told_apart_and_a_dead_one_is_not_in_the_way(
    prefix: str,
) -> None:
    one, two = serve(f"{prefix}x"), serve(f"{prefix}x")
    try:
        told = wait_until(lambda: served_twice([f"{prefix}x"]))
        assert f"channel {prefix}x is served by 2 programs (" in told
        end(two)
        wait_until(lambda: not served_twice([f"{prefix}x"]))
    finally:
        end(one)
        end(two)
    wait_until(lambda: not find_servers([f"{prefix}x"])[f"{prefix}x"])
    NameCheck([f"{prefix}x"]).refuse()
