"""Status channels of buffer and writer, as pvget, monitors, report and `top` show them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pvapy_stream.cli.top import stage_table
from pvapy_stream.errors import SettingsError
from pvapy_stream.monitor.stages import StageView, StageWatch, last_in_chain
from pvapy_stream.monitor.streams_monitor import StreamsMonitor, StreamsSettings
from pvapy_stream.settings import DashboardSettings, ReportSettings, WriterSettings
from pvapy_stream.web.html_report import ReportMonitor
from pvapy_stream.web.live import LiveBoard
from tests.daq.sending import Pulses, Rest
from tests.support import Commands, Program, get, pvget, wait_until


def rest_of(writer: Program) -> Rest:
    found = wait_until(lambda: re.search(r"http://[^\s/]+", writer.text), what=writer.text)
    return Rest(f"{found[0]}/")


def states(board: LiveBoard) -> set[str]:
    return {view.state for view in board.views.values()}


def test_buffer_and_writer_show_as_stages_do(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    source = Pulses()
    names = f"{prefix}buffer", f"{prefix}writer"
    report = ReportMonitor(
        ReportSettings.of(output=str(tmp_path / "r.html"), once=True, status_channels=names)
    )
    monitor = StreamsMonitor(StreamsSettings.of(status_channels=names))
    watch: StageWatch = monitor.watch
    board = LiveBoard(DashboardSettings.of(status_channels=names))
    try:
        buffer = commands("buffer", source.address, "-o", 0, "--no-rest", "-sc", names[0])
        ports = wait_until(lambda: re.findall(r"tcp://127\.0\.0\.1:\d+", buffer.text)[1:])
        ranges = ports[1].replace("tcp", "buffer")
        writer = commands(
            "writer", ranges, tmp_path / "run.h5", -1, 0, "-sc", names[1], "--linger", 20
        )
        rest = rest_of(writer)
        monitor.init_loop()

        def view(number: int) -> StageView:
            return watch.views()[number]

        assert (view(0).label, view(0).state) == ("buffer 1", "waiting")
        assert (view(1).label, view(1).state) == ("writer 1", "waiting")
        rest.put("start_pulse_id/1")
        wait_until(lambda: view(1).state == "armed")
        source.run([*range(1, 50), *range(60, 4000)])
        wait_until(lambda: view(1).state == "writing" and view(1).rates["processed"] > 0)
        # The arrow from the one to the other, from an address that is no channel.
        assert view(1).inputs == view(0).outputs[:1]
        assert [one.channel for one in last_in_chain(watch.views())] == [names[1]]
        assert view(0).inputs == (source.address,)
        wait_until(lambda: view(0).state == "receiving")
        assert [view(n).tone for n in (0, 1)] == ["good", "good"]
        wait_until(lambda: 0 <= view(1).latency["p90"] < 30)
        report.loop()
        page = (tmp_path / "r.html").read_text()
        assert re.search(r">writer 1<.*?>writing<", page, re.DOTALL)
        assert re.search(r">buffer 1<.*?>receiving<", page, re.DOTALL)
        board.start()
        wait_until(lambda: {"writing", "receiving"} <= states(board))
        # Addresses of streams are no channels with images.
        assert board.image_channels() == []
        board.stop()
        rest.put("stop_pulse_id/300")
        wait_until(lambda: view(1).state == "done")
        assert (view(1).ended, view(1).tone) == (True, "over")
        samples = {s.quantity: s.value for s in monitor.sample() if s.subject == names[1]}
        assert (samples["failed"], samples["missed"], samples["silence"]) == (0, 10, 0)
        status = pvget(names[1])
        assert (status["state"], status["lost"], status["nLost"]) == ("done", "50-59", 10)
        assert status["file"] == str(tmp_path / "run.h5")
        assert status["rows"] == status["processorStats"]["nProcessed"] == 290
        cells = [str(c) for column in stage_table(watch.views()).columns for c in column.cells]
        assert {"done", "receiving", names[0], names[1]} <= set(cells)
        buffer.signal()
        wait_until(lambda: view(0).state == "stopped")
    finally:
        source.close()
        monitor.end_loop()


def test_a_service_waits_between_acquisitions_and_counts_failures(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    source = Pulses().run()
    channel = f"{prefix}writer"
    try:
        program = commands("writer", source.address, tmp_path, -1, 0, "--service", "-sc", channel)
        rest = rest_of(program)
        rest.put("start_now", {"output_file": "a.h5"})
        wait_until(lambda: pvget(channel).get("rows", 0) > 10)
        rest.put("stop_now")
        wait_until(lambda: pvget(channel)["phase"] == "done")
        status = pvget(channel)
        assert (status["state"], status["acquisition"]) == ("waiting", 1)
        # A range that has passed fails; the service goes on.
        rest.put("start_pulse_id/1", {"output_file": "b.h5", "stop_pulse_id": 2})
        wait_until(lambda: pvget(channel)["phase"] == "error")
        status = pvget(channel)
        assert (status["state"], status["processorStats"]["nErrors"]) == ("waiting", 1)
        assert "pulses 1 to 2 are no longer available" in status["message"]
    finally:
        source.close()


def test_a_ledger_that_cannot_be_written_shows(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    program = commands(
        "writer", "tcp://127.0.0.1:9", tmp_path / "run.h5", -1, 0, "-sc", f"{prefix}writer",
        "--ledger", folder / "ledger.json",
    )  # fmt: skip
    wait_until(lambda: (folder / "ledger.json").exists())
    folder.rename(tmp_path / "elsewhere")
    wait_until(lambda: "cannot write ledger" in get(f"{prefix}writer", "message"))
    program.signal()
    assert program.wait() == 1, program.text


def test_the_status_must_not_have_the_name_of_the_stream() -> None:
    values = {"output_file": "a.h5", "user_id": -1, "rest_port": 0}
    with pytest.raises(SettingsError, match="--status-channel: the stream itself"):
        WriterSettings.of(stream="pva://a", status_channel="a", **values)
