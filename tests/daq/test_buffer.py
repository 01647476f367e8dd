"""The buffer as a program, and as a part: outputs, status, trouble, accounts."""

from __future__ import annotations

import json
import random
import re
import resource
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.bsread.analyzer import StreamAnalyzer
from pvapy_stream.bsread.codec import ChannelHeader, Decoder, Encoder
from pvapy_stream.bsread.sockets import BsreadInput, BsreadSender
from pvapy_stream.bsread.stored import Packer
from pvapy_stream.cli import buffer as buffer_command
from pvapy_stream.daq.cursor import Gone
from pvapy_stream.daq.ranges import read_range
from pvapy_stream.errors import SettingsError, TransportError
from pvapy_stream.frame import Frame
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.settings import BufferSettings, ShmSettings
from pvapy_stream.transport.shm import ShmPublisher
from tests.bsread.test_codec import mutate
from tests.daq.support import CHANNELS, Messages, running, time_of
from tests.in_process import call
from tests.ports import free_port
from tests.support import Commands, Program, Source, image, pvget, wait_until


class BufferProgram:
    """The command, and what it says where it listens."""

    def __init__(self, commands: Commands, stream: str, *options: object) -> None:
        self.program: Program = commands(
            "buffer", stream, "--output_port", 0, "--log_level", "INFO", *options
        )
        line = wait_until(lambda: self.program.out and self.program.out[0])
        self.output, self.ranges = re.findall(r"tcp://127\.0\.0\.1:\d+", line)[-2:]
        self.rest = re.findall(r"(http://.*)/status", line)[0]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.rest + path, timeout=5) as answer:
            return answer.read().decode()

    def status(self) -> dict[str, Any]:
        return json.loads(self.get("/status"))


@pytest.fixture(scope="module")
def idle() -> Iterator[BufferProgram]:
    """A buffer whose source is not there."""
    commands = Commands()
    yield BufferProgram(commands, "tcp://127.0.0.1:9")
    commands.close()


@pytest.fixture
def source() -> Iterator[BsreadSender]:
    made = BsreadSender("tcp://127.0.0.1:0", hwm=10_000, timeout=15)
    yield made
    made.stop()


def test_output_is_the_input_and_begins_with_what_is_kept() -> None:
    with running() as buffer:
        buffer.fill(range(1, 51))
        pull = BsreadInput(buffer.buffer.output.address)
        got = []
        buffer.send(range(51, 61))
        while len(got) < 60:
            assert pull.socket.poll(5000)
            got.append(pull.receive())
        assert got == [buffer.messages.parts(pulse) for pulse in range(1, 61)]
        pull.close()


def test_output_nobody_pulls_loses_by_name() -> None:
    with running(buffer_length=10) as buffer:
        buffer.fill(range(1, 101))
        buffer.wait_for(lambda: buffer.buffer.status().output_lost == 90)
        assert buffer.buffer.status().output_pending == 10


def test_program_from_start_to_end(commands: Commands, source: BsreadSender) -> None:
    buffer, messages = BufferProgram(commands, source.address, "--analyzer"), Messages()
    assert buffer.status()["status"] == "waiting"
    for pulse in range(1, 51):
        source.publish(messages.parts(pulse))
    source.publish([b'{"htype":"bsr_stop-1.0"}'])
    source.publish([b"?"])
    for pulse in range(53, 61):
        source.publish(messages.parts(pulse))
    wait_until(lambda: buffer.status()["received"] == 58)
    status = buffer.status()
    assert (status["state"], status["status"]) == ("ok", "receiving")
    assert (status["oldest"], status["newest"], status["messages"]) == (1, 60, 58)
    assert (status["malformed"], status["commands"], status["channels"]) == (1, 1, 3)
    assert "pvapy_buffer_received_total 58.0" in buffer.get("/metrics")
    report = json.loads(buffer.get("/analyzer"))["anomalies"]
    assert report["missing pulses"] == {"count": 2, "latest": ["2 between 50 and 53"]}
    with read_range(buffer.ranges, 49, 53) as reader:
        assert [message.pulse_id for message in reader] == [49, 50, 53]
    wait_until(lambda: buffer.status()["status"] == "silent")
    buffer.program.signal()
    assert buffer.program.wait() == 0
    assert "received 58, malformed 1" in buffer.program.text
    assert "missing pulses: 2; the last: 2 between 50 and 53" in buffer.program.text


