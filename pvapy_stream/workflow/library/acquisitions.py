"""Writes pulses of a bsread stream to a SwissFEL file, and verifies it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pvapy_stream.daq.states import Phase
from pvapy_stream.errors import WorkflowError
from pvapy_stream.settings import WriterSettings
from pvapy_stream.workflow.model.parameters import Float, Form, Int, String
from pvapy_stream.workflow.model.protocol_classes import register
from pvapy_stream.workflow.model.validators import GE, GT, NonEmpty
from pvapy_stream.workflow.run.step_protocol import Protocol

_CLOSE_LIMIT = 60.0  # s; from the stop to a closed file


@register("BsreadAcquisition")
class BsreadAcquisition(Protocol):
    """Writes a range of pulses, which may have passed where the stream is a buffer's."""

    label = "bsread acquisition"
    outputs: ClassVar[Mapping[str, str]] = {"file": "file"}

    def define_params(self, form: Form) -> None:
        form.add("stream", String("", validators=(NonEmpty,), important=True,
                                  help="tcp://host:port, or buffer://host:port"))  # fmt: skip
        form.add("file_name", String("camera.h5", validators=(NonEmpty,), important=True))
        form.add("start_pulse_id", Int(-1, help="first pulse; -1: now", validators=(GE(-1),)))
        form.add("stop_pulse_id", Int(-1, help="last pulse; -1: after the time below"))
        form.add(
            "seconds", Float(10.0, validators=(GT(0),), help="s", condition="stop_pulse_id < 0")
        )
        form.add(
            "limit", Float(3600.0, validators=(GT(0),), help="time limit of the acquisition, s")
        )

    def insert_all_steps(self) -> None:
        path = str(self.extra(self.file_name))
        self.insert_step(self.acquire, path)
        self.insert_step(self.check, path)

    def acquire(self, path: str) -> str:
        """Write the pulses."""
        # Late, as HDF5 takes long to import, and most workflows have no such step.
        from pvapy_stream.daq.writer import AcquisitionWriter

        settings = WriterSettings.of(
            stream=self.stream, output_file=path, user_id=-1, rest_port=0, start_limit=self.limit
        )
        first = self.start_pulse_id if self.start_pulse_id >= 0 else None
        last = self.stop_pulse_id if self.stop_pulse_id >= 0 else None
        writer = AcquisitionWriter(settings)
        try:
            acquisition = writer.start(first, stop_pulse_id=last)
            if last is None and not acquisition.over.wait(self.seconds):
                acquisition.stop(None)
            acquisition.over.wait(self.limit if last is not None else _CLOSE_LIMIT)
        finally:
            writer.close()
        found = acquisition.progress()
        if found.phase == Phase.ERROR.value:
            raise WorkflowError(f"{self.stream}: {found.problem}")
        if found.n_lost:
            raise WorkflowError(f"{self.stream}: {found.n_lost} pulses are lost: {found.lost}")
        return path

    def check(self, path: str) -> None:
        """Verify the file."""
        from pvapy_stream.files.completeness import verify

        report = verify(Path(path))
        if not report.ok:
            raise WorkflowError(f"{path}: {'; '.join(report.problems) or 'pulses are lost'}")
        self.output_file("file", path)
        self.log.info("%s: %d pulses, all in order", path, report.n_images)
