from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.cli import verify as verify_command
from pvapy_stream.cli import write as write_command
from pvapy_stream.cli.write import consumer_settings, written_since
from pvapy_stream.errors import SettingsError
from pvapy_stream.files.completeness import verify
from pvapy_stream.files.file_witness import ids_in, witness
from pvapy_stream.files.summary import decided
from pvapy_stream.settings import WriteSettings
from tests.files.support import write
from tests.in_process import call
from tests.support import (
    Commands,
    Program,
    Source,
    command,
    rounds,
    status,
    wait_for_monitors,
    wait_until,
)


def test_a_stream_is_written_and_verified(
    source: Source, prefix: str, commands: Commands, tmp_path: Path
) -> None:
    file = tmp_path / "scan.h5"
    program = commands(
        "write", "-ic", source.channel, "-o", file, "-sc", f"{prefix}s", "-cmp", "bslz4"
    )
    wait_for_monitors([f"{prefix}s"])
    source.publish(range(1, 51))
    program.signal(signal.SIGINT)
    assert program.wait() == 0, program.text
    report = verify(file)
    assert str(report.ids) == "1-50"
    assert report.ok, report
    checked = call("verify", file)
    assert checked.code == 0
    assert "1-50" in checked.text
    assert "All is there." in checked.text


def test_parallel_writers_and_their_master(
    source: Source, prefix: str, commands: Commands, tmp_path: Path
) -> None:
    program = commands(
        *("write", "-ic", source.channel, "-o", tmp_path / "{processorId}_{fileId}.h5"),
        *("-nif", 10, "-nc", 2, "-dg", "g", "-dt", "uniqueId", "-sqs", 100),
        *("--master", tmp_path / "all.h5", "-sc", f"{prefix}s*"),
    )
    wait_for_monitors([f"{prefix}s1", f"{prefix}s2"])
    source.publish(range(1, 51))
    program.signal()
    assert program.wait() == 0, program.text
    assert "all.h5: 50 images of 6 files" in program.text
    assert str(verify(tmp_path / "all.h5").ids) == "1-50"
    with h5py.File(tmp_path / "all.h5") as file:
        assert [image[0, 0] for image in file["entry/data/data"]] == list(range(1, 51))


def test_a_file_that_exists_stops_the_command(source: Source, tmp_path: Path) -> None:
    file = write(tmp_path / "scan.h5", [1])
    ended = call("write", "-ic", source.channel, "-o", file)
    assert ended.code == 1
    assert "scan.h5 exists; give another name, or --overwrite" in ended.text
    assert verify(file).n_images == 1


LONG = 60.0  # s; on a loaded machine, starting a program takes its time


def last_line(program: Program) -> str:
    """The last line of a command, which goes to one of two pipes."""
    return next(
        lines[-1].strip() for lines in (program.out, program.err) if "ids are in" in lines[-1]
    )


def test_the_last_line_on_a_full_disk_sums_up_what_is_not_saved(
    source: Source, prefix: str, commands: Commands, small_disk: Path
) -> None:
    file = small_disk / "scan.h5"
    program = commands("write", "-ic", source.channel, "-o", file, "-sc", f"{prefix}s")
    wait_for_monitors([f"{prefix}s"])
    source.publish(range(1, 151), period=0.005, side=256)
    wait_until(lambda: status(f"{prefix}s")["objectId"] == 150, LONG)
    program.signal()
    assert program.wait() == 1, program.text
    there = ids_in(file)
    assert 10 < len(there) < 150
    line = last_line(program)
    assert f"{len(there)} of 150 ids are in 1 files; {150 - len(there)} are not: " in line
    assert "failed, process: FileError" in line
    report = verify(file)
    assert report.problems == []
    assert report.n_lost == 150 - len(there)


def test_what_did_not_come_is_in_the_last_line(
    source: Source, prefix: str, commands: Commands, tmp_path: Path
) -> None:
    file = tmp_path / "scan.h5"
    program = commands("write", "-ic", source.channel, "-o", file, "-sc", f"{prefix}s")
    wait_for_monitors([f"{prefix}s"])
    source.publish([1, 2, 5, 6])
    wait_until(lambda: status(f"{prefix}s")["objectId"] == 6, LONG)
    program.signal()
    assert program.wait() == 1, program.text
    assert last_line(program) == "4 of 6 ids are in 1 files; 2 are not: missed: 2 (3-4)"


