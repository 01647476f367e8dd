"""Slow subscribers, wrong names and modes, refusals, and time limits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pvaccess as pva
import pytest

import pvapy_stream
from pvapy_stream.errors import (
    ObjectError,
    PvapyStreamError,
    SettingsError,
    StreamTimeoutError,
    TransportError,
)
from pvapy_stream.pva.wire.status import Status
from tests.pva.net.test_bad_servers import BadServer, good
from tests.streams.support import Left, asend, atake, check, eventually, joined, send, take
from tests.support import PATIENCE, Source, image, wait_until


@pytest.mark.parametrize("modes", ["pva-pvas", "shm-shm", "memory-memory"])
def test_a_slow_subscriber_slows_its_source_down_and_loses_nothing(prefix: str, modes: str) -> None:
    out, frames = joined(f"{prefix}image", modes, queue_size=4, server_queue_size=4)
    with out, frames:
        source = threading.Thread(target=send, args=(out, *range(1, 301)))
        source.start()
        wait_until(lambda: frames.queued == 4)
        # It is held up: far from all is sent.
        assert take(frames, 1) == [1]
        assert out.sent < 100
        assert take(frames, 299) == list(range(2, 301))
        source.join(PATIENCE)
        assert (frames.missed, frames.dropped, out.dropped) == (0, 0, 0)


@pytest.mark.parametrize("modes", ["pva-pvas", "shm-shm"])
def test_sending_waits_without_holding_up_the_event_loop(prefix: str, modes: str) -> None:
    receives, sends = modes.split("-")

    async def run() -> None:
        async with (
            pvapy_stream.publish(f"{prefix}image", sends, timeout=PATIENCE) as out,
            pvapy_stream.subscribe(
                f"{prefix}image", receives, queue_size=4, server_queue_size=4
            ) as frames,
        ):
            await out.wait_for_subscribers()
            task = asyncio.create_task(asend(out, *range(1, 301)))
            await eventually(lambda: frames.queued == 4)
            assert not task.done()
            assert await atake(frames, 300) == list(range(1, 301))
            await task

    asyncio.run(run())


@pytest.mark.parametrize(
    ("policy", "kept"), [("drop-newest", [1, 2, 3]), ("drop-oldest", [8, 9, 10])]
)
def test_frames_are_dropped_by_the_policy_and_counted(
    prefix: str, policy: Any, kept: list[int]
) -> None:
    out, frames = joined(f"{prefix}image", queue_size=3, overflow=policy)
    with out, frames:
        send(out, *range(1, 11))
        wait_until(lambda: frames.received == 10)
        assert (frames.queued, frames.dropped, frames.missed) == (3, 7, 0)
        assert take(frames, 3) == kept
        send(out, 11)
        assert take(frames, 1) == [11]
        send(out, 12)
        wait_until(lambda: frames.queued)
    # What nobody had taken is not forgotten.
    assert (frames.received, frames.dropped) == (12, 8)


def test_who_takes_nothing_is_waited_for_once(
    prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    out, frames = joined(f"{prefix}image", queue_size=2, overflow_timeout=0.2)
    with out, frames:
        send(out, *range(1, 21))
        wait_until(lambda: frames.received == 20)
        assert frames.dropped == 18
        assert caplog.text.count("no frame was taken for 0.2 s") == 1
        assert take(frames, 2) == [1, 2]
        send(out, 21)
        assert take(frames, 1) == [21]


def test_a_stuck_subscriber_of_a_publication_is_counted(prefix: str) -> None:
    with pvapy_stream.publish(f"{prefix}image", timeout=0.2) as out:
        frames = pvapy_stream.subscribe(f"{prefix}image", queue_size=2)
        with frames:
            out.wait_for_subscribers()
            send(out, *range(1, 31), side=300)
            assert out.dropped > 0
            assert out.sent == 30


def test_wrong_settings_are_refused_by_name() -> None:
    wrong: list[tuple[Any, str]] = [
        ({"mode": "smoke"}, "mode: Input should be 'pva', .*given 'smoke'"),
        ({"mode": "both"}, "mode: Input should be 'pva'"),
        ({"queue_size": 0}, "queue_size: .*greater than or equal to 1"),
        ({"timeout": -1}, "timeout: .*greater than 0"),
        ({"overflow": "merge"}, "overflow: .*'block', 'drop-newest' or 'drop-oldest'"),
        ({"mode": "ejfat", "args": {"useCP": 1}}, "args: mode ejfat works only without a load"),
    ]
    for options, message in wrong:
        with pytest.raises(SettingsError, match=message):
            pvapy_stream.subscribe("x", **options)
    with pytest.raises(SettingsError, match=r"mode: Input should be 'pvas', .*given 'ca'"):
        pvapy_stream.publish("x", "ca")
    with pytest.raises(SettingsError, match=r"channel: .*at least 1"):
        pvapy_stream.publish("")


@pytest.mark.parametrize("mode", ["pva", "shm"])
def test_a_channel_that_never_comes(prefix: str, mode: str, left: Left) -> None:
    what = f"{prefix}none was never found; check .*within 0.3 s"
    with pvapy_stream.subscribe(f"{prefix}none", mode, timeout=0.3) as frames:
        with pytest.raises(StreamTimeoutError, match=what):
            next(frames)
        assert not frames.connected

    async def run() -> None:
        async with pvapy_stream.subscribe(f"{prefix}none", mode, timeout=0.3) as frames:
            with pytest.raises(TimeoutError, match=what):
                await frames.__anext__()

    asyncio.run(run())


def test_a_source_that_is_silent_or_gone_is_told_from_one_that_never_came(prefix: str) -> None:
    out, frames = joined(f"{prefix}image", timeout=0.3)
    with frames:
        with out:
            with pytest.raises(StreamTimeoutError, match="connected, and its source publishes no"):
                next(frames)
            # It may go on.
            send(out, 1)
            assert take(frames, 1) == [1]
        wait_until(lambda: not frames.connected)
        with pytest.raises(StreamTimeoutError, match="has disconnected"):
            next(frames)


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[BadServer]:
    server = BadServer(good, Status.error("not today"))
    monkeypatch.setenv("EPICS_PVA_NAME_SERVERS", f"127.0.0.1:{server.port}")
    yield server
    server.close()


@pytest.mark.parametrize("mode", ["pva", "auto"])
def test_a_monitor_that_is_refused_tells_why(prefix: str, refusing: BadServer, mode: str) -> None:
    with pvapy_stream.subscribe(f"{prefix}image", mode) as frames:
        with pytest.raises(TransportError, match=f"{prefix}image: the server refuses .*not today"):
            next(frames)

    async def run() -> None:
        async for _ in pvapy_stream.subscribe(f"{prefix}image", mode):
            pytest.fail("it was refused")

    with pytest.raises(TransportError, match="not today"):
        asyncio.run(run())


def test_what_is_no_image_is_an_error_and_the_stream_goes_on(prefix: str) -> None:
    source = Source(f"{prefix}number", pva.PvObject({"value": pva.INT}, {"value": 1}))
    with pvapy_stream.subscribe(f"{prefix}number") as frames:
        for _ in range(2):
            with pytest.raises(ObjectError, match=f"{prefix}number: .*uniqueId"):
                next(frames)
            source.put(pva.PvObject({"value": pva.INT}, {"value": 2}))
        assert frames.connected
    source.close()


def test_a_channel_has_one_publisher_and_an_input_one_host(prefix: str, left: Left) -> None:
    with pvapy_stream.publish(f"{prefix}image"):
        with pytest.raises(TransportError, match=f"cannot host channel {prefix}image"):
            pvapy_stream.publish(f"{prefix}image").open()
    with pvapy_stream.subscribe(f"{prefix}input", "pvas") as frames:
        other = pvapy_stream.subscribe(f"{prefix}input", "pvas")
        for _ in range(2):
            # Also for who does not open it first.
            with pytest.raises(TransportError, match=f"{prefix}input"):
                next(other)

        async def run() -> None:
            async with pvapy_stream.subscribe(f"{prefix}input", "pvas"):
                pytest.fail("the name is taken")

        with pytest.raises(TransportError, match=f"{prefix}input"):
            asyncio.run(run())
        assert not frames.closed


def test_what_cannot_be_sent_is_an_error_and_the_next_frame_goes(prefix: str) -> None:
    out, frames = joined(f"{prefix}image")
    with out, frames:
        assert out.send(image(1)) == 1
        with pytest.raises(PvapyStreamError, match="float16"):
            out.send(np.zeros((4, 6), np.float16))
        with pytest.raises(ObjectError, match=r"\(ny, nx\)"):
            out.send(np.zeros(4))
        assert out.send(image(9), id=9) == 9
        assert out.send(image(10)) == 10
        assert take(frames, 3) == [1, 9, 10]
    with pytest.raises(TransportError, match="is closed; make another"):
        out.send(image(1))
    with pytest.raises(StreamTimeoutError, match="0 of 2 subscribers"):
        with pvapy_stream.publish(f"{prefix}image") as again:
            again.wait_for_subscribers(2, timeout=0.1)


def test_a_remote_side_that_is_absent_is_an_error(prefix: str) -> None:
    async def run() -> None:
        async with pvapy_stream.publish(f"{prefix}input", "pva", timeout=0.3) as out:
            with pytest.raises(TransportError, match=f"{prefix}input"):
                await out.send(image(1, 8, 8))
            with pytest.raises(TransportError, match="number of subscribers is not known"):
                await out.wait_for_subscribers()
            assert out.errors
            await out.close()
            with pytest.raises(TransportError, match="is closed; make another"):
                await out.send(image(1, 8, 8))

    asyncio.run(run())


def test_a_cancelled_publication_is_closed(prefix: str, left: Left) -> None:
    async def source(started: asyncio.Event) -> None:
        async with pvapy_stream.publish(f"{prefix}image", timeout=PATIENCE) as out:
            await out.wait_for_subscribers()
            started.set()
            for number in range(1, 1000):
                await out.send(image(number, 8, 8), id=number)

    async def run() -> None:
        started = asyncio.Event()
        task = asyncio.create_task(source(started))
        frames = pvapy_stream.subscribe(f"{prefix}image", queue_size=4)
        async with frames:
            await started.wait()
            await eventually(lambda: frames.queued == 4)
            task.cancel()
            # Those that it had sent come nevertheless, in order.
            assert await atake(frames, 4) == [1, 2, 3, 4]
            while not task.done():
                await asyncio.wait([task, asyncio.create_task(_one(frames))], timeout=0.05)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


async def _one(frames: pvapy_stream.Subscription) -> None:
    async for frame in frames:
        check(frame)
        return


def test_cancelling_while_it_opens_leaves_nothing(prefix: str, left: Left) -> None:
    async def both() -> None:
        async with (
            pvapy_stream.publish(f"{prefix}image", "both"),
            pvapy_stream.subscribe(f"{prefix}image", "shm"),
        ):
            await asyncio.sleep(PATIENCE)

    async def run(delay: float) -> None:
        task = asyncio.create_task(both())
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for delay in (0.0, 0.001, 0.003, 0.01, 0.03):
        started = time.monotonic()
        asyncio.run(run(delay))
        assert time.monotonic() - started < PATIENCE / 2
