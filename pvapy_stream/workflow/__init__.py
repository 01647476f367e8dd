"""Workflows: protocols of steps and of streaming stages, in one graph.

flow = Workflow("save")
detector = flow.add(Simulator(n_publish=1000), "detector")
mirror = flow.add(Mirror(input=detector["output"]), "mirror")
flow.add(Writer(input=mirror["output"], output="scan.h5"), "disk")
outcome = run_workflow(flow, "my_run")
"""

from pvapy_stream.workflow.library.streaming_stages import (
    CollectorStage as Collector,
)
from pvapy_stream.workflow.library.streaming_stages import (
    CommandStage as Command,
)
from pvapy_stream.workflow.library.streaming_stages import (
    ConsumerStage as Consumer,
)
from pvapy_stream.workflow.library.streaming_stages import (
    MirrorStage as Mirror,
)
from pvapy_stream.workflow.library.streaming_stages import (
    RecorderStage as Recorder,
)
from pvapy_stream.workflow.library.streaming_stages import (
    ReplayStage as Replay,
)
from pvapy_stream.workflow.library.streaming_stages import (
    SimulatorStage as Simulator,
)
from pvapy_stream.workflow.library.streaming_stages import (
    WriterStage as Writer,
)
from pvapy_stream.workflow.model.graph import Workflow
from pvapy_stream.workflow.model.node import Node
from pvapy_stream.workflow.model.parameters import (
    Boolean,
    Enum,
    File,
    Float,
    Folder,
    Form,
    Int,
    Label,
    MultiPointer,
    NumericList,
    NumericRange,
    Param,
    Path,
    Pointer,
    String,
    Text,
)
from pvapy_stream.workflow.model.validators import GE, GT, LE, LT, Format, NonEmpty, Positive, Range
from pvapy_stream.workflow.model.workflow_file import read_workflow, to_json, to_yaml
from pvapy_stream.workflow.run.project import Project
from pvapy_stream.workflow.run.scheduler import Outcome, Scheduler, run_workflow
from pvapy_stream.workflow.run.step_protocol import Protocol
from pvapy_stream.workflow.run.steps import State, Step
from pvapy_stream.workflow.run.stream_set import StreamSet, StreamState

__all__ = [
    "GE",
    "GT",
    "LE",
    "LT",
    "Boolean",
    "Collector",
    "Command",
    "Consumer",
    "Enum",
    "File",
    "Float",
    "Folder",
    "Form",
    "Format",
    "Int",
    "Label",
    "Mirror",
    "MultiPointer",
    "Node",
    "NonEmpty",
    "NumericList",
    "NumericRange",
    "Outcome",
    "Param",
    "Path",
    "Pointer",
    "Positive",
    "Project",
    "Protocol",
    "Range",
    "Recorder",
    "Replay",
    "Scheduler",
    "Simulator",
    "State",
    "Step",
    "StreamSet",
    "StreamState",
    "String",
    "Text",
    "Workflow",
    "Writer",
    "read_workflow",
    "run_workflow",
    "to_json",
    "to_yaml",
]
