"""Processors of the campaign: what they did shows in the pixels."""

from __future__ import annotations

from chaos.pixels import is_hit, marked, read
from pvapy_stream import Frame, FrameProcessor


class Work(FrameProcessor):
    """The work of a consumer."""

    stage = "consumer"

    def process_frame(self, frame: Frame) -> Frame | None:
        return frame.replace(image=marked(frame.image, self.stage))


class HitFinder(Work):
    """Drops most frames."""

    def process_frame(self, frame: Frame) -> Frame | None:
        return super().process_frame(frame) if is_hit(read(frame.image)[0]) else None


class Gathered(Work):
    """The work of a collector."""

    stage = "collector"
