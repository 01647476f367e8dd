"""Lists of addresses in the variables of EPICS."""

from __future__ import annotations

import pytest

from pvapy_stream.pva.net.environment import listed_addresses


def test_addresses_are_separated_by_spaces(caplog: pytest.LogCaptureFixture) -> None:
    assert listed_addresses(" one:6075 two\tthree:7075 ", 5075) == [
        ("one", 6075), ("two", 5075), ("three", 7075),
    ]  # fmt: skip
    assert not caplog.records


@pytest.mark.parametrize(
    ("entry", "port"),
    [("10.0.0.1:6075,10.0.0.2:6075", "6075,10.0.0.2:6075"), ("one:65536", "65536"), ("two:", "")],
)
def test_a_port_that_is_none_is_reported_once(
    caplog: pytest.LogCaptureFixture, entry: str, port: str
) -> None:
    host = entry.partition(":")[0]
    for _ in range(2):
        assert listed_addresses(f"{entry} three:7075", 5075) == [(host, 5075), ("three", 7075)]
    (record,) = caplog.records
    message = record.getMessage()
    assert entry in message
    assert repr(port) in message
    assert "separate addresses with spaces" in message
