from __future__ import annotations

from typing import Any

import pytest

from pvapy_stream.pva.monitor_request import Distributor, monitor_request


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "field()"),
        ({"id_field": "uniqueId"}, "field()"),
        ({"queue_size": 100}, "record[queueSize=100]field()"),
        ({"fields": "value"}, "field(value)"),
        ({"fields": "value, dimension"}, "field(value,dimension)"),
        ({"fields": "field(value,dimension)"}, "field(value,dimension)"),
        ({"fields": "value", "id_field": "uniqueId"}, "field(uniqueId,value)"),
        ({"fields": "value,uniqueId", "id_field": "uniqueId"}, "field(uniqueId,value)"),
        ({"fields": "value", "id_field": "meta.id"}, "field(meta,value)"),
        ({"distributor": Distributor()}, "field()"),
        (
            {
                "distributor": Distributor(
                    group="g", client_set="s", trigger="t", updates=4, mode="m"
                )
            },
            "field(_[pydistributor=group:g;set:s;trigger:t;updates:4;mode:m])",
        ),
        (
            {"distributor": Distributor("mine", trigger="uniqueId"), "queue_size": 5},
            "record[queueSize=5]field(_[mine=trigger:uniqueId])",
        ),
        (
            {"fields": "value", "id_field": "uniqueId", "distributor": Distributor(updates=2)},
            "field(uniqueId[pydistributor=updates:2],value)",
        ),
        (
            {"fields": "a,b", "distributor": Distributor(updates=2)},
            "field(a[pydistributor=updates:2],b)",
        ),
    ],
)
def test_requests(arguments: dict[str, Any], expected: str) -> None:
    assert monitor_request(**arguments) == expected
