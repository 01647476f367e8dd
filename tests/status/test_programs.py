"""Status channels of mirror and simulator, as pvget, monitors, dashboard and top show them."""

from __future__ import annotations

import pytest

from pvapy_stream.errors import SettingsError
from pvapy_stream.monitor.stages import StageView, StageWatch, last_in_chain
from pvapy_stream.monitor.streams_monitor import StreamsMonitor, StreamsSettings
from pvapy_stream.settings import DashboardSettings, MirrorSettings, SimulatorSettings
from pvapy_stream.web.live import LiveBoard
from tests.support import Commands, Program, Source, pvget, wait_until


def shown_by_top(commands: Commands, channels: list[str], *texts: str) -> Program:
    """The `top` command, which prints a table each refresh; waits until all texts are in one."""
    top = commands(
        "top", *(word for name in channels for word in ("-sc", name)), "--refresh", "0.5"
    )
    wait_until(lambda: all(text in top.text for text in texts), what=top.text)
    return top


@pytest.fixture
def names(prefix: str) -> dict[str, str]:
    return {name: f"{prefix}{name}" for name in ("image", "copy", "other", "sim", "mirror:*")}


def test_a_mirror_and_its_simulator(names: dict[str, str], commands: Commands) -> None:
    channels = [names["sim"], *(names["mirror:*"].replace("*", k) for k in "12")]
    # `other` has no source.
    mirror = commands(
        "mirror", "-cm",
        f"({names['copy']},{names['image']},pva,100),({names['other']},{names['other']}:none)",
        "-sc", names["mirror:*"],
    )  # fmt: skip
    wait_until(lambda: pvget(channels[1]).get("state") == "waiting")
    sim = commands(
        "sim", "-cn", names["image"], "-nx", "8", "-ny", "8", "-nf", "10", "-fps", "100", "-rt", 0,
        "-rp", "0", "-dc", "-sc", names["sim"], "--wait-for-clients", "1", "-shd", "1",
    )  # fmt: skip
    wait_until(lambda: pvget(channels[1])["processorStats"]["nProcessed"] > 20)
    copy = pvget(channels[1])
    assert (copy["mirrorId"], copy["state"]) == (1, "running")
    assert (copy["inputChannel"], copy["outputChannel"]) == (names["image"], names["copy"])
    assert copy["receiverStats"]["nReceived"] >= copy["publisherStats"]["nPublished"] > 20
    assert copy["processorStats"]["firstObjectId"] == 1
    assert copy["objectId"] == copy["processorStats"]["lastObjectId"] > 20
    assert copy["processorStats"]["nMissed"] == copy["publisherStats"]["nErrors"] == 0
    other = pvget(channels[2])
    assert (other["mirrorId"], other["state"]) == (2, "waiting")
    assert other["receiverStats"]["nReceived"] == 0
    # It says how far it is once a second.
    wait_until(lambda: pvget(channels[0])["publisherStats"]["nPublished"] > 20)
    source = pvget(channels[0])
    assert (source["simulatorId"], source["state"]) == (1, "running")
    assert source["outputChannel"] == names["image"]
    published = source["publisherStats"]["nPublished"]
    assert source["frames"] == published == source["processorStats"]["nProcessed"] > 20
    assert source["objectId"] == published
    wait_until(lambda: pvget(channels[0])["publisherStats"]["publishedRate"] > 0)

    board = LiveBoard(DashboardSettings.of(status_channels=channels))
    board.start()
    try:
        wait_until(lambda: [v.state for v in board.views.values()].count("running") == 2)
        views = list(board.views.values())
        assert [view.label for view in views] == ["simulator 1", "mirror 1", "mirror 2"]
        assert [one.channel for one in last_in_chain(views)] == channels[1:]
        assert names["copy"] in board.image_channels()
    finally:
        board.stop()
    shown_by_top(commands, channels, *channels, "running", "waiting").signal()

    monitor = StreamsMonitor(StreamsSettings.of(status_channels=channels))
    watch: StageWatch = monitor.watch
    monitor.init_loop()
    try:

        def view(number: int) -> StageView:
            return watch.views()[number]

        wait_until(lambda: view(1).rates["processed"] > 0)
        sim.signal()
        wait_until(lambda: view(0).state == "stopped")
        wait_until(lambda: view(1).state == "disconnected")
        mirror.signal()
        # The second never had a source.
        wait_until(lambda: [view(1).state, view(2).state] == ["stopped", "failed"])
        samples = {s.quantity: s.value for s in monitor.sample() if s.subject == channels[2]}
        assert samples["failed"] == 1
    finally:
        monitor.end_loop()
    assert (sim.wait(), mirror.wait()) == (0, 1)


def test_clients_of_a_status_are_no_consumers(
    prefix: str, source: Source, commands: Commands
) -> None:
    """Who looks at the status of a mirror that waits for consumers is none of them."""
    channel = f"{prefix}status"
    mirror = commands(
        "mirror", "-cm", f"({prefix}m,{source.channel},pva,100)", "-sc", channel,
        "--wait-for-consumers", "1",
    )  # fmt: skip
    watch = StreamsMonitor(StreamsSettings.of(status_channels=channel)).watch
    watch.start()
    try:
        wait_until(lambda: watch.views()[0].connected)
        source.publish(range(1, 11))
        wait_until(lambda: watch.views()[0].counts["rejected"] == 10)
        assert watch.views()[0].counts["processed"] == 0
        assert "before its consumers" not in mirror.text
    finally:
        watch.stop()


def test_without_the_option_there_is_no_channel_and_its_name_can_be_derived() -> None:
    assert MirrorSettings.of(channel_map="(a,b)").status_names("mirror") == []
    assert SimulatorSettings.of().status_names("simulator") == []
    derived = MirrorSettings.of(channel_map="(a,b)", status_channel="_")
    assert derived.status_names("mirror", 2) == [
        "pvapy:mirror:1:status", "pvapy:mirror:2:status",
    ]  # fmt: skip
    one = MirrorSettings.of(channel_map="(a,b)", status_channel="x")
    assert one.status_names("mirror") == ["x"]
    with pytest.raises(SettingsError, match=r"write it like x:\*"):
        one.status_names("mirror", 2)
    with pytest.raises(SettingsError, match="are both a"):
        SimulatorSettings.of(channel_name="a", status_channel="a")