def kill_writer(number: int, program: Program) -> None:
    """Kill the process of one consumer."""
    names = {
        child.pid: " ".join(child.cmdline())
        for child in psutil.Process(program.process.pid).children()
    }
    pids = [pid for pid, name in names.items() if "spawn_main" in name]
    os.kill(sorted(pids)[number - 1], signal.SIGKILL)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_killed_writer_is_followed_by_the_next_file(
    source: Source, prefix: str, commands: Commands, tmp_path: Path, overwrite: bool
) -> None:
    if overwrite:
        write(tmp_path / "scan_1.h5", [1000])
    program = commands(
        *("write", "-ic", source.channel, "-o", tmp_path / "scan_{processorId}.h5"),
        *("-nc", 2, "-sc", f"{prefix}s*", "-sqs", 500),
        *(["--overwrite"] if overwrite else []),
    )
    wait_for_monitors([f"{prefix}s1", f"{prefix}s2"])
    part = tmp_path / "scan_1.h5.part"
    source.publish(range(1, 51))
    wait_until(lambda: len(ids_in(part)) == 50, LONG)
    before = status(f"{prefix}s1")
    kill_writer(1, program)
    wait_until(
        lambda: (
            (s := status(f"{prefix}s1"))["receiverStats"]["nReceived"] >= 1
            and s["processorStats"]["startTime"] != before["processorStats"]["startTime"]
        ),
        LONG,
    )
    source.publish(range(51, 101))
    wait_until(lambda: len(ids_in(tmp_path / "scan_1.2.h5.part")) == 50, LONG)
    program.signal()
    assert program.wait() == 1, program.text
    assert str(verify(tmp_path / "scan_1.2.h5").ids) == "51-100"
    assert str(verify(tmp_path / "scan_2.h5").ids) == "1-100"
    if overwrite:
        assert str(verify(tmp_path / "scan_1.h5").ids) == "1000"
        (tmp_path / "scan_1.h5").unlink()
    assert (
        f"{part} was not closed; 50 images in it can be read; complete it with: pvapy-stream"
        f" verify --repair {part}\n" in program.text
    )
    assert last_line(program) == "100 of 100 ids are in 3 files"
    assert verify_command.main(["--repair", str(part)]) == 0
    assert str(verify(tmp_path / "scan_1.h5").ids) == "1-50"


@pytest.mark.parametrize("seed", range(1, rounds(1) + 1))
def test_after_a_kill_of_the_command_its_file_decides(
    source: Source, prefix: str, commands: Commands, tmp_path: Path, seed: int
) -> None:
    file, ledger = tmp_path / "scan.h5", tmp_path / "ledger.json"
    options = (
        *("write", "-ic", source.channel, "-o", file, "-sc", f"{prefix}s", "-cmp", "lz4"),
        *("-sqs", "2000"),
    )
    program = commands(*options, "--ledger", ledger)
    wait_for_monitors([f"{prefix}s"])
    last = random.Random(seed).randrange(300, 1500)
    part = tmp_path / "scan.h5.part"
    source.publish(range(1, 100))
    wait_until(lambda: ids_in(part) and ledger.exists() and read_ledgers(ledger)[0].received, LONG)
    source.publish(range(100, last))
    program.signal(signal.SIGKILL)
    program.wait()
    seen = witness(part, deep=True)
    assert (seen.stage, seen.input_channel) == ("consumer 1", source.channel)
    (changed,), _ = decided(read_ledgers(ledger), [seen])
    assert changed.processed == seen.ids
    again = call(*options)
    assert again.code == 1
    assert f"complete it with: {seen.repair_command}; or give another name" in again.text
    assert verify_command.main(["--repair", str(part)]) == 0
    assert verify(file, deep=True).ids == seen.ids
    with h5py.File(file) as found:
        ids = found["entry/data/id"][()]
        assert np.array_equal(found["entry/data/data"][:, 0, 0], ids)
        assert len(set(ids.tolist())) == len(ids) == seen.n_images


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_reload_begins_the_next_file(
    source: Source, prefix: str, commands: Commands, tmp_path: Path, overwrite: bool
) -> None:
    program = commands(
        *("write", "-ic", source.channel, "-o", tmp_path / "scan.h5", "-sc", f"{prefix}s"),
        *("-cc", f"{prefix}c", *(["--overwrite"] if overwrite else [])),
    )
    wait_for_monitors([f"{prefix}s"])
    for first in (1, 11, 21):
        source.publish(range(first, first + 10))
        wait_until(lambda first=first: status(f"{prefix}s")["objectId"] == first + 9, LONG)
        assert command(f"{prefix}c", "reload") == "Reload successful"
    program.signal()
    assert program.wait() == 0, program.text
    names = ("scan.h5", "scan.2.h5", "scan.3.h5")
    assert [str(verify(tmp_path / name).ids) for name in names] == ["1-10", "11-20", "21-30"]
    assert last_line(program) == "30 of 30 ids are in 3 files"


