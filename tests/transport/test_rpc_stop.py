"""A service that is called without a pause ends within a limit, and loses no call."""

from __future__ import annotations

import subprocess
import sys

from tests.support import PATIENCE

CALLER = """
import sys, time, pvaccess as pva
count = 0
while True:
    client = pva.RpcClient(sys.argv[1])
    client.setTimeout(5)
    try:
        while True:
            reply = client.invoke(pva.PvObject({"uniqueId": pva.INT}, {"uniqueId": count}))
            assert reply["status"] == 0, reply
            count += 1
    except (pva.PvaException, RuntimeError):
        time.sleep(0.01)
"""
SERVICE = """
import sys
from pvapy_stream.transport.rpc import RpcReceiver
from tests.support import wait_until
for number in range(int(sys.argv[2])):
    came = []
    receiver = RpcReceiver(sys.argv[1])
    receiver.start(lambda obj: came.append(obj["uniqueId"]))
    wait_until(lambda: len(came) >= 20)
    receiver.stop()
    print(number, flush=True)
"""


def start(code: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_service_ends_while_it_is_called(prefix: str) -> None:
    callers = [start(CALLER, f"{prefix}service") for _ in range(2)]
    service = start(SERVICE, f"{prefix}service", "6")
    try:
        out, err = service.communicate(timeout=PATIENCE)
        assert service.returncode == 0, err
        assert out.split() == [str(number) for number in range(6)]
        # No call was answered with a refusal.
        assert [caller.poll() for caller in callers] == [None, None]
    finally:
        for one in [service, *callers]:
            one.kill()
            one.communicate()
