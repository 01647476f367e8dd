"""Names of files from path, name, number and template."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvapy_stream.areadetector.target import Target, formatted
from pvapy_stream.errors import FileError, SettingsError

VALUES = ("/data/", "scan", 7)


@pytest.mark.parametrize(
    ("template", "made"),
    [
        ("%s%s.h5", "/data/scan.h5"),
        ("%s%s_%6.6d.h5", "/data/scan_000007.h5"),
        ("%s%10s_%-3i_", "/data/      scan_7  _"),
        ("%s%s%%.h5", "/data/scan%.h5"),
        ("/fixed.h5", "/fixed.h5"),
    ],
)
def test_templates_are_those_of_printf(template: str, made: str) -> None:
    assert formatted(template, VALUES) == made


@pytest.mark.parametrize(
    "template", ["%d", "%s%d", "%s%s%s", "%s%s%d%d", "%x", "%s%s%1000d", "%s%s%n", "100%", "%*s"]
)
def test_other_templates_are_refused(template: str) -> None:
    with pytest.raises(SettingsError, match="FileTemplate"):
        formatted(template, VALUES)


@pytest.mark.parametrize(
    ("path", "name"),
    [("/etc/", "passwd"), ("", "../../etc/passwd"), ("", "/etc/passwd"), ("", "n" * 5000)],
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, path: str, name: str) -> None:
    with pytest.raises(FileError):
        Target(tmp_path).file("%s%s", path, name, 1)


def test_relative_names_are_in_the_folder(tmp_path: Path) -> None:
    assert Target(tmp_path).file("%s%s", "a/", "b.h5", 1) == tmp_path / "a/b.h5"
