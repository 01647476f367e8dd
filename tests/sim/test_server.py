"""The simulator over real PVA and CA, in this process and as a command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.cli.sim import main
from pvapy_stream.errors import TransportError
from pvapy_stream.frame import Frame
from pvapy_stream.pva.ntndarray import to_frame
from pvapy_stream.settings import SimulatorSettings
from pvapy_stream.sim.sim_server import SimServer
from tests.in_process import call
from tests.support import wait_until

STACK = np.arange(5 * 6 * 8, dtype=np.uint16).reshape(5, 6, 8)


class Client:
    """A monitor that keeps frames."""

    def __init__(self, channel: str) -> None:
        self.frames: list[Frame] = []
        self._channel = pva.Channel(channel)
        self._channel.subscribe("keep", self._keep)
        self._channel.startMonitor("record[queueSize=200]field()")

    def _keep(self, obj: Any) -> None:
        frame = to_frame(obj.copy())
        assert frame.image is not None
        assert frame.attributes is not None
        self.frames.append(frame)

    @property
    def ids(self) -> list[int]:
        return [frame.id for frame in list(self.frames)]

    def close(self) -> None:
        self._channel.stopMonitor()
        self._channel.unsubscribe("keep")


class Running:
    """A server in a thread, with one client."""

    def __init__(self, **settings: Any) -> None:
        values = {
            "n_x_pixels": 8,
            "n_y_pixels": 6,
            "frame_rate": 500,
            "wait_for_clients": 1,
            "wait_timeout": 10,
            "shutdown_delay": 0.3,
        }
        self.settings = SimulatorSettings.of(
            **{**values, "report_period": 0, "runtime": 20, **settings}
        )
        self.server = SimServer(self.settings)
        self.stop = threading.Event()
        self.code: int | None = None
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run)
        self.client = Client(self.settings.channel_name)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.code = self.server.run(self.stop)
        except Exception as error:
            self.error = error

    def finish(self) -> list[Frame]:
        """Wait for the end; the frames the client got."""
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.client.close()
        if self.error:
            raise self.error
        assert self.code == 0
        return self.client.frames


@pytest.fixture
def command(prefix: str) -> Iterator[Any]:
    """Starts the command; ends it when the test leaves it running."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        line = [
            sys.executable,
            "-W",
            "error",
            "-m",
            "pvapy_stream.cli.main",
            "sim",
            "-cn",
            f"{prefix}image",
        ]
        line += ["-shd", "0", "-nx", "8", "-ny", "6", *args]
        environment = {**os.environ, "COLUMNS": "200"}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, env=environment))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def test_all_frames_arrive_with_ids_from_one(prefix: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STACK)
    path = tmp_path / "ledger.json"
    before = time.time_ns()
    found = Running(
        channel_name=f"{prefix}a",
        input_file=str(tmp_path / "a.npy"),
        n_publish=400,
        ledger=str(path),
    ).finish()
    assert [frame.id for frame in found] == list(range(401))
    for frame in found:
        np.testing.assert_array_equal(frame.image, STACK[max(0, frame.id - 1) % 5])
    times = np.array([frame.time_ns for frame in found[1:]])
    assert before < times[0] < times[-1] < time.time_ns()
    assert np.all(np.diff(times) > 0)
    (ledger,) = read_ledgers(path)
    assert (ledger.stage, ledger.output_channel) == ("sim", f"{prefix}a")
    assert ledger.published.ranges().tolist() == [[1, 401]]


