"""Stages without a network, and objects with little in them."""

from __future__ import annotations

import pvaccess as pva

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import SequenceTracker
from pvapy_stream.hpc.output import Output
from pvapy_stream.hpc.processor import UserDataProcessor
from pvapy_stream.hpc.stage import Stage
from pvapy_stream.transport.memory_mode import MemoryPublisher


def obj(number: int) -> pva.PvObject:
    return pva.PvObject({"id": pva.LONG, "x": pva.DOUBLE}, {"id": number, "x": number / 2})


def make(
    processor: UserDataProcessor | None = None,
    publisher: MemoryPublisher | None = None,
    skip: int = 0,
    **tracker: int,
) -> Stage:
    processor = processor or UserDataProcessor()
    ledger = Ledger("consumer", 1)
    publisher = publisher or MemoryPublisher()
    stage = Stage(
        processor,
        ledger,
        SequenceTracker(**tracker),
        id_field="id",
        skip=skip,
        open_output=lambda _: Output(publisher, ledger, "id"),
    )
    processor.outputChannel = "out"
    return stage


def feed(stage: Stage, *ids: int) -> None:
    for number in ids:
        stage.handle(obj(number))
