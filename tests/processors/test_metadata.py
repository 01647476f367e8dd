from __future__ import annotations

import json
import logging
import signal
from typing import Any

import numpy as np
import pvaccess as pva
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvapy_stream.errors import SettingsError
from pvapy_stream.hpc.metadata_channels import MetadataReceiver
from pvapy_stream.processors import MetadataAssociator
from pvapy_stream.processors.association import Associator, Match, Rule, TimeSeries
from pvapy_stream.settings import MetadataChannel
from pvapy_stream.testing import ProcessorRun, image_object, metadata_object, run_processor
from tests.support import Commands, get, status, wait_until

TIMES = st.lists(st.integers(0, 1000), min_size=2, max_size=30, unique=True)
NOW = {"holdTime": 0}


def series(rule: Rule, samples: dict[int, Any]) -> TimeSeries:
    made = TimeSeries(rule)
    for time_ns, value in samples.items():
        made.add(time_ns, value)
    return made


# -- the pure core -------------------------------------------------------------------------------


@given(TIMES, st.integers(-50, 1100), st.none() | st.integers(0, 200), st.integers(-30, 30))
def test_nearest_and_previous_are_what_a_search_of_all_finds(
    times: list[int], at: int, tolerance: int | None, offset: int
) -> None:
    samples = {t: t * 10 for t in times}
    shifted = at - offset
    nearest = min(times, key=lambda t: (abs(t - shifted), t))
    earlier = [t for t in times if t <= shifted]
    for mode, best in (("nearest", nearest), ("previous", max(earlier, default=None))):
        found = series(Rule(mode, tolerance, offset), samples).at(at)
        if best is None or (tolerance is not None and abs(best - shifted) > tolerance):
            assert found is None
        else:
            assert found == Match(best * 10, shifted - best)


@given(TIMES, st.integers(-50, 1100))
def test_linear_is_exact_on_a_line_and_nearest_beyond_it(times: list[int], at: int) -> None:
    found = series(Rule("linear"), {t: 3 * t + 1 for t in times}).at(at)
    assert found is not None
    inside = min(max(at, min(times)), max(times))
    assert found.value == pytest.approx(3 * inside + 1, abs=1e-9)
    assert found.residual_ns == at - min(times, key=lambda t: (abs(t - at), t))


@given(TIMES, st.integers(0, 1000))
def test_decided_means_that_later_values_change_nothing(times: list[int], at: int) -> None:
    order = sorted(times)
    for mode in ("nearest", "previous", "linear"):
        whole = series(Rule(mode), {t: t for t in order})
        for end in range(2, len(order)):
            part = series(Rule(mode), {t: t for t in order[:end]})
            if part.decided(at):
                assert part.at(at) == whole.at(at)


@given(TIMES)
def test_only_a_bounded_number_is_kept_the_newest(times: list[int]) -> None:
    made = TimeSeries(Rule("previous"), max_samples=8)
    for t in sorted(times):
        made.add(t, t)
        assert 0 < len(made) <= 8
        assert made.newest == t
        assert made.at(t + 1) == Match(t, 1)


def test_arrays_are_interpolated_where_shapes_agree() -> None:
    made = series(
        Rule("linear"), {0: np.array([0, 10], np.uint8), 10: [10, 0], 20: [1], 30: "text", 40: True}
    )
    found = made.at(4)
    assert found is not None
    assert found.value.tolist() == [4.0, 6.0]
    for at, value in ((19, [10, 0]), (28, [1]), (39, "text")):
        found = made.at(at)
        assert found is not None
        assert found.value == value


def test_interpolation_needs_both_values_within_tolerance() -> None:
    made = series(Rule("linear", tolerance_ns=10), {0: 0.0, 100: 100.0, 105: 105.0})
    assert made.at(103) == Match(103.0, -2)
    assert made.at(95) == Match(100.0, -5)
    assert made.at(50) is None


def test_one_value_serves_always_until_there_is_a_second() -> None:
    made = series(Rule("nearest", tolerance_ns=1), {5: "constant"})
    assert made.at(10**15) == Match("constant", 10**15 - 5)
    made.add(5, "again")  # a monitor that connects again shows the same value
    assert made.at(-7) == Match("again", -12)
    made.add(10**15, "changed")
    assert made.at(-7) is None
    always = series(Rule("nearest", tolerance_ns=1, constant=True), {1: 1, 2: 2})
    assert always.at(10**9) == Match(2, 10**9 - 2)


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=20),
    st.lists(st.integers(0, 400), max_size=20),
    st.integers(0, 30),
    st.integers(0, 5),
)
def test_items_come_out_once_in_order_and_wait_no_longer_than_allowed(
    items: list[int], values: list[int], hold: int, most: int
) -> None:
    associator: Associator[int] = Associator({"x": Rule()}, hold_time=hold, hold_items=most)
    came: list[int] = []
    put_at: dict[int, int] = {}
    events = sorted([(t, 1, n) for n, t in enumerate(items)] + [(t, 0, t) for t in set(values)])
    expected = [n for t, kind, n in events if kind]
    for now, kind, value in events:
        if kind:
            associator.put(value, now, now)
            put_at[value] = now
        else:
            associator.add("x", value, value)
        for item, _ in associator.ready(now):
            came.append(item)
        assert len(associator) <= most
        assert all(now < put_at[n] + hold for n in expected[len(came) : len(put_at)])
    came += [item for item, _ in associator.ready(10**6, flush=True)]
    assert came == expected