def test_a_thousand_mutated_messages_do_not_stop_it() -> None:
    rng, messages = random.Random(5), Messages()
    good = messages.parts(7)
    with running(buffer_length=5000) as buffer:
        intake, sent = buffer.buffer.intake, 0
        for number in range(1000):
            trouble = [mutate(rng, good) or [b""]]
            if number % 10 == 0:
                trouble += [[b'{"htype":"bsr_stop-1.0"}'], Encoder([]).encode(8, 8, {})]
            for parts in trouble:
                buffer.source.publish(parts)
                sent += 1
        buffer.wait_for(lambda: intake.received + intake.malformed + intake.commands == sent)
        assert intake.malformed > 300
        assert intake.commands == 100
        buffer.fill([100_001])
        with buffer.read(100_001, 100_001) as reader:
            (last,) = list(reader)
        assert [bytes(part) for part in last.parts] == messages.parts(100_001)


def test_source_that_is_killed_and_comes_back(commands: Commands) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    buffer = BufferProgram(commands, address, "-b", 100_000)

    def simulate(first: int) -> Program:
        return commands("bsread-sim", "-a", address, "-ns", 2, "-fps", 200, "--first-pulse", first)

    first = simulate(1)
    wait_until(lambda: (buffer.status()["newest"] or 0) > 50)
    first.process.kill()
    first.process.wait(10)
    wait_until(lambda: buffer.status()["status"] == "silent")
    second = simulate(10_001)
    wait_until(lambda: buffer.status()["newest"] > 10_050)
    second.signal()
    assert second.wait() == 0
    assert buffer.status()["malformed"] == 0


