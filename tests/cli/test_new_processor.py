from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pvapy_stream.cli.main import main
from pvapy_stream.cli.new_processor import names
from pvapy_stream.errors import SettingsError


@pytest.mark.parametrize(
    ("given", "file", "class_name"),
    [
        ("peak_finder", "peak_finder", "PeakFinder"),
        ("peak-finder", "peak_finder", "PeakFinder"),
        ("PeakFinder", "peak_finder", "PeakFinder"),
        ("peaks", "peaks", "Peaks"),
        ("ROISum2", "roi_sum2", "ROISum2"),
    ],
)
def test_names(given: str, file: str, class_name: str) -> None:
    assert names(given) == (file, class_name)


@pytest.mark.parametrize(
    "name",
    ["", "2peaks", "a b", "../x", "a.py", "_x", "peaks-", "class", "match", "random", "Random"],
)
def test_bad_names(name: str) -> None:
    with pytest.raises(SettingsError):
        names(name)


def test_what_is_written_passes_its_test_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "place"
    assert main(["new-processor", "peak-finder", "--directory", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert f"{folder / 'peak_finder.py'}:PeakFinder" in shown
    assert sorted(path.name for path in folder.iterdir()) == [
        "peak_finder.py",
        "test_peak_finder.py",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        capture_output=True, text=True, timeout=60, cwd=folder,
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout


def test_the_new_processor_can_be_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-processor", "peaks", "--directory", str(tmp_path)]) == 0
    capsys.readouterr()
    assert (
        main(["try", f"{tmp_path / 'peaks.py'}:Peaks", "--n", "3", "--args", '{"threshold": 256}'])
        == 0
    )
    shown = capsys.readouterr().out
    assert "Processed frames: 3 of 3 @" in shown
    assert f"nZeroed: {3 * 512 * 512}" in shown


def test_nothing_is_overwritten_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "test_peaks.py"
    mine.write_text("mine")
    arguments = ["new-processor", "peaks", "--directory", str(tmp_path)]
    assert main(arguments) == 1
    assert f"{mine} would be overwritten" in capsys.readouterr().err
    assert (mine.read_text(), (tmp_path / "peaks.py").exists()) == ("mine", False)
    assert main([*arguments, "--force"]) == 0
    assert "Peaks" in mine.read_text()


def test_a_bad_name_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-processor", "no name", "--directory", str(tmp_path)]) == 2
    assert "'no name' is not a name for a processor" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["new-processor", "peaks", "--directory", str(tmp_path / "file")]) == 1
    assert "give another place with --directory" in capsys.readouterr().err
