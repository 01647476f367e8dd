"""Verification of files as a protocol."""

from __future__ import annotations

from pathlib import Path

from pvapy_stream.workflow.library.verification import VerifyFiles
from pvapy_stream.workflow.run.steps import State


def test_a_file_that_is_damaged_or_missing_fails_and_is_reported(tmp_path: Path) -> None:
    missing = VerifyFiles(files=str(tmp_path / "none.h5"))
    assert missing.run(tmp_path / "missing") is State.FAILED
    assert "there is no file" in missing.error
    (tmp_path / "bad.h5").write_text("no HDF5")
    bad = VerifyFiles(files=str(tmp_path / "bad.h5"))
    assert bad.run(tmp_path / "run") is State.FAILED
    assert "bad.h5" in bad.error
    assert "class=bad" in (tmp_path / "run" / "extra" / "report.html").read_text()