def test_configure_cannot_leave_the_folder_or_replace_a_file(
    source: Source, prefix: str, commands: Commands, tmp_path: Path
) -> None:
    victim = write(tmp_path / "victim.h5", [1, 2, 3])
    outside = tmp_path / "outside"
    outside.mkdir()
    data = tmp_path / "data"
    data.mkdir()
    (data / "link").symlink_to(outside)
    (data / "alias.h5").symlink_to(victim)
    kept = write(data / "kept.h5", [4])
    program = commands(
        *("write", "-ic", source.channel, "-o", data / "scan.h5", "-sc", f"{prefix}s"),
        *("-cc", f"{prefix}c"),
    )
    wait_for_monitors([f"{prefix}s"])
    source.publish(range(1, 6))
    wait_until(lambda: status(f"{prefix}s")["objectId"] == 5, LONG)
    for args in (
        {"outputFileNameFormat": "../victim.h5"},
        {"outputFileNameFormat": "../victim.h5", "overwrite": True},
        {"outputFileNameFormat": str(victim)},
        {"outputDirectory": str(tmp_path)},
        {"outputDirectory": str(data / ".." / "outside")},
        {"outputDirectory": str(data / "link")},
        {"outputFileNameFormat": "link/a.h5"},
        {"overwrite": True},
    ):
        reply = command(f"{prefix}c", "configure", json.dumps(args))
        assert "Hdf5Writer" in reply or "not below" in reply or "'..'" in reply, (args, reply)
    for name in ("kept.h5", "alias.h5"):
        command(f"{prefix}c", "configure", json.dumps({"outputFileNameFormat": name}))
    answer = command(f"{prefix}c", "configure", '{"outputFileNameFormat": "sub/next.h5"}')
    assert answer == "Configuration successful"
    source.publish(range(6, 11))
    wait_until(lambda: status(f"{prefix}s")["objectId"] == 10, LONG)
    program.signal()
    program.wait()
    assert str(verify(victim).ids) == "1-3"
    assert str(verify(kept).ids) == "4"
    assert list(outside.iterdir()) == []
    assert str(verify(data / "scan.h5").ids) == "1-5"
    assert "6-10" in {str(verify(path).ids) for path in (data / "sub").iterdir()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "{nonsense}.h5"], "unknown key"),
        (["-o", "a.h5", "-nif", "5"], "overwrite each other"),
        (["-o", "a.h5", "-nc", "2"], "{processorId}"),
    ],
)
def test_wrong_names(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert write_command.main(["-ic", "nothing", *options]) == 2
    assert message in capsys.readouterr().err


def test_the_writer_is_the_processor() -> None:
    settings = WriteSettings.of(input_channel="c", output="d/a.h5", n_threads=3, runtime=5)
    made = consumer_settings(settings)
    assert made.runtime == 5
    assert made.processor_class is not None
    assert made.processor_args["outputDirectory"] == "d"
    assert made.processor_args["nThreads"] == 3
    with pytest.raises(SettingsError, match="the processor is the writer"):
        WriteSettings.of(input_channel="c", output="a.h5", processor_class="x.Y")


def test_files_of_a_format(tmp_path: Path) -> None:
    for name in ("a_1.h5", "a_22.h5", "b_1.h5", "a_1.h5.part", "c{1}.h5", "d.h5", "d.2.h5"):
        (tmp_path / name).touch()

    def found(name: str) -> list[str]:
        return [path.name for path in written_since(str(tmp_path / name), 0)]

    assert found("a_{fileId}.h5") == ["a_1.h5", "a_22.h5"]
    assert found("c{{{fileId}}}.h5") == ["c{1}.h5"]
    assert found("d.h5") == ["d.2.h5", "d.h5"]
    assert written_since(str(tmp_path / "a_{fileId}.h5"), 4e9) == []


def test_verify_tells_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path / "good.h5", [1, 2])
    bad = write(tmp_path / "bad.h5", [1, 4])
    assert verify_command.main([str(good)]) == 0
    assert "All is there." in capsys.readouterr().out
    assert verify_command.main([str(good), str(bad)]) == 1
    shown = capsys.readouterr().out
    assert "no ledger has the reason: 2-3" in shown
    assert "1 of 2 files not ok" in shown
    assert verify_command.main([str(good), "--repair"]) == 1
    assert "nothing to recover" in capsys.readouterr().err
    assert verify_command.main([str(good), "--master", str(tmp_path / "m.h5")]) == 0
    assert "master" in capsys.readouterr().out