def test_a_frame_waits_for_a_value_under_way_but_not_twice_for_a_silent_channel() -> None:
    associator: Associator[str] = Associator({"fast": Rule(), "never": Rule()}, hold_time=1.0)
    associator.put("a", 100, now=0.0)
    associator.add("fast", 90, 1)
    associator.add("fast", 101, 2)
    assert list(associator.ready(0.9)) == []
    assert list(associator.ready(1.0)) == [("a", {"fast": Match(2, -1), "never": None})]
    associator.put("b", 100, now=2.0)
    assert len(list(associator.ready(2.0))) == 1
    # Once it speaks, frames wait for it again.
    associator.add("never", 50, 1)
    associator.put("c", 100, now=3.0)
    assert list(associator.ready(3.0)) == []
    assert associator.coverage["never"].without == 2
    assert associator.coverage["fast"].share == 1.0


# -- the processor -------------------------------------------------------------------------------


def run(metadata: dict[str, list[Any]], frames: list[Any], **args: Any) -> Any:
    run = ProcessorRun(MetadataAssociator, args={**NOW, **args}, metadata=metadata)
    for frame in frames:
        run.feed(frame)
    return run.finish()


def images(*times: float) -> list[Any]:
    return [image_object(None, k + 1, time=t, gain=1) for k, t in enumerate(times)]


def ramp(*times: float) -> list[Any]:
    return [metadata_object(10 * t, t) for t in times]


def test_values_and_residuals_become_attributes() -> None:
    result = run({"m:x": ramp(1, 2, 3)}, images(1.25, 1.75, 3))
    assert result.errors == {}
    assert [f.attributes["m:x"] for f in result.frames] == [10, 20, 30]
    assert [f.attributes["m:x:residual_us"] for f in result.frames] == [250_000, -250_000, 0]
    assert [f.attributes["gain"] for f in result.frames] == [1, 1, 1]
    assert [f.id for f in result.frames] == [1, 2, 3]
    assert result.stats["nAssociated"] == 3
    assert result.stats["m_x_nAssociated"] == 3
    assert result.stats["m_x_coverage"] == 1.0
    assert result.stats["nHeld"] == 0


def test_modes_tolerances_and_offsets_by_channel() -> None:
    queues = {name: ramp(1, 2, 3) for name in ("near", "before", "line", "off", "strict")}
    channels = {
        "before": {"mode": "previous"},
        "line": {"mode": "linear", "attribute": "position"},
        "off": {"offset": 1.0},
        "strict": {"tolerance": 0.1},
    }
    result = run(queues, images(1.75), channels=channels, residuals=False)
    attributes = dict(result.frames[0].attributes)
    del attributes["ColorMode"], attributes["gain"]
    assert attributes == {"near": 20, "before": 10, "position": 17.5, "off": 10}
    assert result.stats["nIncomplete"] == 1
    assert (result.stats["strict_nWithout"], result.stats["strict_coverage"]) == (1, 0.0)


def test_any_kind_of_value() -> None:
    def obj(kind: Any, value: Any) -> Any:
        return pva.PvObject(
            {"value": kind, "timeStamp": pva.PvTimeStamp()},
            {"value": value, "timeStamp": pva.PvTimeStamp(1.0)},
        )

    enum = {"index": pva.INT, "choices": [pva.STRING]}
    metadata = {
        "text": [obj(pva.STRING, "open")],
        "flag": [obj(pva.BOOLEAN, True)],
        "numbers": [obj([pva.DOUBLE], [1.5, 2.5])],
        "bytes": [obj([pva.UBYTE], [1, 2])],
        "words": [obj([pva.STRING], ["a", "b"])],
        "state": [obj(enum, {"index": 1, "choices": ["Closed", "Open"]})],
        "large": [obj(pva.LONG, 2**40)],
    }
    (frame,) = run(metadata, images(1.5), mode="linear").frames
    found = frame.attributes
    assert found["text"] == "open"
    assert found["flag"] is True
    assert list(found["numbers"]) == [1.5, 2.5]
    assert list(found["bytes"]) == [1, 2]
    assert list(found["words"]) == ["a", "b"]
    assert found["state"] == "Open"
    assert found["large"] == 2**40


