"""bsread programs as stages: simulated source, buffer, writer of what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pvapy_stream import settings as models
from pvapy_stream.errors import SettingsError
from pvapy_stream.workflow.model.protocol_classes import register
from pvapy_stream.workflow.model.streaming_stage import (
    BSREAD,
    DEFAULT_QUEUE,
    Site,
    Stream,
    StreamingStage,
    Wired,
)

_HOST = "127.0.0.1"
_PATIENCE = 10.0  # s a source waits for the next stage to take a message, so that none is dropped
_MEMORY = 500.0  # MB a buffer keeps when nothing else is said
_LIMITS = ("buffer_length", "memory", "seconds")


@register("BsreadSim")
class BsreadSimStage(StreamingStage):
    """A source of bsread messages: scalars, cameras, and faults on request."""

    label = "Simulated bsread source"
    settings = models.BsreadSimSettings
    command = "bsread-sim"
    accepts = ""
    outputs: ClassVar[Mapping[str, str]] = {"output": BSREAD}
    is_source = True
    # Its pulses would begin again with the first.
    max_restarts = 0
    graphs_own = frozenset({"address", "mode"})

    def wire(self, label: str, source: Stream | None, site: Site) -> Wired:
        address = f"tcp://{_HOST}:{site.port()}"
        values = {"send_timeout": _PATIENCE, **self.own_settings(site), "address": address}
        return Wired((self.spec(label, values),), Stream(address, kind=BSREAD, is_shared=False))


class _Receiving(StreamingStage):
    """What buffer and writer have in common."""

    graphs_own: ClassVar[frozenset[str]] = frozenset({"status_channel"})

    def common(self, label: str, source: Stream | None, site: Site) -> dict[str, object]:
        """Settings, the status channel, and the stream that an arrow brings.

        Raises:
            SettingsError: there is neither an arrow nor a stream, or both.
        """
        values = {**self.own_settings(site), "status_channel": f"{site.prefix}{label}:status:1"}
        if source is None and "stream" not in values:
            raise SettingsError("needs an input, such as buffer.output, or a stream")
        if source is not None and "stream" in values:
            raise SettingsError("has an input and a stream; give one of them")
        return values


@register("Buffer")
class BufferStage(_Receiving):
    """Keeps the newest pulses of a bsread stream, or images of a channel, for those who ask."""

    label = "bsread buffer"
    settings = models.BufferSettings
    command = "buffer"
    accepts = (BSREAD, "stream")
    outputs: ClassVar[Mapping[str, str]] = {"output": BSREAD}
    quiet = 2.2
    graphs_own = _Receiving.graphs_own | {
        "output_port", "range_port", "rest_port", "no_rest", "interface",
    }  # fmt: skip

    def wire(self, label: str, source: Stream | None, site: Site) -> Wired:
        values = self.common(label, source, site)
        if source is not None:
            values = {**_stream_of(source), **values}
        if not any(values.get(name) for name in _LIMITS):
            values["memory"] = _MEMORY
        ranges = site.port()
        values |= {
            "output_port": site.port(), "range_port": ranges, "no_rest": True, "interface": _HOST,
        }  # fmt: skip
        output = Stream(f"buffer://{_HOST}:{ranges}", kind=BSREAD)
        return Wired((self.spec(label, values),), output)


@register("BsreadWriter")
class BsreadWriterStage(_Receiving):
    """Writes a range of pulses, or all, to an HDF5 file; its output is the file, once it has ended.

    What is written is said by ``start``, ``stop_pulse_id`` and ``seconds``; when nothing is, all
    pulses until the stream ends.
    """

    label = "bsread writer"
    settings = models.WriterSettings
    command = "writer"
    accepts = (BSREAD,)
    outputs: ClassVar[Mapping[str, str]] = {"file": "file"}
    # A second file would be in the way of the first.
    max_restarts = 0
    file_param = "output_file"
    ends_itself = True
    graphs_own = _Receiving.graphs_own | {
        "user_id", "rest_port", "service", "parallel", "folder", "linger",
    }  # fmt: skip

    def wire(self, label: str, source: Stream | None, site: Site) -> Wired:
        values = self.common(label, source, site)
        if source is not None:
            values["stream"] = source.pattern
        if not values.get("output_file"):
            raise SettingsError("needs an output_file")
        if values.get("start") is None:
            values["start"] = "first"
        path = site.folder / str(values["output_file"])
        values |= {"output_file": str(path.absolute()), "user_id": -1, "rest_port": 0, "linger": 0}
        return Wired((self.spec(label, values),), None)


def _stream_of(source: Stream) -> dict[str, object]:
    """Settings of a buffer that follows an arrow.

    Raises:
        SettingsError: it brings several channels.
    """
    if source.kind == BSREAD:
        return {"stream": source.pattern}
    if len(source.ids) > 1:
        raise SettingsError(
            f"one buffer cannot follow {len(source.ids)} channels; gather them first with a"
            " Collector"
        )
    return {
        "stream": f"pva://{source.channels[0]}",
        "server_queue_size": DEFAULT_QUEUE,
        "skip_initial_updates": 1,
    }
