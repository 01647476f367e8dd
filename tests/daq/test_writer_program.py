from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.bsread.codec import ChannelHeader
from pvapy_stream.cli import bsread_writer
from pvapy_stream.files.completeness import verify
from pvapy_stream.files.file_witness import ids_in
from pvapy_stream.files.repair import repair
from pvapy_stream.files.summary import decided_by_files
from tests.bsread.messages import camera, scalars
from tests.daq.sending import Pulses, Rest, lost, rows
from tests.files.support import start
from tests.in_process import Called, call
from tests.support import BIN, Commands, Program, wait_until

Running = tuple[Program, Rest]
Run = Callable[..., Running]


@pytest.fixture
def pulses() -> Iterator[Pulses]:
    made = Pulses()
    yield made
    made.close()


@pytest.fixture
def run(pulses: Pulses, commands: Commands, tmp_path: Path) -> Run:
    """A writer in a process of its own, which answers."""

    def one(*options: object, file: object = "", stream: str = "") -> Running:
        program = commands(
            *("writer", stream or pulses.address, file or tmp_path / "run.h5", -1, 0), *options
        )
        found = wait_until(lambda: re.search(r"http://\S+", program.text), what=program.text)
        return program, Rest(f"{found[0]}/")

    return one


def statistics(rest: Rest) -> dict[str, Any]:
    return rest.get("statistics")["statistics"]


def test_an_acquisition_from_outside(pulses: Pulses, run: Run, tmp_path: Path) -> None:
    program, rest = run()
    pulses.run()
    rest.put("start_pulse_id/10")
    rest.put("stop_pulse_id/80")
    wait_until(lambda: rest.get("status")["status"] == "done")
    began = time.monotonic()
    assert program.wait() == 0, program.text
    assert time.monotonic() - began < 60
    assert rows(tmp_path / "run.h5") == list(range(10, 81))
    assert "acquisition 1 done: 71 rows, last pulse 80" in program.text


def test_what_is_lost_shows_in_the_exit_code(pulses: Pulses, run: Run) -> None:
    program, rest = run()
    pulses.run([1, 2, 5])
    rest.put("start_pulse_id/1", {"stop_pulse_id": 5})
    assert program.wait() == 1
    assert "acquisition 1: 2 pulses are lost: 3-4" in program.text


def test_sigterm_leaves_a_complete_file(pulses: Pulses, run: Run, tmp_path: Path) -> None:
    program, rest = run()
    pulses.run()
    rest.put("start_pulse_id/1")
    wait_until(lambda: statistics(rest)["n_rows"] > 50)
    program.signal(signal.SIGTERM)
    assert program.wait() == 0, program.text
    found = rows(tmp_path / "run.h5")
    assert found == list(range(1, len(found) + 1))
    assert verify(tmp_path / "run.h5").state == "closed"


def test_sigkill_takes_the_last_second_at_most(pulses: Pulses, run: Run, tmp_path: Path) -> None:
    pulses.stream.channels(*scalars("A", "B"), camera(shape=(64, 512), compression="lz4"))
    program, rest = run("--ledger", tmp_path / "l.json")
    pulses.run()
    rest.put("start_pulse_id/1")
    wait_until(lambda: statistics(rest)["n_rows"] > 50)
    time.sleep(1.5)
    safe = statistics(rest)["n_rows"]
    time.sleep(1.0)
    program.signal(signal.SIGKILL)
    program.wait()
    part = tmp_path / "run.h5.part"
    with h5py.File(part, "r", swmr=True) as file:
        pulse_ids = file["data/A/pulse_id"][()].tolist()
        assert len(pulse_ids) >= safe > 50
        assert file["data/A/data"][: len(pulse_ids), 0].tolist() == [p / 2 for p in pulse_ids]
    # The ledger is never ahead of the file, and the file decides.
    (account,) = read_ledgers(tmp_path / "l.json")
    assert not account.closed
    assert set(account.processed) <= set(pulse_ids)
    (decided,), _ = decided_by_files([account])
    assert list(decided.processed) == pulse_ids
    assert repair(part)[0] == tmp_path / "run.h5"
    assert rows(tmp_path / "run.h5") == pulse_ids
    assert verify(tmp_path / "run.h5").problems == []