def test_a_constant_is_used_for_all_and_changes_of_type_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    changing = [metadata_object(1, 1), metadata_object("two", 2), metadata_object(3.0, 3)]
    result = run(
        {"x": changing, "k": [metadata_object("Cu", 0.5)]}, images(1, 2, 3), mode="previous"
    )
    assert [f.attributes["x"] for f in result.frames] == [1, "two", 3.0]
    assert [f.attributes["k"] for f in result.frames] == ["Cu"] * 3
    assert result.stats["nTypeChanges"] == 2
    assert sum("changes its type" in m for m in caplog.messages) == 1


def test_a_channel_without_values_and_one_whose_clock_is_wrong_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metadata = {"none": [], "wrong": ramp(3600, 3601)}
    frames = images(1, 2, 3)
    with caplog.at_level(logging.WARNING):
        result = run(metadata, frames, tolerance=0.5)
    assert [f.id for f in result.frames] == [1, 2, 3]
    assert not {"none", "wrong"} & set(result.frames[0].attributes)
    assert (result.stats["none_nWithout"], result.stats["wrong_nWithout"]) == (3, 3)
    assert (result.stats["none_nNoValue"], result.stats["wrong_nTooNew"]) == (3, 3)
    assert result.processor.metadata_coverage() == {"none": (0, 3), "wrong": (0, 3)}
    assert sum("-3599.000000 s away" in m for m in caplog.messages) == 1
    # With its offset it fits.
    mended = run(metadata, frames, tolerance=0.5, channels={"wrong": {"offset": -3599}})
    assert [f.attributes["wrong"] for f in mended.frames[:2]] == [36000, 36010]


def test_why_frames_have_no_value() -> None:
    run = ProcessorRun(
        MetadataAssociator, args={**NOW, "tolerance": 0.1}, metadata={"x": ramp(2, 3)}
    )
    gone: list[str] = []
    run.processor.metadata_connected = lambda name: name not in gone
    run.processor.start()
    first, second, third, fourth = images(1.5, 2, 3.5, 4.5)
    for frame in (first, second, third):
        run.feed(frame)
    gone.append("x")
    run.feed(fourth)
    stats = run.finish().stats
    assert stats["x_nAssociated"] == 1
    assert stats["x_nWithout"] == 3
    counts = [stats[f"x_n{why}"] for why in ("NoValue", "TooOld", "TooNew", "Disconnected")]
    assert counts == [0, 1, 1, 1]


def test_objects_without_a_value_and_frames_without_a_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = image_object()
    for name in ("timeStamp", "dataTimeStamp"):
        image.setLong(f"{name}.secondsPastEpoch", 0)
        image.setInt(f"{name}.nanoseconds", 0)
    result = run({"x": [pva.PvObject({"other": pva.INT}), *ramp(1, 2)]}, [image])
    assert result.stats["nUnusable"] == 1
    assert result.stats["nWithoutTime"] == 1
    assert result.frames[0].attributes["x"] == 20
    assert sum("no field 'value'" in m for m in caplog.messages) == 1


def test_frames_wait_for_values_in_order_and_are_published_at_stop() -> None:
    run = ProcessorRun(MetadataAssociator, args={"holdTime": 30}, metadata={"x": ramp(1)})
    queue = run.processor.metadataQueueMap["x"]
    first, second, third = images(1.5, 2.5, 3.5)
    run.feed(first)
    run.feed(second)
    # The binding uses its object again for the next update.
    second.setInt("uniqueId", 99)
    assert run.publisher.counts().published == 0
    assert run.processor.getStats()["nHeld"] == 2
    queue.put(metadata_object(20.0, 2))
    wait_until(lambda: run.publisher.counts().published == 1, what="the timer's release")
    run.feed(third)
    result = run.finish()
    assert [f.id for f in result.frames] == [1, 2, 3]
    assert [f.attributes["x"] for f in result.frames] == [10, 20, 20]


def test_the_time_and_the_number_that_wait_are_bounded() -> None:
    run = ProcessorRun(
        MetadataAssociator, args={"holdTime": 0.2, "holdFrames": 3}, metadata={"x": ramp(1, 2)}
    )
    for frame in images(10, 11, 12, 13, 14):
        run.feed(frame)
    assert run.publisher.counts().published == 2
    wait_until(lambda: run.publisher.counts().published == 5, what="the end of the time to wait")
    assert [f.id for f in run.finish().frames] == [1, 2, 3, 4, 5]


