"""Frames through ``for`` and ``async for``, by all modes, and who ends it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest

import pvapy_stream
from pvapy_stream import Frame, Subscription
from pvapy_stream.frame import ColorMode
from tests.pva.net.partner import Partner
from tests.streams.support import (
    MODES,
    SENT_TO,
    SINK,
    SOURCE,
    Left,
    asend,
    atake,
    check,
    eventually,
    joined,
    send,
    take,
)
from tests.support import PATIENCE, Source, image, pvget, wait_until

Start = Callable[..., Partner]


@pytest.mark.parametrize("modes", MODES)
def test_every_frame_comes_once_in_order_and_whole(prefix: str, modes: str) -> None:
    out, frames = joined(f"{prefix}image", modes)
    with out, frames:
        for number in range(1, 31):
            frame = Frame.of(
                number, image(number), time_ns=10**18 + number, attributes={"n": number}
            )
            out.send(frame)
            found = next(frames)
            assert check(found) == number
            assert found.time_ns == 10**18 + number
            assert found.attributes["n"] == number
        assert (frames.received, frames.missed, frames.dropped) == (30, 0, 0)
        assert out.sent == 30
    assert list(frames) == []


@pytest.mark.parametrize("modes", MODES)
def test_the_same_with_asyncio(prefix: str, modes: str) -> None:
    receives, sends = modes.split("-")

    async def run() -> list[int]:
        got: list[int] = []
        async with (
            pvapy_stream.publish(f"{prefix}image", sends) as out,
            pvapy_stream.subscribe(f"{prefix}image", receives) as frames,
        ):
            if modes not in SENT_TO:
                await out.wait_for_subscribers()
            task = asyncio.create_task(asend(out, *range(1, 31)))
            async for frame in frames:
                got.append(check(frame))
                if frame.id == 30:
                    break
            await task
        assert [frame async for frame in frames] == []
        return got

    assert asyncio.run(run()) == list(range(1, 31))


@pytest.mark.parametrize("modes", ["pva-pvas", "shm-shm"])
def test_both_directions_between_processes(prefix: str, partner: Start, modes: str) -> None:
    receives, sends = modes.split("-")
    with pvapy_stream.publish(f"{prefix}there", sends, timeout=PATIENCE) as out:
        sink = partner(SINK, f"{prefix}there", receives)
        out.wait_for_subscribers()
        send(out, *range(1, 21))
        assert [sink.line() for _ in range(20)] == [f"{n} {n}" for n in range(1, 21)]
        assert sink.line() == "20 0 0"
    with pvapy_stream.subscribe(f"{prefix}back", receives) as frames:
        partner(SOURCE, f"{prefix}back", sends, "100")
        assert [next(frames).id for _ in range(20)] == list(range(100, 120))


def test_a_channel_of_the_binding_and_what_it_shows_at_first(source: Source) -> None:
    """What is there when we come may be old: it is no frame, unless it is asked for."""
    source.publish([5])
    with (
        pvapy_stream.subscribe(source.channel) as frames,
        pvapy_stream.subscribe(source.channel, initial=True) as all_of_them,
    ):
        assert take(all_of_them, 1) == [5]
        wait_until(lambda: frames.connected)
        source.publish([6, 7, 10])
        assert take(frames, 3) == [6, 7, 10]
        assert take(all_of_them, 3) == [6, 7, 10]
        assert frames.missed == all_of_them.missed == 2


def test_a_mirror_of_frames_by_real_clients(prefix: str) -> None:
    with pvapy_stream.publish(f"{prefix}image") as out:
        out.send(np.zeros((2, 3, 3), np.uint8), attributes={"scan": "a"})
        shown = pvget(f"{prefix}image")
        assert shown["uniqueId"] == 1
        assert [d["size"] for d in shown["dimension"]] == [3, 3, 2]
        assert {a["name"] for a in shown["attribute"]} == {"scan", "ColorMode"}


@pytest.mark.parametrize("modes", ["pva-pvas", "shm-shm"])
def test_an_object_that_opens_a_channel_is_given_out_if_asked_for(prefix: str, modes: str) -> None:
    out, frames = joined(f"{prefix}image", modes, opening=True)
    with out, frames:
        assert next(frames).id == 0
        send(out, 1)
        assert take(frames, 1) == [1]


@pytest.mark.parametrize("modes", ["pva-pvas", "shm-shm"])
def test_frames_may_be_kept_and_sent_on(prefix: str, modes: str) -> None:
    out, frames = joined(f"{prefix}image", modes)
    with out:
        with frames:
            out.send(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), attributes={"a": 1.5})
            send(out, *range(2, 100))
            kept = [next(frames) for _ in range(99)]
        assert kept[0].color_mode is ColorMode.RGB1
        again, further = joined(f"{prefix}again", modes)
        with again, further:
            assert again.send(kept[0]) == 1
            assert again.send(kept[5], id=3, attributes={"b": 2}) == 3
            first, other = next(further), next(further)
        assert np.array_equal(first.image.ravel(), np.arange(12))
        assert first.attributes["a"] == 1.5
        assert (other.id, other.attributes["b"]) == (3, 2)
        assert np.array_equal(other.image, image(6, 8, 8))
    assert [check(frame) for frame in kept[1:]] == list(range(2, 100))


@pytest.mark.parametrize("modes", ["pva-pvas", "shm-shm"])
def test_a_source_that_is_killed_and_comes_back(prefix: str, partner: Start, modes: str) -> None:
    """Its ids begin anew; nothing of what it shows is taken for a frame twice."""
    receives, sends = modes.split("-")
    with pvapy_stream.subscribe(f"{prefix}image", receives) as frames:
        for first in (1, 1, 1000):
            source = partner(SOURCE, f"{prefix}image", sends, str(first))
            ids = [frame.id for frame, _ in zip(frames, range(5), strict=False)]
            assert ids[0] >= first
            assert ids == list(range(ids[0], ids[0] + 5))
            source.kill()
            wait_until(lambda: not frames.connected)
            while frames.queued:
                next(frames)
        assert frames.dropped == 0


@pytest.mark.parametrize("modes", MODES)
def test_cancelling_ends_the_context(prefix: str, modes: str, left: Left) -> None:
    receives, sends = modes.split("-")

    async def follow(got: list[int]) -> None:
        async with pvapy_stream.subscribe(f"{prefix}image", receives) as frames:
            async for frame in frames:
                got.append(check(frame))  # noqa: PERF401 - seen from outside

    async def run() -> None:
        got: list[int] = []
        async with pvapy_stream.publish(f"{prefix}image", sends) as out:
            task = asyncio.create_task(follow(got))
            if sends not in ("pva", "rpc"):
                await eventually(lambda: out.subscribers)
            await asend(out, 1, 2, 3)
            await eventually(lambda: len(got) == 3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not [name for name in left.threads() if "subscription" in name]
        assert got == [1, 2, 3]

    asyncio.run(run())


def test_without_a_context_it_ends_with_the_loop_around_it(prefix: str, left: Left) -> None:
    def mine() -> list[str]:
        return [name for name in left.threads() if name.startswith("subscription")]

    async def first() -> None:
        async for frame in pvapy_stream.subscribe(f"{prefix}image"):
            assert check(frame) == 1
            break

    got: list[int] = []

    async def cancelled() -> None:
        async for frame in pvapy_stream.subscribe(f"{prefix}image"):
            got.append(check(frame))  # noqa: PERF401 - seen from outside

    async def run() -> None:
        async with pvapy_stream.publish(f"{prefix}image") as out:
            for follow in (first, cancelled):
                task = asyncio.create_task(follow())
                await eventually(lambda: out.subscribers)
                assert mine()
                await out.send(image(1, 8, 8), id=1)
                if follow is cancelled:
                    # It waits for the next one now.
                    await eventually(lambda: got)
                    task.cancel()
                await asyncio.wait([task])
                await eventually(lambda: not mine())
                del task

    asyncio.run(run())
    with pvapy_stream.publish(f"{prefix}image") as out:
        later = threading.Timer(0, lambda: (out.wait_for_subscribers(), send(out, 1)))
        later.start()
        for frame in pvapy_stream.subscribe(f"{prefix}image"):
            assert check(frame) == 1
            break
        later.join()
        wait_until(lambda: not mine())


def test_closing_ends_those_who_wait(prefix: str, left: Left) -> None:
    async def run() -> None:
        frames = await pvapy_stream.subscribe(f"{prefix}image").aopen()
        waits = asyncio.create_task(atake_all(frames))
        with pytest.raises(asyncio.TimeoutError):
            # No frame is lost by that.
            await asyncio.wait_for(frames.__anext__(), 0.05)
        await frames.aclose()
        await frames.aclose()
        assert await waits == []

    asyncio.run(run())
    frames = pvapy_stream.subscribe(f"{prefix}image").open()
    closes = threading.Timer(0.1, frames.close)
    closes.start()
    assert list(frames) == []
    closes.join()
    with pytest.raises(pvapy_stream.PvapyStreamError, match="is closed; make another"):
        frames.open()


async def atake_all(frames: Subscription) -> list[int]:
    return [check(frame) async for frame in frames]


def test_two_loops_share_a_channel_and_a_subscription(prefix: str, left: Left) -> None:
    """Each subscription gets all; of one subscription, each frame goes to one loop."""
    out, shared = joined(f"{prefix}image")
    got: dict[str, list[int]] = {name: [] for name in ("a", "b", "c", "d")}

    async def follow(name: str, frames: Subscription) -> None:
        async for frame in frames:
            got[name].append(check(frame))
            if frame.id == 200:
                await frames.aclose()

    async def own(name: str) -> None:
        async with pvapy_stream.subscribe(f"{prefix}image") as frames:
            await follow(name, frames)

    threads = [threading.Thread(target=asyncio.run, args=(own(name),)) for name in "ab"]
    threads += [threading.Thread(target=asyncio.run, args=(follow(name, shared),)) for name in "cd"]
    with out, shared:
        for thread in threads:
            thread.start()
        out.wait_for_subscribers(3)
        send(out, *range(1, 201))
        for thread in threads:
            thread.join(PATIENCE)
    assert got["a"] == got["b"] == list(range(1, 201))
    assert sorted(got["c"] + got["d"]) == list(range(1, 201))


def test_a_notebook_iterates_while_its_event_loop_runs(prefix: str) -> None:
    async def cell() -> list[int]:
        out, frames = joined(f"{prefix}image")
        with out, frames:
            send(out, 1, 2, 3)
            return take(frames, 3)

    assert asyncio.run(cell()) == [1, 2, 3]


def test_a_fast_stream_leaves_other_tasks_their_turns(prefix: str) -> None:
    async def run() -> None:
        async with (
            pvapy_stream.publish(f"{prefix}image", "memory") as out,
            pvapy_stream.subscribe(f"{prefix}image", "memory", queue_size=2000) as frames,
        ):
            await asend(out, *range(1, 1001))
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.create_task(other())
            # All is there already: nothing is waited for.
            assert await atake(frames, 1000) == list(range(1, 1001))
            task.cancel()
            assert turns > 1

    asyncio.run(run())


@pytest.mark.parametrize("modes", ["pva-pvas", "shm-shm"])
def test_a_program_may_end_without_closing_anything(prefix: str, modes: str) -> None:
    """What it sent arrives all the same."""
    receives, sends = modes.split("-")
    code = f"""
import numpy as np, pvapy_stream
out = pvapy_stream.publish("{prefix}image", "{sends}").open()
frames = pvapy_stream.subscribe("{prefix}other", "{receives}").open()
out.wait_for_subscribers()
for number in range(100):
    out.send(np.full((200, 200), number))
"""
    with pvapy_stream.subscribe(f"{prefix}image", receives) as frames:
        ends = subprocess.Popen([sys.executable, "-W", "error", "-c", code])
        assert [int(next(frames).image[0, 0]) for _ in range(100)] == list(range(100))
        assert ends.wait(PATIENCE) == 0


def test_the_package_is_imported_without_it() -> None:
    code = (
        "import sys, pvapy_stream;"
        "assert not {'pydantic', 'asyncio', 'pvapy_stream.streams'} & {*sys.modules};"
        "assert pvapy_stream.subscribe('x', 'shm').channel == 'x'"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=PATIENCE)
