from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import pvapy_stream
from pvapy_stream.launch.programs import EntryPoint

PACKAGE = Path(pvapy_stream.__file__).parent


@pytest.mark.parametrize("entry", EntryPoint)
def test_the_module_of_every_entry_point_can_be_run(entry: EntryPoint) -> None:
    module = importlib.import_module(entry.value)
    assert callable(module.main)
    assert '__name__ == "__main__"' in Path(str(module.__file__)).read_text()


def test_nothing_sets_a_connection_callback_of_the_binding() -> None:
    # It is called without a lock against the thread that gives the channel up: now and then the
    # process ended with a segmentation fault, at its start. Updates tell of a connection, see
    # `MonitorReceiver`.
    found = [
        str(path) for path in PACKAGE.rglob("*.py") if "setConnectionCallback" in path.read_text()
    ]
    assert found == []


def test_no_other_place_names_a_module_to_run() -> None:
    # A module that runs itself derives its name; all others go through the table.
    named = re.compile(r'"-m",\s*["\'f]')
    found = [str(path) for path in PACKAGE.rglob("*.py") if named.search(path.read_text())]
    assert found == []
