from __future__ import annotations

import signal
from pathlib import Path

import h5py
import pytest

from pvapy_stream.cli import verify as verify_command
from pvapy_stream.cli import write as write_command
from pvapy_stream.cli.write import consumer_settings, written_since
from pvapy_stream.errors import SettingsError
from pvapy_stream.files.verify import verify
from pvapy_stream.settings import WriteSettings
from tests.files.support import write
from tests.support import Commands, Source, wait_for_monitors


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
    checked = commands("verify", file)
    assert checked.wait() == 0
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


def test_a_file_that_exists_stops_the_command(
    source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = write(tmp_path / "scan.h5", [1])
    program = commands("write", "-ic", source.channel, "-o", file)
    assert program.wait() == 1
    assert "scan.h5 exists; give another name, or --overwrite" in program.text
    assert verify(file).n_images == 1


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
    assert "no ledger tells why: 2-3" in shown
    assert "1 of 2 files not ok" in shown
    assert verify_command.main([str(good), "--repair"]) == 1
    assert "nothing to recover" in capsys.readouterr().err
    assert verify_command.main([str(good), "--master", str(tmp_path / "m.h5")]) == 0
    assert "master" in capsys.readouterr().out
