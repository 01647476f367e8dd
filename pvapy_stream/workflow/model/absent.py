"""What the stages of a workflow name and is not there: files, classes, data sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pvapy_stream import settings as models
from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.plugins import load_processor_class
from pvapy_stream.settings import ReplaySettings, SimulatorSettings, StageSettings
from pvapy_stream.sim.frame_sources import open_sources
from pvapy_stream.workflow.model.plan import WiredStage, WorkflowPlan


def absent(plan: WorkflowPlan) -> Iterator[str]:
    """What is not there, a sentence for each stage; processor files are executed to find it.

    Left out are stages on another host, and those that begin after a protocol, which may make
    their files.
    """
    for label, one in plan.stages.items():
        if not one.node.after and not one.stage.value("place"):
            try:
                _look(one)
            except PvapyStreamError as error:
                yield f"{label}: {error}"


def _look(one: WiredStage) -> None:
    """Open what a stage needs.

    Raises:
        PvapyStreamError: it is not there.
    """
    program = one.programs[0] if one.programs else None
    if program is None or not program.settings_class:
        return
    settings = getattr(models, program.settings_class).of(**program.settings)
    if isinstance(settings, StageSettings) and settings.processor_class:
        load_processor_class(settings.processor_class, settings.processor_file or None)
    if isinstance(settings, SimulatorSettings) and (
        settings.input_file or settings.input_directory or settings.config_file
    ):
        for _ in open_sources(settings):
            break
    if isinstance(settings, ReplaySettings):
        # Here, as HDF5 takes long to import, and few workflows have one.
        from pvapy_stream.files.recorded import RecordedStream

        RecordedStream(Path(settings.file)).close()