def test_after_a_kill_the_audit_reads_the_files_that_a_service_had_open(
    pulses: Pulses, run: Run, tmp_path: Path
) -> None:
    ledger, folder = tmp_path / "ledger.json", tmp_path / "data"
    folder.mkdir()
    program, rest = run("--service", "--parallel", 3, "--ledger", ledger, file=folder)
    rest.put("start_pulse_id/1", {"output_file": "first.h5", "stop_pulse_id": 20})
    # No more than it asks for: with nothing left to write, the service takes nothing.
    pulses.run(range(1, 21)).wait()
    wait_until(lambda: (folder / "first.h5").exists())
    for number, first in enumerate((30, 60)):
        rest.put(f"start_pulse_id/{first}", {"output_file": f"open_{number}.h5"})
    pulses.run(range(30, 5000))

    def written() -> list[int]:
        # What is processed is flushed.
        return [len(one.processed) for one in read_ledgers(ledger)]

    wait_until(lambda: len(n := written()) == 3 and min(n) >= 20)
    program.signal(signal.SIGKILL)
    program.wait()
    # What was closed may be moved away; nobody needs it for the account.
    (folder / "first.h5").rename(tmp_path / "elsewhere.h5")
    accounts = read_ledgers(ledger)
    assert [one.file for one in accounts] == [
        str(folder / name) for name in ("first.h5", "open_0.h5", "open_1.h5")
    ]
    assert [one.closed for one in accounts] == [True, False, False]
    assert str(accounts[0].processed) == "1-20"
    told = json.loads("".join(call("audit", "--json", ledger).out))
    notes = "\n".join(told["notes"])
    assert "first.h5" not in notes
    for number in (0, 1):
        assert f"read from its files: {folder}/open_{number}.h5.part" in notes
    parts = [ids_in(folder / f"open_{number}.h5.part") for number in (0, 1)]
    assert all(len(one) > 0 for one in parts)
    (stage,) = told["stages"]
    saved = {n for first, last in stage["processed"] for n in range(first, last + 1)}
    assert saved == {*range(1, 21), *parts[0], *parts[1]}


