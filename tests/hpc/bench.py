"""Stages of this process, for tests: over mode ``memory`` every object is in one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pvaccess as pva

from pvapy_stream.frame import Frame
from pvapy_stream.hpc.collector import Collector
from pvapy_stream.hpc.consumer import Consumer
from pvapy_stream.hpc.deadline import Deadline
from pvapy_stream.hpc.runner import StageRunner
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.settings import CollectorSettings, ConsumerSettings
from pvapy_stream.transport.memory_mode import MemoryPublisher
from tests.support import image, wait_until

BUILDER = ObjectBuilder()


class Bench:
    """Stages of this process, and what the last of them publishes."""

    def __init__(self) -> None:
        self._stages: list[StageRunner] = []
        # It serves from its beginning, and the channels of all servers of this process.
        self._server = pva.PvaServer()
        self._publishers: list[MemoryPublisher] = []

    def consumer(self, **settings: Any) -> Consumer:
        made = ConsumerSettings.of(
            **{"input_channel": "in", "input_mode": "memory", "output_mode": "memory", **settings}
        )
        return self._started(Consumer(made, made.consumer_id, self._server))

    def collector(self, **settings: Any) -> Collector:
        made = CollectorSettings.of(input_mode="memory", output_mode="memory", **settings)
        return self._started(Collector(made, made.collector_id, self._server))

    def _started(self, stage: Any) -> Any:
        self._stages.append(stage)
        stage.start()
        return stage

    def publisher(self, channel: str) -> MemoryPublisher:
        made = MemoryPublisher(channel)
        self._publishers.append(made)
        made.start()
        return made

    def stop(self) -> None:
        """Stop the stages, the first of the chain first, and close their accounts."""
        for stage in self._stages:
            stage.stop(Deadline(5))
        self._stages.clear()

    def close(self) -> None:
        self.stop()
        for publisher in self._publishers:
            publisher.stop()
        self._server.stop()


def frame(number: int) -> Any:
    return BUILDER.build(Frame.of(number, image(number)))


def wait_for(condition: Callable[[], Any], *stages: StageRunner) -> None:
    """Wait, while stages look after their connections."""

    def met() -> Any:
        for stage in stages:
            stage.keep_up()
        return condition()

    wait_until(met)
