"""Stages that are run in a process that has more to do."""

from __future__ import annotations

import threading

import pytest

from pvapy_stream.errors import ProcessorError
from pvapy_stream.hpc import consumers
from pvapy_stream.settings import ConsumerSettings
from tests.support import PATIENCE


def test_a_stop_after_a_stage_that_could_not_be_made_does_not_end_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(consumers, "leave_by_force", lambda code=1: ended.append(code))
    monkeypatch.setattr(consumers, "_START_GRACE", 0.01)
    stop = threading.Event()
    settings = ConsumerSettings.of(input_channel="none", processor_class="no_module.Nothing")
    with pytest.raises(ProcessorError, match="no_module"):
        consumers.run_stages(settings, stop, lambda reports, ledgers: "")
    stop.set()
    for thread in threading.enumerate():
        if thread.name == "start-watch":
            thread.join(PATIENCE)
    assert ended == []