def test_systemd_is_told_and_every_pulse_has_a_fate(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(15)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        files = [tmp_path / "sim.json", tmp_path / "buffer.json"]
        sim = commands(
            "bsread-sim", "-a", "tcp://127.0.0.1:0", "-n", 300, "-fps", 500, "--send-timeout", 20,
            "--malformed", 0.05, "--ledger", files[0],
        )  # fmt: skip
        address = wait_until(lambda: sim.out and sim.out[0].split()[-1])
        buffer = BufferProgram(commands, address, "--ledger", files[1])
        assert manager.recv(1000) == b"READY=1"
        assert sim.wait() == 0
        wait_until(lambda: buffer.status()["received"] == 300)
        assert manager.recv(1000).startswith(b"WATCHDOG=1\nSTATUS=")
        buffer.program.signal()
        assert buffer.program.wait() == 0
    audit = call("audit", *files)
    assert audit.code == 0, audit.text
    assert "published 300, " in audit.text


def test_memory_stays_at_the_limit(commands: Commands) -> None:
    """Resident memory, of a stream of small messages: nothing but bytes would be cheating."""
    sim = commands(
        "bsread-sim", "-a", "tcp://127.0.0.1:0", "-ns", 10, "-fps", 0, "-n", 15_000,
        "--send-timeout", 20,
    )  # fmt: skip
    address = wait_until(lambda: sim.out and sim.out[0].split()[-1])
    limit = 10
    buffer = BufferProgram(commands, address, "--memory", limit)
    before = _resident(buffer.program.process.pid)
    assert sim.wait() == 0
    wait_until(lambda: buffer.status()["received"] == 15_000)
    status, grown = buffer.status(), _resident(buffer.program.process.pid) - before
    assert status["dropped"] > 0
    assert 0.95 * limit * 2**20 < status["memory"] <= limit * 2**20
    # What waits in sockets took some, too.
    assert 0.8 * limit * 2**20 < grown < 1.2 * limit * 2**20 + 8 * 2**20


def _resident(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def test_under_too_much_load_what_is_lost_is_told(commands: Commands, tmp_path: Path) -> None:
    """The source does not wait for anybody, the ring is small, and the reader is slow."""
    ledger = tmp_path / "sim.json"
    sim = commands(
        "bsread-sim",
        "-a",
        "tcp://127.0.0.1:0",
        "-ns",
        50,
        "-fps",
        0,
        "-rt",
        900,
        "--ledger",
        ledger,
    )
    address = wait_until(lambda: sim.out and sim.out[0].split()[-1])
    buffer = BufferProgram(commands, address, "-b", 50)
    first = wait_until(lambda: buffer.status()["oldest"])
    with read_range(buffer.ranges, first, 2**60) as reader:
        got: list[int] = []
        ending = False
        while sim.process.poll() is None:
            message = reader.read(0.2)
            got.extend([message.pulse_id] if message is not None else [])
            if reader.gone and len(got) > 50 and not ending:
                ending = True
                sim.signal()
        assert sim.wait() == 0
        (account,) = read_ledgers(ledger)
        wait_until(lambda: buffer.status()["received"] == len(account.published))
        reader.stop_at(max(account.published))
        got.extend(message.pulse_id for message in reader)
    sent = np.array([pulse for pulse in account.published if pulse >= first])
    told = np.zeros(len(sent), bool)
    for gone in reader.gone:
        told |= (gone.start <= sent) & (sent <= gone.stop)
    assert len(account.published) + len(account.rejected["no receiver"]) == len(account.received)
    assert sorted(got) == sent[~told].tolist()
    assert 0 < told.sum() < len(sent)


def test_spill_gives_the_past_back(tmp_path: Path) -> None:
    with running(buffer_length=10, spill_folder=str(tmp_path)) as buffer:
        buffer.fill(range(1, 501))
        with buffer.read(1, 500) as reader:
            got = [[bytes(part) for part in message.parts] for message in reader]
        assert got == [buffer.messages.parts(pulse) for pulse in range(1, 501)]
        status = buffer.buffer.status()
        assert (status.in_memory, status.messages, status.dropped) == (10, 500, 0)
        assert status.on_disk > 0


def test_images_of_a_pva_channel(source: Any, prefix: str, commands: Commands) -> None:
    camera = Source(f"{prefix}camera")
    buffer = BufferProgram(
        commands, f"pva://{camera.channel}", "-sc", f"{prefix}status", "-b", 1000
    )
    wait_until(lambda: buffer.status()["received"] == 1)
    camera.publish(range(1, 21))
    wait_until(lambda: buffer.status()["newest"] == 20)
    with read_range(buffer.ranges, 3, 20) as reader:
        got = {message.pulse_id: message.channels[0] for message in reader}
    assert list(got) == list(range(3, 21))
    for pulse, value in got.items():
        assert value.header.name == camera.channel
        expected = np.arange(24, dtype=np.uint16).reshape(4, 6) + pulse
        assert np.array_equal(value.decode(), expected)
    wait_until(lambda: pvget(f"{prefix}status").get("newest") == 20)
    camera.close()


def test_images_of_shared_memory(prefix: str, commands: Commands) -> None:
    publisher = ShmPublisher(f"{prefix}camera", ShmSettings())
    publisher.start()
    builder = ObjectBuilder()
    publisher.open(builder.build(Frame.of(0, image(0))))
    buffer = BufferProgram(commands, f"shm://{prefix}camera", "-b", 1000)
    wait_until(lambda: publisher.subscribers == 1)
    for number in range(1, 201):
        publisher.publish(builder.build(Frame.of(number, image(number))))
    wait_until(lambda: buffer.status()["newest"] == 200)
    with read_range(buffer.ranges, 1, 200) as reader:
        got = {message.pulse_id: message.channels[0].decode() for message in reader}
    publisher.stop()
    assert list(got) == list(range(1, 201))
    assert all(np.array_equal(got[number], image(number)) for number in got)
    assert buffer.status()["source_lost"] == 0


@pytest.mark.parametrize("codec", ["", "lz4", "bslz4", "blosc"])
def test_compressed_images_and_attributes_become_channels(codec: str) -> None:
    from pvapy_stream.daq.frame_source import FrameEncoder
    from pvapy_stream.pva.ntndarray import to_frame

    pixels = np.arange(1200, dtype=np.uint16).reshape(30, 40)
    payload, name = _packed(pixels, codec), "cam"
    frame = Frame(
        5, payload, (30, 40), time_ns=123, dtype=pixels.dtype, codec=codec,
        attributes={"gain": 1.5, "n": 3, "who": "me", "flag": True, "odd": None},
    )  # fmt: skip
    obj = ObjectBuilder().build(frame)
    message = Decoder().decode(FrameEncoder(name).encode(to_frame(obj), 5))
    values = {value.header.name: value.decode() for value in message.channels}
    assert np.array_equal(values["cam"], pixels)
    assert (message.pulse_id, values["cam:who"], values["cam:gain"]) == (5, "me", np.array([1.5]))
    expected = {"lz4": "lz4", "bslz4": "bitshuffle_lz4"}.get(codec, "none")
    assert message.channels[0].header.compression == expected


def _packed(pixels: np.ndarray, codec: str) -> np.ndarray:
    import bitshuffle
    import blosc
    import lz4.block

    raw = pixels.tobytes()
    if codec == "lz4":
        return np.frombuffer(lz4.block.compress(raw, store_size=False), np.uint8)
    if codec == "bslz4":
        return bitshuffle.compress_lz4(pixels.reshape(-1)).view(np.uint8)
    if codec == "blosc":
        return np.frombuffer(blosc.compress(raw, typesize=2), np.uint8)
    return pixels.reshape(-1)


def test_wrong_settings_and_ports_that_are_taken(commands: Commands, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"STREAM: 'camera' is not a stream; write tcp://"):
        BufferSettings.of(stream="camera")
    with running() as buffer:
        port = buffer.buffer.output.address.rpartition(":")[2]
        program = commands("buffer", "tcp://127.0.0.1:9", "-o", port)
        assert program.wait() == 1
        assert "cannot bind" in program.text
        assert f"the buffer binds three ports: {port} (output)" in program.text
    done = call("buffer", "tcp://127.0.0.1:9", "-o", 0, "--spill-folder", tmp_path / "no")
    assert done.code == 2
    assert "--spill-folder: cannot write" in done.text
    assert call("buffer").code == 2


def test_two_buffers_on_ports_side_by_side(commands: Commands) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port := free_port(-1)))
        probe.listen()
        # The port before: its range port is taken.
        buffer = commands("buffer", "tcp://127.0.0.1:9", "-o", port - 1)
        line = wait_until(lambda: buffer.out and buffer.out[0])
    assert f"output tcp://127.0.0.1:{port - 1};" in line
    assert f"ranges tcp://127.0.0.1:{port};" not in line
    assert f"'tcp://127.0.0.1:{port}' for ranges" in buffer.text
    buffer.signal()
    assert buffer.wait() == 0


