"""A stage that is stopped (SIGSTOP) while it holds payloads: nothing is lost or torn."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import numpy as np

from pvapy_stream import publish, subscribe
from tests.support import Commands, status, wait_until, write_processor

N_BEFORE, N, SIDE = 10, 200, 256

# Each stage has a pool of its own, writes into it what it got, and keeps that for a while.
BODY = """
import numpy as np
from pvapy_stream import FrameProcessor

class More(FrameProcessor):
    def start(self):
        self.kept = []

    def process_frame(self, frame):
        self.kept = [*self.kept[-5:], (frame.image, frame.image[0, 0])]
        assert all((image == value).all() for image, value in self.kept)
        return np.add(frame.image, 1, out=frame.like())
"""


def test_a_stage_that_is_stopped_slows_the_source_and_loses_nothing(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    code = write_processor(tmp_path, BODY)
    first, second = (
        commands(
            "consumer", "-id", number, "-ic", f"{prefix}{number}", "-im", "shm", "-oc",
            f"{prefix}{number + 1}", "-om", "shm", "-sc", f"{prefix}s{number}", "-sqs", 8,
            "-pf", code, "-pc", "More", "--shm-timeout", 600,
        )
        for number in range(2)
    )  # fmt: skip
    wait_until(lambda: status(f"{prefix}s1")["state"] == "running")
    with (
        subscribe(f"{prefix}2", "shm", timeout=120, queue_size=1000) as frames,
        publish(f"{prefix}0", "shm", timeout=600) as source,
    ):
        source.wait_for_subscribers(1, timeout=120)
        wait_until(lambda: frames.connected)

        stopped = threading.Event()

        def send() -> None:
            for number in range(1, N + 1):
                if number > N_BEFORE:
                    stopped.wait()
                source.send(np.full((SIDE, SIDE), number, np.uint32), id=number)

        sender = threading.Thread(target=send)
        sender.start()
        got = [next(frames) for _ in range(N_BEFORE)]
        second.signal(signal.SIGSTOP)
        stopped.set()
        try:
            # The stage before it says who is waited for, and sends no more; nor does the source.
            shown = wait_until(lambda: (s := status(f"{prefix}s0"))["poolStats"]["problem"] and s)
            assert f"(process {second.process.pid})" in shown["poolStats"]["problem"]
            assert f"channel {prefix}1: publishing waits for" in shown["message"]
            n_taken = status(f"{prefix}s0")["publisherStats"]["nPublished"]
            assert sender.is_alive()
        finally:
            second.signal(signal.SIGCONT)
        got += [next(frames) for _ in range(N - N_BEFORE)]
        sender.join()
        assert source.dropped == 0
    assert n_taken < N
    assert [frame.id for frame in got] == [*range(1, N + 1)]
    # Also what was kept meanwhile is whole.
    assert all((frame.image == frame.id + 2).all() for frame in got)
    shown = wait_until(lambda: not (s := status(f"{prefix}s0"))["poolStats"]["problem"] and s)
    assert shown["message"] == ""
    assert shown["publisherStats"]["nRejected"] == 0
    for program in (first, second):
        program.signal()
        assert program.wait() == 0, program.text