def test_a_file_left_by_a_killed_writer_is_in_the_way(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run.h5.part").write_text("what a killed one left")
    program, rest = run()
    code, reply = rest("PUT", "start_now")
    assert code == 409
    assert "verify --repair" in reply["status"]
    assert rest.get("kill")["state"] == "ok"
    assert program.wait() == 0
    assert (tmp_path / "run.h5.part").read_text() == "what a killed one left"


@pytest.mark.parametrize("call", ["stop", "kill"])
def test_stop_and_kill_end_the_program_with_a_readable_file(
    pulses: Pulses, run: Run, tmp_path: Path, call: str
) -> None:
    program, rest = run()
    pulses.run()
    rest.put("start_pulse_id/1", {"stop_pulse_id": 10_000})
    wait_until(lambda: statistics(rest)["n_rows"] > 20)
    reply = rest.get(call)
    assert (reply["state"], reply["status"]) == ("ok", "done")
    assert len(rows(tmp_path / "run.h5")) > 20
    # What was asked for and did not come is lost.
    assert program.wait() == 1
    assert lost(tmp_path / "run.h5")[-1][1] == 10_000


def test_a_full_disk_is_told_and_earlier_rows_are_readable(
    pulses: Pulses, run: Run, small_disk: Path, tmp_path: Path
) -> None:
    pulses.stream.channels(*scalars("A"), camera(shape=(512, 512)))
    rng = np.random.default_rng(1)

    def big(pulse: int) -> Any:
        image = rng.integers(0, 60_000, (512, 512)).astype("u2")
        return pulses.stream.encoder.encode(pulse, time.time_ns(), {"A": pulse / 2, "CAM": image})

    ledger = tmp_path / "l.json"
    program, rest = run("--linger", 3, "--ledger", ledger, file=small_disk / "run.h5")
    pulses.run(None, big)
    rest.put("start_pulse_id/1")
    reply = wait_until(lambda: (r := rest.get("status"))["phase"] == "error" and r)
    assert reply["status"] == "error"
    assert "no space left on device" in reply["problem"]
    assert program.wait() == 1
    assert "no space left on device" in program.text
    found = rows(small_disk / "run.h5")
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= 3
    assert verify(small_disk / "run.h5").problems == []
    assert lost(small_disk / "run.h5") == [[len(found) + 1, len(found) + 1]]
    (account,) = read_ledgers(ledger)
    assert list(account.processed) == found
    assert list(account.failed["not written"]) == [len(found) + 1]
    assert account.closed
    last = program.err[-1]
    assert "1 pulses were received and are not in the file" in last
    assert f"({len(found)} rows in {small_disk / 'run.h5'})" in last


def test_pulses_that_were_in_memory_when_the_disk_was_full_are_not_processed(
    pulses: Pulses, run: Run, small_disk: Path, tmp_path: Path
) -> None:
    pulses.stream.channels(*scalars("A"), ChannelHeader("W", "float64", (4000,)))
    wave = np.arange(4000.0)
    ledger = tmp_path / "l.json"
    program, rest = run("--ledger", ledger, file=small_disk / "run.h5")
    pulses.period = 0.0005
    pulses.run(
        None,
        lambda pulse: pulses.stream.encoder.encode(
            pulse, time.time_ns(), {"A": pulse / 2, "W": wave}
        ),
    )
    rest.put("start_pulse_id/1")
    assert program.wait() == 1
    # There may be no space even to complete the file.
    (file,) = small_disk.iterdir()
    found = list(verify(file).ids)
    assert found
    (account,) = read_ledgers(ledger)
    assert list(account.processed) == found
    assert len(account.failed["not written"]) == len(account.received) - len(found) > 0
    assert not account.without_fate()
    assert "no space left on device" in program.text
    assert "pulses were received and are not in the file" in program.err[-1], program.text


def test_damaged_values_are_named_at_the_end(pulses: Pulses, run: Run, tmp_path: Path) -> None:
    pulses.stream.channels(*scalars("A"), camera(compression="bitshuffle_lz4"))
    image = np.random.default_rng(1).poisson(20, (256, 320)).astype("u2")

    def parts(pulse: int) -> list[bytes]:
        values = {"A": pulse / 2, "CAM": image}
        made = [bytes(p) for p in pulses.stream.encoder.encode(pulse, time.time_ns(), values)]
        if pulse == 5:
            made[4] = made[4][:16] + b"\xff" * 40 + made[4][56:]
        return made

    program, rest = run("--linger", 2, "--ledger", tmp_path / "l.json")
    pulses.run(range(1, 10), parts)
    rest.put("start_pulse_id/1", {"stop_pulse_id": 9})
    found = wait_until(lambda: (s := rest.get("statistics"))["status"] == "done" and s)
    assert found["statistics"]["damaged_values"] == {"CAM": 1}
    assert program.wait() == 1
    assert "1 values were damaged: CAM 1" in program.err[-1]
    (account,) = read_ledgers(tmp_path / "l.json")
    assert list(account.failed["damaged value"]) == [5]
    assert verify(tmp_path / "run.h5").problems == []


AS_NOBODY = """
import sys
from pvapy_stream.cli.bsread_writer import become
from pvapy_stream.daq.writer import AcquisitionWriter
from pvapy_stream.errors import FileError
from pvapy_stream.settings import WriterSettings
from tests.daq.sending import Pulses
pulses = Pulses()
writer = AcquisitionWriter(WriterSettings.of(
    stream=pulses.address, output_file=sys.argv[1], user_id=65534, rest_port=0, folder="/"))
become(writer.settings.user_id)
try:
    writer.start(1, "/run.h5")
except FileError as error:
    print(error)
one = writer.start(1, stop_pulse_id=5)
pulses.run(range(1, 6))
print(one.over.wait(10), one.phase.value)
pulses.close()
writer.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_user_is_changed(request: pytest.FixtureRequest) -> None:
    # Not among the folders of pytest, which each new run closes to others.
    folder = Path(tempfile.mkdtemp(prefix="pvapy-stream-test-"))
    request.addfinalizer(lambda: shutil.rmtree(folder))
    os.chown(folder, 65534, 65534)
    # All is imported before: the interpreter may lie where nobody else can read.
    with start(AS_NOBODY, folder / "run.h5") as process:
        out, err = process.communicate(timeout=120)
    assert "True done" in out, err
    assert "ermission denied" in out
    file = (folder / "run.h5").stat()
    assert (file.st_uid, file.st_gid) == (65534, 65534)
    assert rows(folder / "run.h5") == [1, 2, 3, 4, 5]


def mutated(parts: list[bytes], rng: random.Random) -> list[bytes]:
    """A message with a few wrong bytes, or parts that are missing, doubled or cut."""
    found = list(parts)
    which = rng.randrange(len(found))
    how = rng.randrange(4)
    if how == 0 and found[which]:
        changed = bytearray(found[which])
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        found[which] = bytes(changed)
    elif how == 1:
        del found[which]
    elif how == 2:
        found.insert(which, found[which])
    else:
        found[which] = found[which][: rng.randrange(len(found[which]) + 1)]
    return found or [b""]


def test_a_thousand_mutated_messages(pulses: Pulses, run: Run, tmp_path: Path) -> None:
    pulses.stream.channels(*scalars("A", "B"), camera(shape=(64, 64), compression="bitshuffle_lz4"))
    rng = random.Random(1)
    image = np.zeros((64, 64), "u2")

    def good(pulse: int) -> list[bytes]:
        values = {"A": pulse / 2, "B": 1.0, "CAM": image}
        return [bytes(p) for p in pulses.stream.encoder.encode(pulse, time.time_ns(), values)]

    def make(pulse: int) -> list[bytes]:
        # Between good ones, so that one wrong pulse id does not make all others late.
        return mutated(good(pulse), rng) if pulse % 2 else good(pulse)

    program, rest = run()
    pulses.period = 0
    pulses.run(range(1, 2001), make)
    rest.put("start_pulse_id/0")
    pulses.wait()
    pulses.send([2002], good)
    found = wait_until(
        lambda: (s := statistics(rest))["n_rows"] + s["n_malformed"] == len(pulses.sent) and s
    )
    wait_until(lambda: rest.get("stop")["status"] == "done")
    program.wait()
    assert found["n_malformed"] + sum(found["damaged_values"].values()) > 400
    with h5py.File(tmp_path / "run.h5") as file:
        pulse_ids = file["data/A/pulse_id"][()]
        assert set(range(2, 2003, 2)) <= set(pulse_ids.tolist())
        assert pulse_ids[-1] == 2002
        assert file["data/A/data"][-1, 0] == 1001.0
    assert [p for p in verify(tmp_path / "run.h5").problems if "CAM" not in p] == []


def test_twice_the_load_it_can_take_is_all_written_or_told(
    commands: Commands, run: Run, tmp_path: Path
) -> None:
    published = Pulses(period=0, mode="pub")
    try:
        program, rest = run("--mode", "sub", stream=published.address)
        published.run()
        rest.put("start_now")
        wait_until(lambda: statistics(rest)["n_rows"] > 20)
        # It cannot read; what a publisher cannot get rid of is lost.
        program.signal(signal.SIGSTOP)
        time.sleep(1.0)
        program.signal(signal.SIGCONT)
        at = published.sent[-1]
        wait_until(lambda: statistics(rest)["last_pulse_id"] > at)
        published.stop()
        # Slowly, so that the last ones come through.
        published.period = 0.05
        published.send(range(published.sent[-1] + 1, published.sent[-1] + 11))
        wait_until(lambda: statistics(rest)["last_pulse_id"] == published.sent[-1])
        reply = rest.get("stop")
        assert reply["status"] in ("done", "error")
        program.wait()
        written = rows(tmp_path / "run.h5")
        missing = [n for a, b in lost(tmp_path / "run.h5") for n in range(a, b + 1)]
        assert sorted(written + missing) == list(range(written[0], published.sent[-1] + 1))
        assert missing
    finally:
        published.close()


def test_the_command_of_the_original() -> None:
    done = subprocess.run(
        [BIN / "sf_bsread_writer", "--help"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0
    assert "STREAM OUTPUT_FILE USER_ID REST_PORT" in done.stdout
    assert "--log_level" in done.stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nonsense", "a.h5", "-1", "0"], "is not a stream"),
        (["tcp://127.0.0.1:1", "a.h5", "-2", "0"], "USER_ID"),
        (["tcp://127.0.0.1:1", "a.h5", "-1", "70000"], "REST_PORT"),
        (["tcp://127.0.0.1:1", "a.h5", "-1"], "rest_port"),
        (["tcp://127.0.0.1:1", "a.h5", "-1", "0", "--token-file", "/no/file"], "--token-file"),
    ],
)
def test_wrong_options(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = bsread_writer.main(argv)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert message.lower() in capsys.readouterr().err.lower()


def test_a_port_that_is_taken(commands: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        program = commands("writer", "tcp://127.0.0.1:9", "a.h5", -1, port)
        assert program.wait() == 1
    assert "choose another port" in program.text


def test_the_client(pulses: Pulses, run: Run, commands: Commands, tmp_path: Path) -> None:
    writer, rest = run("--service", file=tmp_path)

    def client(*args: object) -> Called:
        return call("writer-client", *args, "--url", rest.url)

    pulses.run()
    started = commands(
        "writer-client", "start", "--pulse-id", 20, "--file", "1.h5", "--url", rest.url
    )
    assert started.wait() == 0
    assert re.search(r"acquisition 1: (armed|writing)", started.text)
    again = client("start", "--file", "2.h5")
    assert again.code == 1
    assert "the writer refuses: 1 acquisitions are running" in again.text
    stopped = client("stop", "--pulse-id", 200, "--wait")
    assert stopped.code == 0, stopped.text
    assert "acquisition 1: done" in stopped.text
    assert rows(tmp_path / "1.h5") == list(range(20, 201))
    assert '"phase": "done"' in client("status", "--acquisition", 1, "--json").text
    assert client("status", "--acquisition", 9).code == 1
    ended = client("stop", "--end")
    assert ended.code == 0, ended.text
    assert writer.wait() == 0
    nobody = client("status")
    assert nobody.code == 1
    assert "no writer answers at http://127.0.0.1" in nobody.text


def test_the_interface_needs_its_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from pvapy_stream.cli.bsread_writer import main\n"
        "sys.exit(main(['tcp://127.0.0.1:9', 'a.h5', '-1', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "pip install 'pvapy-stream[web]'" in done.stderr


def test_an_acquisition_that_ends_after_a_time(pulses: Pulses, run: Run, tmp_path: Path) -> None:
    program, _ = run("--start", "now", "--seconds", 1, "--ledger", tmp_path / "l.json")
    pulses.run()
    assert program.wait() == 0, program.text
    found = rows(tmp_path / "run.h5")
    assert found == list(range(found[0], found[-1] + 1))
    (account,) = read_ledgers(tmp_path / "l.json")
    assert list(account.asked or ()) == list(account.processed) == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seconds", 2), "--seconds needs --start"),
        (("--start", "now", "--seconds", 2, "--stop-pulse-id", 2), "cannot be combined"),
        (("--start", 9, "--stop-pulse-id", 2), "--stop-pulse-id is before --start"),
        (("--start", "first", "--service"), "--start is for one acquisition"),
        (("--start", "soon"), "--start: "),
    ],
)
def test_impossible_acquisitions(
    options: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        bsread_writer.main(["tcp://127.0.0.1:1", "a.h5", "-1", "0", *map(str, options)])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_that_exists_ends_a_writer_that_begins_by_itself(
    commands: Commands, tmp_path: Path
) -> None:
    file = tmp_path / "run.h5"
    file.write_text("precious")
    program = commands("writer", "tcp://127.0.0.1:1", file, -1, 0, "--start", "now")
    assert program.wait() == 1
    assert "run.h5" in program.text
    assert "exists" in program.text
    assert file.read_text() == "precious"