def test_it_is_changed_while_it_runs() -> None:
    run = ProcessorRun(MetadataAssociator, args=NOW, metadata={"x": ramp(1, 2)})
    (early, late) = images(1.6, 1.6)
    run.feed(early)
    run.processor.configure({"mode": "linear", "holdTime": 0})
    run.feed(late)
    with pytest.raises(SettingsError, match="y is not among the metadata channels x"):
        run.processor.configure({"channels": {"y": {}}})
    assert run.processor.options.mode == "linear"
    run.processor.resetStats()
    result = run.finish()
    assert [f.attributes["x"] for f in result.frames] == [20, 16]
    assert result.stats["x_nAssociated"] == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"mode": "cubic"}, ["mode", "'nearest', 'previous' or 'linear'"]),
        ({"tolerance": -1}, ["tolerance", "greater than or equal to 0"]),
        ({"offset": float("nan")}, ["finite"]),
        ({"holdtime": 1}, ["unknown key 'holdtime'", "holdTime"]),
        ({"channels": {"x": {"tolerence": 1}}}, ["channels", "tolerence"]),
    ],
)
def test_wrong_options_are_named(args: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingsError) as raised:
        MetadataAssociator(args)
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_metadata_channels_must_be_there() -> None:
    with pytest.raises(SettingsError, match="-mc"):
        run_processor(MetadataAssociator, [])


def test_names_of_statistics_are_names_of_fields_and_differ() -> None:
    metadata: dict[str, list[Any]] = {"a:b": [], "a.b": [], "7$": []}
    result = run(metadata, [])
    assert {"a_b_coverage", "a_b__coverage", "c7__coverage"} <= set(result.stats)
    assert result.errors == {}


def test_values_of_real_pva_channels(prefix: str) -> None:
    name = f"{prefix}m"
    server = pva.PvaServer()
    server.addRecord(name, metadata_object(10.0, 1), None)
    server.start()
    run = ProcessorRun(MetadataAssociator, args={"mode": "linear"}, metadata={name: []})
    receiver = MetadataReceiver(MetadataChannel(name, "pva"), 0, -1)
    receiver.queue = queue = run.processor.metadataQueueMap[name]
    receiver.start()
    try:
        wait_until(lambda: len(queue) == 1, what="the first value")
        run.feed(image_object(None, 1, time=1.25))
        server.update(name, metadata_object(20.0, 2))
        wait_until(lambda: run.publisher.counts().published == 1, what="the frame")
    finally:
        receiver.stop()
        server.stop()
    (frame,) = run.finish().frames
    assert frame.attributes[name] == 12.5


def test_a_stream_with_real_ca_and_pva_channels(prefix: str, commands: Commands) -> None:
    """The simulator's PVA values have exactly the frames' times, its CA values the IOC's."""
    pva_name, ca_name = f"{prefix}p", f"{prefix}c"
    channels = f"ca://{ca_name},pva://{pva_name}"
    commands(
        "sim", "-cn", f"{prefix}image", "-nx", "6", "-ny", "4", "-nf", "5", "-fps", "50",
        "-mpv", channels, "--n-publish", "100", "--wait-for-stages", f"{prefix}s", "-shd", "20",
    )  # fmt: skip
    args = json.dumps({"tolerance": 0.1, "holdTime": 1})
    consumer = commands(
        "consumer", "-ic", f"{prefix}image", "-oc", f"{prefix}out", "-sc", f"{prefix}s",
        "-mc", channels, "-pc", "pvapy_stream.processors.MetadataAssociator", "-pa", args,
        "-sqs", "500", "-rqs", "500",
    )  # fmt: skip

    def done() -> dict[str, Any] | None:
        found = status(f"{prefix}s")
        last, user = found["processorStats"]["lastObjectId"], found["userStats"]
        return user if last == 100 and not user["nHeld"] else None

    found = wait_until(done, what=lambda: f"all frames; {status(f'{prefix}s')}")
    assert found["nAssociated"] + found["nIncomplete"] > 66
    assert found[f"{prefix[:-1]}_p_coverage"] > 0.9
    assert found[f"{prefix[:-1]}_c_coverage"] > 0.9
    assert abs(found[f"{prefix[:-1]}_c_residual_us"]) < 100_000
    last = {a["name"]: a["value"][0]["value"] for a in get(f"{prefix}out", "attribute")}
    assert last[f"{pva_name}:residual_us"] == 0
    assert last[pva_name] == get(pva_name, "value")
    assert isinstance(last[ca_name], float)
    consumer.signal(signal.SIGINT)
    assert consumer.wait() == 0, consumer.text