def test_no_analyzer_is_a_404(idle: BufferProgram) -> None:
    with pytest.raises(urllib.error.HTTPError) as raised:
        idle.get("/analyzer")
    with raised.value as answer:
        assert answer.code == 404
        assert "without --analyzer" in answer.read().decode()


def test_a_name_that_is_not_ours_is_refused(idle: BufferProgram) -> None:
    url = f"{idle.rest}/status"
    request = urllib.request.Request(url, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=20)
    with raised.value as answer:
        assert answer.code == 403


def test_limits_that_hold_when_none_is_given() -> None:
    def limits(**given: Any) -> int:
        return BufferSettings.of(stream="tcp://h:1", **given).messages

    assert (limits(), limits(memory=5), limits(seconds=5), limits(buffer_length=7)) == (
        100, 0, 0, 7,
    )  # fmt: skip
    assert BufferSettings.of(stream="tcp://h:1").ports == (8082, 8083, 8084)


def test_help_says_which_ports_it_binds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        buffer_command.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "It binds three ports: the output port, the next one" in shown


def test_analyzer_finds_what_is_odd() -> None:
    analyzer, packer = StreamAnalyzer(late_pulses=50), Packer()
    every = [*CHANNELS, ChannelHeader("slow", "int16", modulo=10)]
    first, fewer = Messages(every), Messages(CHANNELS[:2])
    now = 0.0

    def see(pulse: int, messages: Messages, **change: Any) -> None:
        nonlocal now
        now += change.pop("after", 0.01)
        parts = messages.parts(pulse, change.pop("values", None))
        headers = Decoder().envelope(parts).headers
        headers = known.setdefault(headers, headers)
        message = packer.pack(parts, pulse, change.pop("time", time_of(pulse)))
        analyzer.observe(message, headers, now)

    known: dict[Any, Any] = {}
    for pulse in range(10, 61):
        see(pulse, first, values={"number": 1, **({} if pulse == 33 else {"text": ""})})
    see(63, first)  # two are missing
    see(62, first)
    see(63, first)
    see(64, first, after=2.0)
    see(65, fewer)
    see(66, fewer, time=time_of(1))
    see(1, fewer)
    analyzer.malformed("no good")
    report = analyzer.report()
    counts = {name: kind["count"] for name, kind in report["anomalies"].items()}
    assert counts == {
        "missing pulses": 2,
        "pulses out of order": 1,
        "pulses twice": 1,
        "source restarts": 1,
        "times going back": 2,
        "long pauses": 1,
        "channel changes": 1,
        "malformed messages": 1,
    }
    assert report["missing_values"] == {"wave": 51, "slow": 6, "text": 1}
    assert report["usual_step"] == 1
    assert "channel changes: 1; the last: at pulse 65: removed text, slow" in analyzer.lines()
    assert StreamAnalyzer(1).lines()[-1] == "no anomalies"


def test_address_that_is_no_address() -> None:
    from pvapy_stream.daq.buffer import StreamBuffer

    with pytest.raises(TransportError, match="cannot bind"):
        StreamBuffer(BufferSettings.of(stream="tcp://127.0.0.1:9", interface="999.1.1.1"))


def test_start_fifty_pulses_back_is_exact_while_the_stream_runs(commands: Commands) -> None:
    sim = commands(
        "bsread-sim", "-a", "tcp://127.0.0.1:0", "-ns", 20, "-fps", 200, "--send-timeout", 20
    )
    address = wait_until(lambda: sim.out and sim.out[0].split()[-1])
    buffer = BufferProgram(commands, address, "-b", 500)
    newest = wait_until(lambda: (n := buffer.status()["newest"] or 0) > 600 and n)
    with read_range(buffer.ranges, newest - 50, newest + 50) as reader:
        got = [message.pulse_id for message in reader]
    assert got == list(range(newest - 50, newest + 51))
    # On a slow machine the ring has moved on meanwhile.
    newest = buffer.status()["newest"]
    with read_range(buffer.ranges, 1, newest + 300) as reader:
        got = [message.pulse_id for message in reader]
    (gone,) = reader.gone
    assert gone == Gone(1, got[0] - 1, gone.reason)
    assert got == list(range(got[0], newest + 301))
