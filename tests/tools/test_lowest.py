"""The lowest versions, as constraints of pip."""

from __future__ import annotations

import pytest

from tools.lowest import constraints, main


def test_constraints() -> None:
    given = [
        "numpy>=2",
        "pvapy>=5.6,<6",
        "uvicorn[standard] >=0.29",
        "tomli>=2; python_version<'3'",
    ]
    assert list(constraints(given)) == [
        "numpy==2", "pvapy==5.6", "uvicorn==0.29", "tomli==2 ; python_version<'3'",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="'furo' has no lowest version"):
        list(constraints(["furo"]))


def test_every_requirement_has_a_lowest_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"pvapy==5.6", "numpy==2", "h5py==3.11", "psutil==6"} <= set(lines)
