"""Metadata channels of a stage that do not come, come late or go."""

from __future__ import annotations

import pvaccess as pva
import pytest

from pvapy_stream.testing import metadata_object
from tests.support import Commands, Source, status, wait_for_monitors, wait_until


@pytest.mark.parametrize(("options", "code"), [([], 1), (["--metadata-optional"], 0)])
@pytest.mark.parametrize("scheme", ["pva", "ca"])
def test_metadata_that_never_come(
    prefix: str, source: Source, commands: Commands, scheme: str, options: list[str], code: int
) -> None:
    nobody, stat = f"{prefix}nobody", f"{prefix}status"
    program = commands(
        "consumer", "-ic", source.channel, "-sc", stat, "-mc", f"{scheme}://{nobody}", "-sqs", "50",
        *options,
    )  # fmt: skip
    wait_for_monitors([stat])
    source.publish(range(1, 31))
    wait_until(lambda: status(stat)["processorStats"]["nProcessed"] == 30)
    told = wait_until(lambda: status(stat)["message"], what="the status to name the channel")
    assert f"metadata channel {nobody} ({scheme}) was never found" in told
    found = status(stat)["metadataStats_1"]
    assert (found["state"], found["nWithout"], found["coverage"]) == ("waiting", 30, 0)
    program.signal()
    assert program.wait() == code, program.text
    assert sum("WARNING" in line and nobody in line for line in program.err) == 1
    (line,) = [line for line in program.out if line.startswith("  metadata")]
    assert f"channel {nobody}  " in line
    assert "coverage 0.0000" in line
    error = f"metadata channel {nobody} ({scheme}) was never found; check its name and EPICS_"
    assert (error in "".join(e for e in program.err if e.startswith("error: "))) == bool(code)


def test_metadata_that_come_late_and_go(prefix: str, source: Source, commands: Commands) -> None:
    name, stat = f"{prefix}m", f"{prefix}status"
    program = commands(
        "consumer", "-ic", source.channel, "-sc", stat, "-mc", f"pva://{name}", "-sqs", "50"
    )
    wait_for_monitors([stat])
    source.publish(range(1, 11))
    wait_until(lambda: status(stat)["processorStats"]["nProcessed"] == 10)
    server = pva.PvaServer()
    server.addRecord(name, metadata_object(1.0, 1), None)
    server.start()
    try:
        wait_until(lambda: status(stat)["metadataStats_1"]["state"] == "connected")
        wait_until(lambda: status(stat)["metadataStats_1"]["receiverStats"]["nReceived"] > 0)
        source.publish(range(11, 41))
        wait_until(lambda: status(stat)["processorStats"]["nProcessed"] == 40)
        found = status(stat)["metadataStats_1"]
        assert (found["nWith"], found["nWithout"], found["coverage"]) == (30, 10, 0.75)
    finally:
        server.removeRecord(name)
        server.stop()
    wait_until(lambda: status(stat)["metadataStats_1"]["state"] == "disconnected")
    program.signal()
    assert program.wait() == 0, program.text
    assert "coverage 0.7500" in program.text
