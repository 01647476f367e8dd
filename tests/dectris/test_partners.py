"""A series of a detector in a file that programs of others validate and open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pvapy_stream.sim.dectris_detector import pixels_of
from tests.dectris.test_programs import LIKE, detector, metadata_of, sent
from tests.files.partners import Partners, partners  # noqa: F401 - a fixture
from tests.ports import free_port
from tests.support import Commands

# The first one installs them.
pytestmark = [pytest.mark.foreign, pytest.mark.timeout(1500)]


def test_punx_validates_a_series_and_nexusformat_opens_it(
    partners: Partners,  # noqa: F811
    commands: Commands,
    tmp_path: Path,
    prefix: str,
) -> None:
    address, file = f"tcp://127.0.0.1:{free_port()}", tmp_path / "scan.h5"
    save = commands("save", "-ic", address, "-im", "dectris", "-o", file, "-sc", f"{prefix}status")
    assert detector(commands, address, "-n", 5).wait() == 0
    save.signal()
    assert save.wait() == 0, save.text
    assert metadata_of(file)[0] == sent(100)
    # Also those of the instrument.
    assert partners.validate(file) > 150
    found = partners.plot(file)
    assert found["path"] == "/entry/data/data"
    assert found["axes"]["id"] == [1, 2, 3, 4, 5]
    assert np.array_equal(found["pixels"], [pixels_of(1, number, 1, LIKE) for number in range(5)])