def test_stream_that_does_not_fit_in_the_cache_ends_with_its_last_frame(
    prefix: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", STACK)
    found = Running(
        channel_name=f"{prefix}a", input_file=str(tmp_path / "a.npy"), cache_size=2
    ).finish()
    assert [frame.id for frame in found] == list(range(6))
    np.testing.assert_array_equal([frame.image for frame in found[1:]], STACK)


def test_files_of_different_shapes_and_types_share_a_channel(prefix: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STACK)
    np.save(tmp_path / "b.npy", np.ones((2, 3, 4), np.float32))
    found = Running(channel_name=f"{prefix}a", input_directory=str(tmp_path), n_publish=14).finish()
    assert [(frame.image.shape, str(frame.dtype)) for frame in found[1:8]] == [
        ((6, 8), "uint16")
    ] * 5 + [((3, 4), "float32")] * 2
    assert [frame.id for frame in found] == list(range(15))


@pytest.mark.parametrize("mode", [2, 3, 4])
def test_colour(prefix: str, mode: int) -> None:
    found = Running(channel_name=f"{prefix}a", color_mode=mode, n_publish=3, n_frames=1).finish()
    assert [int(frame.color_mode) for frame in found] == [mode] * 4
    assert found[1].image.shape == (6, 8, 3)
    assert found[1].attributes["ColorMode"] == mode


@pytest.mark.parametrize("codec", ["lz4", "bslz4", "blosc"])
def test_compressed_chunks_over_pva(prefix: str, tmp_path: Path, codec: str) -> None:
    options = {
        "lz4": hdf5plugin.LZ4(),
        "bslz4": hdf5plugin.Bitshuffle(cname="lz4"),
        "blosc": hdf5plugin.Blosc(),
    }
    data = np.random.default_rng(2).integers(0, 5, (3, 60, 80), np.uint32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=data, chunks=(1, 60, 80), compression=options[codec])
    found = Running(
        channel_name=f"{prefix}a",
        input_file=str(tmp_path / "a.h5"),
        hdf_compression_mode=True,
        n_publish=3,
    ).finish()
    assert [frame.codec for frame in found] == [codec] * 4
    np.testing.assert_array_equal([frame.image for frame in found[1:]], data)


def test_pva_metadata_have_the_time_of_their_frame(prefix: str) -> None:
    channel = pva.Channel(f"{prefix}m")
    got: list[tuple[float, int]] = []

    def keep(obj: Any) -> None:
        seconds, nanoseconds = obj["timeStamp.secondsPastEpoch"], obj["timeStamp.nanoseconds"]
        got.append((obj["value"], seconds * 10**9 + nanoseconds))

    channel.monitor(keep, "field()")
    found = Running(
        channel_name=f"{prefix}a", metadata_pv=f"pva://{prefix}m", n_publish=50, frame_rate=100
    ).finish()
    times = [frame.time_ns for frame in found[1:]]
    # A server that is quicker than its client may skip values, but not the last.
    wait_until(lambda: got[-1][1] == times[-1])
    channel.stopMonitor()
    of_frames = [time_ns for _, time_ns in got if time_ns in times]
    assert of_frames == [time_ns for time_ns in times if time_ns in set(of_frames)]
    assert len(of_frames) >= len(got) - 1
    assert len({value for value, _ in got[-50:]}) == 50
    assert all(0 <= value <= 1 for value, _ in got)


def test_stop_ends_a_wait_for_clients_and_the_delays(prefix: str) -> None:
    for values in (
        {"wait_for_clients": 3},
        {"wait_for_stages": f"{prefix}nobody"},
        {"start_delay": 600},
        {"n_publish": 1, "shutdown_delay": 600},
    ):
        running = Running(channel_name=f"{prefix}a", **values)
        wait_until(lambda running=running: running.client.frames)
        time.sleep(0.1)
        start = time.monotonic()
        running.stop.set()
        running.finish()
        assert time.monotonic() - start < 60


def test_too_few_clients(prefix: str) -> None:
    running = Running(channel_name=f"{prefix}a", wait_for_clients=3, wait_timeout=1)
    with pytest.raises(TransportError, match="1 of 3 clients"):
        running.finish()
    assert running.server.totals.frames == 0


def test_notify_channel_that_is_not_there(
    prefix: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvapy_stream.sim.sim_server._NOTIFY_TIMEOUT", 0.5)
    running = Running(channel_name=f"{prefix}a", notify_pv=f"{prefix}nobody", n_publish=2)
    assert len(running.finish()) == 3
    assert running.server.notify_failures == 1
    assert f"notify channel {prefix}nobody" in caplog.text


def test_frame_that_cannot_be_published(
    prefix: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pvapy_stream.transport.own_hosted import OwnHostedPublisher

    publish = OwnHostedPublisher.publish

    def fail_twice(self: OwnHostedPublisher, obj: Any) -> None:
        if obj["uniqueId"] in (2, 3):
            raise TransportError("no")
        publish(self, obj)

    monkeypatch.setattr(OwnHostedPublisher, "publish", fail_twice)
    running = Running(channel_name=f"{prefix}a", n_publish=4)
    running.thread.join(20)
    running.client.close()
    assert running.code == 1
    assert running.client.ids == [0, 1, 4]
    assert running.server.ledger.failed["publish"].ranges().tolist() == [[2, 4]]
    assert caplog.text.count("frame 2") == 1
    assert "frame 3" not in caplog.text


# The command


def test_command_stops_on_sigterm_and_prints_three_lines(command: Any, prefix: str) -> None:
    process = command("-fps", "200", "-std", "0", "-rp", "0", "-rt", "60", "-dc")
    client = Client(f"{prefix}image")
    # For two seconds: of a few frames, one that was late at first changes the rate.
    wait_until(lambda: client.ids and client.ids[-1] > 400)
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    out, err = process.communicate(timeout=10)
    assert time.monotonic() - start < 60
    client.close()
    assert (process.returncode, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"Server runtime: [\d.]+ seconds", lines[0])
    assert re.fullmatch(r"Published frames: \d+ @ (19\d|20\d)[\d.]+ fps", lines[1])
    assert re.fullmatch(r"Data rate: [\d.]+MBps", lines[2])
    assert client.ids[-1] <= int(lines[1].split()[2])


def test_ca_metadata_change_with_the_frames(command: Any, prefix: str) -> None:
    command("-mpv", f"{prefix}m1,ca://{prefix}m2", "-fps", "100", "-std", "0")
    for name in ("m1", "m2"):
        channel = pva.Channel(f"{prefix}{name}", pva.CA)
        wait_until(
            lambda channel=channel: len({_value(channel) for _ in range(20)} - {None, 0.0}) > 1
        )


def test_notify_channel_is_put_to_at_start(command: Any, prefix: str) -> None:
    # A CA channel of another process; after its first frame it is left alone for a long time.
    told = command("-mpv", f"{prefix}told", "-fps", "0.01", "-std", "0")
    channel = pva.Channel(f"{prefix}told", pva.CA)
    wait_until(lambda: _value(channel))
    running = Running(
        channel_name=f"{prefix}a", notify_pv=f"{prefix}told", notify_pv_value="17.5", n_publish=1
    )
    running.finish()
    assert running.server.notify_failures == 0
    assert _value(channel) == 17.5
    told.send_signal(signal.SIGINT)
    assert told.wait(10) == 0


def _value(channel: pva.Channel) -> float | None:
    channel.setTimeout(1)
    try:
        return channel.get()["value"]
    except pva.PvaException:
        return None


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["-if", "nowhere.npy"], 1, "error: nowhere.npy does not exist"),
        (["-mn", "5", "-mx", "4"], 2, "error: --minimum"),
        (["--wait-for-stages", "nobody", "--wait-timeout", "0.2"], 1, "nobody: no stage with"),
        (["-ll", "debug", "-lf", "/nowhere/log"], 2, "cannot write /nowhere/log"),
        (
            ["--ledger", "/nowhere/l.json", "-std", "0", "--n-publish", "1"],
            2,
            "folder /nowhere does not exist",
        ),
    ],
)
def test_errors_of_the_command(args: list[str], code: int, message: str, prefix: str) -> None:
    done = call("sim", "-cn", f"{prefix}image", "-shd", 0, "-nx", 8, "-ny", 6, *args)
    assert done.code == code
    assert message in done.text
    assert "Traceback" not in done.text


def test_an_error_of_the_program(command: Any) -> None:
    process = command("--wait-for-clients", "1", "--wait-timeout", "0.2")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "0 of 1 clients" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("args", "option"),
    [
        (["-nx", "0"], "--n-x-pixels"),
        (["--colour", "red"], "--colour"),
        (["-cm", "1"], "--color-mode"),
        (["-dt", "text"], "--datatype"),
    ],
)
def test_wrong_options(args: list[str], option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert ended.value.code == 2
    assert option in capsys.readouterr().err
